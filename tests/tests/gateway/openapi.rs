//! `docs/openapi-gateway.yaml` and the real server say the same: paths, methods, and every status that comes.

use std::collections::BTreeSet;

use tests::control_plane::Gateway;
use tests::dialler::Dialler;
use tests::openapi::{Call, Page, routed};
use tests::wait::wait_until;

fn page() -> Page {
    Page::new(include_str!("../../../docs/openapi-gateway.yaml"))
}

#[test]
fn every_route_of_the_gateway_is_described_and_nothing_else() {
    let mut routed = routed("gateway/src/api");
    // Its path is a word of the protocol.
    routed.insert((protocol::session::PATH.into(), "GET".into()));
    let described = page().calls().into_keys().map(|(path, method)| (path, method.replace("X-ANY", "ANY")));
    let described: BTreeSet<Call> = described.collect();
    let missing: Vec<_> = routed.difference(&described).collect();
    let invented: Vec<_> = described.difference(&routed).collect();
    assert!(missing.is_empty() && invented.is_empty(), "not described: {missing:?}; not routed: {invented:?}");
}

#[test]
fn every_described_call_answers_with_a_status_that_is_listed() {
    let gateway = Gateway::start();
    let page = page();
    let pages = page.calls();
    let passed = pages[&("/v1/sandboxes/{id}/dev-tasks".to_string(), "X-ANY".to_string())].clone();
    let large = vec![b'x'; 1 << 20];
    let mut wrong = Vec::new();
    for ((path, method), mut statuses) in pages {
        drop(Dialler::begin(&gateway, "a"));
        wait_until("it is away", || gateway.api().get("/v1/sandboxes/a").json()["status"] == "disconnected");
        // What passes through to the sandbox is described by the other page.
        let described = method != "X-ANY";
        if !described {
            // The page says it once for all of them.
            statuses.extend(&passed);
        }
        let method = if method == "X-ANY" { "POST".to_string() } else { method };
        for id in ["a", "unknown", "%ff"] {
            let real = path.replace("{id}", id).replace("{path}", "x").replace("{n}", "1");
            let body: &[u8] = if method == "POST" { br#"{"do":"drain"}"# } else { b"" };
            for (api, suffix, body) in [
                (gateway.api(), "", body),
                (gateway.api(), "?nonsense=1", body),
                (gateway.api(), "", if method == "POST" { &large[..] } else { b"" }),
                (gateway.api().with_token(None), "", body),
                (gateway.api().with_token(Some("wrong")), "", body),
            ] {
                let answer = api.call(&method, &format!("{real}{suffix}"), &[], body);
                if described {
                    let problems = page.problems(&(path.clone(), method.clone()), &answer);
                    wrong.extend(problems.into_iter().map(|problem| format!("{method} {real}{suffix}: {problem}")));
                    continue;
                }
                if !statuses.contains(&answer.status()) {
                    wrong.push(format!("{method} {real}{suffix}: {} {}", answer.status(), answer.json()));
                }
                let problem = answer.header("content-type") == "application/problem+json";
                if answer.status() >= 400 && !problem && !path.ends_with('z') {
                    wrong.push(format!("{method} {real}{suffix}: {} is no problem body", answer.status()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
