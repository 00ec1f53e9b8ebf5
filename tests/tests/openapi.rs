//! `docs/openapi.yaml` and the real server say the same: paths, methods, parameters, bodies, and every answer that comes.

#[path = "openapi/answers.rs"]
mod answers;
#[path = "openapi/requests.rs"]
mod requests;

use std::collections::BTreeSet;

use tests::openapi::{Call, Page, routed};
use tests::supervisor::Supervisor;
use tests::tasks::Api;

fn page() -> Page {
    Page::new(include_str!("../../docs/openapi.yaml"))
}

#[test]
fn every_route_of_the_server_is_described_and_nothing_else() {
    let described: BTreeSet<Call> = page().calls().into_keys().collect();
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
fn whatever_is_called_how_the_answer_is_one_that_is_described() {
    let supervisor = Supervisor::new().token().start();
    let api = Api::of(&supervisor);
    let page = page();
    let mut wrong = Vec::new();
    for call in page.calls().into_keys() {
        let (path, method) = &call;
        api.post("/dev-tasks?wait=30s", r#"{"task_id":"t","script":"echo x > $TASK_ARTIFACTS/a"}"#);
        for id in ["t", "unknown", "%ff"] {
            let real = path.replace("{id}", id).replace("{path}", "a");
            let large = vec![b'x'; 2 * 1024 * 1024];
            for (api, suffix, body) in [
                (&api, "", body(path, method)),
                (&api, "?nonsense=1", body(path, method)),
                (&api, "", b"{}"),
                (&api, "", if method == "POST" { &large } else { b"" }),
                (&api.with_token(None), "", body(path, method)),
                (&api.with_token(Some("wrong")), "", b""),
            ] {
                let answer = api.call(method, &format!("{real}{suffix}"), &[], body);
                let problems = page.problems(&call, &answer);
                wrong.extend(problems.into_iter().map(|problem| format!("{method} {real}{suffix}: {problem}")));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
