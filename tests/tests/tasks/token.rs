//! Who may call: whoever has the token, and nobody else.

use std::collections::BTreeSet;

use serde_json::json;
use tests::openapi::Page;
use tests::scene;
use tests::supervisor::Supervisor;
use tests::tasks::Api;

use super::api;

/// Every way in, of the page that describes all of them: each path by every method, as it is or with more behind it. None may be
/// open.
fn calls() -> Vec<(&'static str, String)> {
    let page = Page::new(include_str!("../../../docs/openapi.yaml"));
    let closed = page.calls().into_keys().filter(|call| !page.is_open(call));
    let mut paths: BTreeSet<String> =
        closed.map(|(path, _)| path.replace("{id}", "x").replace("{path}", "a/b")).collect();
    assert!(paths.len() >= 16, "{paths:?}");
    paths.extend(["/dev-tasks/x/nowhere/at/all", "/dev-tasks/", "/dev-tasks/%2e%2e/livez"].map(String::from));
    let methods = ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"];
    paths.into_iter().flat_map(|path| methods.map(move |method| (method, path.clone()))).collect()
}

/// A bash script that makes all these calls with `$port` set, without a token and with a wrong one, and prints the first line of each
/// as it was sent, and of its answer.
fn script() -> String {
    let all: Vec<String> = calls().into_iter().map(|(method, path)| format!("'{method} {path}'")).collect();
    // No call is part of a format: %2e is a conversion to printf.
    let send = "exec 3<>/dev/tcp/127.0.0.1/$port; printf -v request '%s HTTP/1.0\\r\\n%b\\r\\n' \"$call\" \"$header\"; \
                printf %s \"$request\" | head -n 1; printf %s \"$request\" >&3; head -n 1 <&3; exec 3>&-";
    let headers = "'' 'Authorization: Bearer wrong\\r\\n'";
    format!("for call in {}; do for header in {headers}; do {send}; done; done; echo done", all.join(" "))
}

/// Each of these calls was answered, and each with 401.
#[track_caller]
fn assert_refused(said: &str) {
    let sent: BTreeSet<&str> = said.lines().filter_map(|line| line.strip_suffix(" HTTP/1.0")).collect();
    let calls: BTreeSet<String> = calls().into_iter().map(|(method, path)| format!("{method} {path}")).collect();
    assert!(sent.iter().eq(&calls), "{said}");
    let lines: Vec<&str> = said.lines().filter(|line| line.starts_with("HTTP/")).collect();
    assert_eq!(lines.len(), 2 * calls.len(), "{said}");
    assert!(lines.iter().all(|line| line.starts_with("HTTP/1.0 401 ")), "{said}");
}

#[test]
fn without_a_token_file_the_api_is_closed_and_says_so() {
    let supervisor = Supervisor::new().start();
    for api in [Api::of(&supervisor), Api::of(&supervisor).with_token(None), Api::of(&supervisor).with_token(Some(""))]
    {
        for (method, path) in &calls() {
            let answer = api.call(method, path, &[], b"{}");
            assert_eq!(answer.status(), 403, "{method} {path}");
            assert!(answer.json()["detail"].as_str().is_some_and(|d| d.contains("SUPERVISOR_API_TOKEN_FILE")));
        }
    }
    assert_eq!(supervisor.get("/livez").status, 200);
    assert_eq!(supervisor.get("/nowhere").status, 404);
}

#[test]
fn a_missing_or_wrong_token_is_401_on_every_path() {
    let (supervisor, api) = api();
    let longer = format!("{}x", scene::CANARY);
    for token in [None, Some("wrong"), Some(""), Some(&scene::CANARY[1..]), Some(longer.as_str())] {
        for (method, path) in &calls() {
            let answer = api.with_token(token).call(method, path, &[], b"{}");
            assert_eq!(answer.status(), 401, "{token:?} {method} {path}");
            assert_eq!(answer.header("www-authenticate"), "Bearer");
            assert!(!String::from_utf8_lossy(&answer.body).contains(scene::CANARY));
        }
    }
    let basic =
        api.with_token(None).call("GET", "/dev-tasks", &[("Authorization", &format!("Basic {}", scene::CANARY))], b"");
    assert_eq!(basic.status(), 401);
    let query = api.with_token(None).get(&format!("/dev-tasks?access_token={}", scene::CANARY));
    assert_eq!(query.status(), 401);
    let lower =
        api.with_token(None).call("GET", "/dev-tasks", &[("authorization", &format!("bearer {}", scene::CANARY))], b"");
    assert_eq!(lower.status(), 200, "the scheme has no case (RFC 7235)");
    assert!(!supervisor.stderr.text().contains(scene::CANARY), "no token in the log");
}

#[test]
fn a_token_file_that_is_replaced_is_read_anew() {
    let (supervisor, api) = api();
    let path = supervisor.paths().token.clone();
    let beside = path.with_extension("new");
    assert_eq!(api.get("/dev-tasks").status(), 200);
    std::fs::write(&beside, "another\n").expect("our own directory");
    std::fs::rename(&beside, &path).expect("our own directory");
    assert_eq!(api.get("/dev-tasks").status(), 401);
    assert_eq!(api.with_token(Some("another")).get("/dev-tasks").status(), 200);
    std::fs::write(&path, "").expect("our own directory");
    assert_eq!(api.with_token(Some("")).get("/dev-tasks").status(), 503, "an empty file lets nobody in");
    std::fs::remove_file(&path).expect("our own directory");
    assert_eq!(api.get("/dev-tasks").status(), 503);
}

#[test]
fn a_task_can_neither_read_the_token_nor_call_the_api() {
    let (supervisor, api) = api();
    let token = supervisor.paths().token.display().to_string();
    let port = api.address.port();
    let script = format!("port={port}; {}", script());
    let task = api.run(json!({"argv": ["bash", "-c", script], "execution_class": "networked"}));
    let id = task["task_id"].as_str().expect("an id");
    assert_refused(&String::from_utf8_lossy(&api.output(id, "stdout")));
    let root = supervisor.pid();
    for path in
        [&token, &format!("/proc/{root}/root{token}"), &format!("/proc/{root}/environ"), &format!("/proc/{root}/mem")]
    {
        let task = api.run(json!({"argv": ["cat", path], "execution_class": "networked"}));
        assert_eq!(task["state"], "failed", "{path}");
        assert_eq!(api.output(task["task_id"].as_str().expect("an id"), "stdout"), b"", "{path}");
    }
    let journal = supervisor.paths().state.join("tasks/journal").display().to_string();
    assert_eq!(api.run(json!({"argv": ["cat", journal]}))["state"], "failed", "nor what others run");
}

#[test]
fn the_agent_can_neither_read_the_token_nor_call_the_api() {
    let agent = "read port; export port; bash -c \"$ALL\"; read token; cat $token && echo READ; sleep 1000";
    let supervisor = Supervisor::new().token().shell(agent).env("ALL", script()).set("agent-env-allow", "ALL");
    let mut supervisor = supervisor.stdin(std::process::Stdio::piped()).start();
    let lines = format!("{}\n{}\n", supervisor.address().port(), supervisor.paths().token.display());
    std::io::Write::write_all(&mut supervisor.stdin().expect("a pipe"), lines.as_bytes()).expect("it reads");
    supervisor.stdout.wait_text("done");
    assert_refused(&supervisor.stdout.text());
    supervisor.stderr.wait_text("Permission denied");
    assert!(!supervisor.stdout.text().contains("READ"));
}
