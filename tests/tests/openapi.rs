//! `docs/openapi.yaml` and the real server say the same: paths, methods, and every status that comes.

use std::collections::{BTreeMap, BTreeSet};

use tests::supervisor::Supervisor;
use tests::tasks::Api;

/// Path and method.
type Call = (String, String);

const PAGE: &str = include_str!("../../docs/openapi.yaml");

/// What the page lists. It keeps to one layout, so that no parser is needed: paths two blanks in, methods four,
/// statuses eight.
fn listed() -> BTreeMap<Call, BTreeSet<u16>> {
    let paths = PAGE.split("\npaths:\n").nth(1).and_then(|p| p.split("\ncomponents:").next()).expect("paths");
    let mut calls: BTreeMap<Call, BTreeSet<u16>> = BTreeMap::new();
    let (mut path, mut method) = (String::new(), String::new());
    for line in paths.lines() {
        let indent = line.len() - line.trim_start().len();
        let word = line.trim().split(": ").next().unwrap_or_default().trim_end_matches(':');
        match indent {
            2 => path = word.to_string(),
            4 => method = word.to_uppercase(),
            8 => {
                let number = word.strip_prefix('\'').and_then(|w| w.strip_suffix('\''));
                let status: Option<u16> = number.and_then(|n| n.parse().ok());
                calls.entry((path.clone(), method.clone())).or_default().extend(status);
            }
            _ => {}
        }
    }
    calls
}

/// What the server routes, from its source: `.route("PATH", get(…).post(…))`.
fn routed() -> BTreeSet<Call> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../supervisor/src/http");
    let mut sources = std::fs::read_to_string(format!("{folder}.rs")).expect("the source");
    for entry in std::fs::read_dir(folder).expect("the source").flatten() {
        if entry.path().is_file() {
            sources += &std::fs::read_to_string(entry.path()).expect("the source");
        }
    }
    let mut calls = BTreeSet::new();
    for route in sources.split(".route(").skip(1) {
        let Some((path, rest)) = route.trim_start().strip_prefix('"').and_then(|r| r.split_once('"')) else { continue };
        let methods = rest.split(".route(").next().unwrap_or_default();
        let methods =
            methods.split(".with_state").next().unwrap_or_default().split(".layer").next().unwrap_or_default();
        for method in ["get", "post", "put", "delete", "patch", "any"] {
            let called = |before: &str| methods.contains(&format!("{before}{method}("));
            if called(" ") || called(".") {
                calls.insert((path.replace("{*", "{"), method.to_uppercase()));
            }
        }
    }
    calls
}

#[test]
fn every_route_of_the_server_is_described_and_nothing_else() {
    let described: BTreeSet<Call> = listed().into_keys().collect();
    let routed = routed();
    let missing: Vec<_> = routed.difference(&described).collect();
    let invented: Vec<_> = described.difference(&routed).collect();
    assert!(missing.is_empty() && invented.is_empty(), "not described: {missing:?}; not routed: {invented:?}");
}

/// Something that this call takes, where there is one.
fn body(path: &str, method: &str) -> &'static [u8] {
    match (method, path) {
        ("POST", "/dev-tasks") => br#"{"argv":["true"]}"#,
        ("POST", "/dev-tasks/{id}/signal") => br#"{"signal":15}"#,
        ("POST", "/dev-tasks/{id}/patch/approve") => br#"{"sha256":"00"}"#,
        ("PUT" | "POST", _) => b"bytes",
        _ => b"",
    }
}

#[test]
fn every_described_call_answers_with_a_status_that_is_listed() {
    let supervisor = Supervisor::new().token().start();
    let api = Api::of(&supervisor);
    let mut wrong = Vec::new();
    for ((path, method), statuses) in listed() {
        api.post("/dev-tasks?wait=30s", r#"{"task_id":"t","script":"echo x > $TASK_ARTIFACTS/a"}"#);
        for id in ["t", "unknown", "%ff"] {
            let real = path.replace("{id}", id).replace("{path}", "a");
            let large = vec![b'x'; 2 * 1024 * 1024];
            for (api, suffix, body) in [
                (&api, "", body(&path, &method)),
                (&api, "?nonsense=1", body(&path, &method)),
                (&api, "", b"{}"),
                (&api, "", if method == "POST" { &large } else { b"" }),
                (&api.with_token(None), "", body(&path, &method)),
                (&api.with_token(Some("wrong")), "", b""),
            ] {
                let answer = api.call(&method, &format!("{real}{suffix}"), &[], body);
                if !statuses.contains(&answer.status()) {
                    wrong.push(format!("{method} {real}{suffix}: {} {}", answer.status(), answer.json()));
                }
                let problem = answer.header("content-type") == "application/problem+json";
                if answer.status() >= 400 && !problem && !path.ends_with('z') && path != "/alive" {
                    wrong.push(format!("{method} {real}{suffix}: {} is no problem body", answer.status()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
