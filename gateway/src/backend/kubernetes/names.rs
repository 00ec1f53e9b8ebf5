//! What the objects of a sandbox are called: the same id has the same name, on every gateway and at any time.
//!
//! A name is a DNS label (RFC 1123, and 1035, which Services ask for): a prefix, what is readable of the id, and a hash of all
//! of it, so that ids which look alike have different names. The exact ids are in annotations; labels, which cannot hold them,
//! have hashes of them (000-35, 000-36, 002-15).

use std::collections::BTreeMap;

use kube::ResourceExt;
use sha2::{Digest, Sha256};

pub(super) use crate::cluster::{AGENT_ID, CONTROLLER_ID, MANAGED_BY};
use crate::tokens::hex;

/// A hash of the sandbox's id.
pub(super) const AGENT: &str = "openhive.io/agent";

const PREFIX: &str = "sandbox";
/// With prefix, hash and two dashes, a label of 63 characters.
const READABLE: usize = 38;

/// The name of Pod and Service.
pub(super) fn name(id: &str) -> String {
    let mut readable = String::new();
    for letter in id.chars().map(|letter| letter.to_ascii_lowercase()) {
        match letter {
            'a'..='z' | '0'..='9' => readable.push(letter),
            _ if !readable.is_empty() && !readable.ends_with('-') => readable.push('-'),
            _ => {}
        }
        if readable.len() == READABLE {
            break;
        }
    }
    let readable = readable.trim_end_matches('-');
    let hash = hash(id);
    if readable.is_empty() { format!("{PREFIX}-{hash}") } else { format!("{PREFIX}-{readable}-{hash}") }
}

/// 64 bits of SHA-256, as 16 hex digits.
pub(super) fn hash(text: &str) -> String {
    hex(&Sha256::digest(text.as_bytes())[..8])
}

/// What all objects of this gateway have.
pub(super) fn managed_by(controller: &str) -> String {
    format!("{MANAGED_BY}={}", hash(controller))
}

/// The labels of a sandbox's objects.
pub(super) fn labels(controller: &str, id: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(MANAGED_BY.into(), hash(controller)), (AGENT.into(), hash(id))])
}

/// The annotations of a sandbox's objects.
pub(super) fn annotations(controller: &str, id: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(CONTROLLER_ID.into(), controller.into()), (AGENT_ID.into(), id.into())])
}

/// Whose sandbox it is, where this gateway has made it and nobody has changed what it is called.
pub(super) fn agent_of(controller: &str, object: &impl ResourceExt) -> Option<String> {
    let annotations = object.annotations();
    let id = annotations.get(AGENT_ID)?;
    let ours = annotations.get(CONTROLLER_ID).is_some_and(|found| found == controller);
    (ours && name(id) == object.name_any()).then(|| id.clone())
}

/// Whom an object says that it belongs to, for people.
pub(super) fn owner(object: &impl ResourceExt) -> String {
    let said = |key| object.annotations().get(key).map(String::as_str);
    match (said(AGENT_ID), said(CONTROLLER_ID)) {
        (Some(id), Some(controller)) => format!("sandbox `{id}` of the gateway `{controller}`"),
        _ => "no gateway".into(),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;

    use super::*;

    fn is_label(name: &str) -> bool {
        let known = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        name.len() <= 63
            && name.bytes().all(known)
            && name.starts_with(|first: char| first.is_ascii_lowercase())
            && !name.ends_with('-')
    }

    #[test]
    fn a_name_is_a_dns_label_whatever_the_id_is() {
        let long = "A_".repeat(64);
        for id in ["a", "-", "___", "A.B_c", "0", &long, &"x".repeat(253), "größe/☃"] {
            assert!(is_label(&name(id)), "{id}: {}", name(id));
        }
        assert_eq!(name("Agent_7"), format!("sandbox-agent-7-{}", hash("Agent_7")));
    }

    #[test]
    fn ids_that_look_alike_have_different_names() {
        let alike = ["agent.1", "agent-1", "agent_1", "Agent-1", "agent--1"];
        let names: std::collections::BTreeSet<_> = alike.iter().map(|id| name(id)).collect();
        assert_eq!(names.len(), alike.len());
        let long = "x".repeat(120);
        assert_ne!(name(&format!("{long}a")), name(&format!("{long}b")));
    }

    #[test]
    fn only_what_has_exactly_our_ids_is_ours() {
        let pod = |controller: &str, id: &str, called: &str| {
            let mut pod = Pod::default();
            pod.metadata.name = Some(called.into());
            pod.metadata.annotations = Some(annotations(controller, id));
            pod
        };
        assert_eq!(agent_of("one", &pod("one", "a", &name("a"))).as_deref(), Some("a"));
        assert_eq!(agent_of("one", &pod("two", "a", &name("a"))), None);
        assert_eq!(agent_of("one", &pod("one ", "a", &name("a"))), None);
        assert_eq!(agent_of("one", &pod("one", "b", &name("a"))), None);
        assert_eq!(agent_of("one", &Pod::default()), None);
    }
}
