//! Who may call: whoever has the token, and nobody else.

use serde_json::json;
use tests::scene;
use tests::supervisor::Supervisor;
use tests::tasks::Api;

use super::api;

/// Every way in; none may be open.
const CALLS: &[(&str, &str)] = &[
    ("POST", "/dev-tasks"),
    ("GET", "/dev-tasks"),
    ("GET", "/dev-tasks/x"),
    ("DELETE", "/dev-tasks/x"),
    ("GET", "/dev-tasks/x/logs"),
    ("POST", "/dev-tasks/x/cancel"),
    ("POST", "/dev-tasks/x/signal"),
    ("POST", "/dev-tasks/x/stdin"),
    ("POST", "/dev-tasks/x/stdin/close"),
    ("PUT", "/dev-tasks"),
    ("PATCH", "/dev-tasks/x"),
    ("GET", "/dev-tasks/x/nowhere/at/all"),
    ("GET", "/dev-tasks/"),
    ("GET", "/dev-tasks/%2e%2e/livez"),
];

#[test]
fn without_a_token_file_the_api_is_closed_and_says_so() {
    let supervisor = Supervisor::new().start();
    for api in [Api::of(&supervisor), Api::of(&supervisor).with_token(None), Api::of(&supervisor).with_token(Some(""))]
    {
        for (method, path) in CALLS {
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
        for (method, path) in CALLS {
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
    let call = format!("exec 3<>/dev/tcp/127.0.0.1/{port}; printf 'GET /dev-tasks HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3");
    let task = api.run(json!({"argv": ["bash", "-c", call], "execution_class": "networked"}));
    let id = task["task_id"].as_str().expect("an id");
    let said = String::from_utf8_lossy(&api.output(id, "stdout")).into_owned();
    assert!(said.starts_with("HTTP/1.0 401"), "{said}");
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
    let supervisor = Supervisor::new().token().shell("read port; bash -c \"exec 3<>/dev/tcp/127.0.0.1/$port; printf 'POST /dev-tasks HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3\"; read token; cat $token && echo READ; sleep 1000");
    let mut supervisor = supervisor.stdin(std::process::Stdio::piped()).start();
    let lines = format!("{}\n{}\n", supervisor.address().port(), supervisor.paths().token.display());
    std::io::Write::write_all(&mut supervisor.stdin().expect("a pipe"), lines.as_bytes()).expect("it reads");
    supervisor.stdout.wait_text("HTTP/1.0 401");
    supervisor.stderr.wait_text("Permission denied");
    assert!(!supervisor.stdout.text().contains("READ"));
}
