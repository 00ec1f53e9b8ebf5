//! `docs/openapi.yaml` and the real server say the same: paths, methods, and every status that comes.

use std::collections::BTreeSet;

use tests::openapi::{Call, listed, routed};
use tests::supervisor::Supervisor;
use tests::tasks::Api;

const PAGE: &str = include_str!("../../docs/openapi.yaml");

#[test]
fn every_route_of_the_server_is_described_and_nothing_else() {
    let described: BTreeSet<Call> = listed(PAGE).into_keys().collect();
    let routed = routed("supervisor/src/http");
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
    for ((path, method), statuses) in listed(PAGE) {
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
