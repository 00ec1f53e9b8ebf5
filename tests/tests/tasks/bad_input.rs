//! What is wrong is refused by its name with the right status; nothing is started, nothing is written.

use serde_json::{Value, json};
use tests::tasks::Api;

use super::api;

/// Nothing is there that was not there before.
#[track_caller]
fn nothing_happened(supervisor: &tests::supervisor::Supervisor, api: &Api) {
    assert_eq!(api.list(""), [] as [Value; 0]);
    assert_eq!(std::fs::read(supervisor.paths().state.join("tasks/journal")).expect("it is there"), b"");
    let left: Vec<_> = std::fs::read_dir(&supervisor.paths().workspace).expect("it is there").flatten().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn every_wrong_field_of_a_create_is_named() {
    let (supervisor, api) = api();
    let long = "x".repeat(300);
    let many: serde_json::Map<String, Value> = (0..33).map(|n| (n.to_string(), json!("v"))).collect();
    for (body, field) in [
        (json!({}), "argv"),
        (json!({"argv": []}), "argv"),
        (json!({"argv": ["touch", "x"], "script": "touch x"}), "script"),
        (json!({"argv": [""]}), "argv"),
        (json!({"argv": ["touch", "a\0b"]}), "argv"),
        (json!({"script": "touch a\0b"}), "script"),
        (json!({"argv": "touch x"}), "argv"),
        (json!({"argv": ["touch", 1]}), "argv[1]"),
        (json!({"argv": ["touch", "x"], "nonsense": 1}), "nonsense"),
        (json!({"argv": ["touch", "x"], "limits": {"nonsense": 1}}), "limits.nonsense"),
        (json!({"argv": ["touch", "x"], "execution_class": "root"}), "execution_class"),
        (json!({"argv": ["touch", "x"], "execution_class": 1}), "execution_class"),
        (json!({"argv": ["touch", "x"], "task_id": "../../etc"}), "task_id"),
        (json!({"argv": ["touch", "x"], "task_id": ""}), "task_id"),
        (json!({"argv": ["touch", "x"], "task_id": ".hidden"}), "task_id"),
        (json!({"argv": ["touch", "x"], "task_id": "journal/x"}), "task_id"),
        (json!({"argv": ["touch", "x"], "task_id": long}), "task_id"),
        (json!({"argv": ["touch", "x"], "cwd": "relative"}), "cwd"),
        (json!({"argv": ["touch", "x"], "cwd": "/a\0b"}), "cwd"),
        (json!({"argv": ["touch", "x"], "env": {"A=B": "1"}}), "env"),
        (json!({"argv": ["touch", "x"], "env": {"A": "\0"}}), "env"),
        (json!({"argv": ["touch", "x"], "env": {"A": 1}}), "env.A"),
        (json!({"argv": ["touch", "x"], "stdin": "a", "stdin_b64": "YQ=="}), "stdin_b64"),
        (json!({"argv": ["touch", "x"], "stdin_b64": "not base64!"}), "stdin_b64"),
        (json!({"argv": ["touch", "x"], "stdin_open": "yes"}), "stdin_open"),
        (json!({"argv": ["touch", "x"], "timeout": 30}), "timeout"),
        (json!({"argv": ["touch", "x"], "timeout": "30"}), "timeout"),
        (json!({"argv": ["touch", "x"], "timeout": "-1s"}), "timeout"),
        (json!({"argv": ["touch", "x"], "timeout": "0s"}), "timeout"),
        (json!({"argv": ["touch", "x"], "timeout": "99999h"}), "timeout"),
        (json!({"argv": ["touch", "x"], "priority": 101}), "priority"),
        (json!({"argv": ["touch", "x"], "priority": 1.5}), "priority"),
        (json!({"argv": ["touch", "x"], "labels": many}), "labels"),
        (json!({"argv": ["touch", "x"], "labels": {"a": long}}), "labels"),
        (json!({"argv": ["touch", "x"], "connect_ports": [80]}), "connect_ports"),
        (json!({"argv": ["touch", "x"], "connect_ports": [0], "execution_class": "networked"}), "connect_ports"),
        (json!({"argv": ["touch", "x"], "connect_ports": [65536], "execution_class": "networked"}), "connect_ports[0]"),
        (json!({"argv": ["touch", "x"], "limits": {"output_bytes": 0}}), "limits.output_bytes"),
        (json!({"argv": ["touch", "x"], "limits": {"output_bytes": -1}}), "limits.output_bytes"),
        (json!({"argv": ["touch", "x"], "limits": {"output_bytes": 1u64 << 60}}), "limits.output_bytes"),
        (json!({"argv": ["touch", "x"], "limits": {"cpu_seconds": 0}}), "limits.cpu_seconds"),
        (json!({"argv": ["touch", "x"], "limits": {"processes": 0}}), "limits.processes"),
        (json!({"argv": ["touch", "x"], "limits": {"open_files": "many"}}), "limits.open_files"),
        (json!({"argv": ["touch", "x"], "limits": {"memory_bytes": 1e30}}), "limits.memory_bytes"),
        (json!({"argv": ["touch", "x"], "setup": [""]}), "setup"),
        (json!({"argv": ["touch", "x"], "teardown": ["a\0"]}), "teardown"),
    ] {
        let answer = api.post("/dev-tasks?wait=30s", body.to_string());
        assert_eq!((answer.status(), answer.field().as_str()), (400, field), "{body}: {}", answer.json());
        assert_eq!(answer.header("content-type"), "application/problem+json", "{body}");
    }
    nothing_happened(&supervisor, &api);
}

#[test]
fn a_body_that_is_no_request_is_refused() {
    let (supervisor, api) = api();
    let twice = br#"{"argv":["touch","x"],"argv":["touch","y"]}"#.as_slice();
    let deep = [vec![b'['; 100_000], vec![b']'; 100_000]].concat();
    for body in [
        b"".as_slice(),
        b"null",
        b"[]",
        b"{",
        b"\"x\"",
        b"{} {}",
        b"\xff\xfe",
        b"{\"argv\":[\"touch\",\"\xff\"]}",
        twice,
        &deep,
    ] {
        let answer = api.post("/dev-tasks", body);
        assert_eq!(answer.status(), 400, "{}", String::from_utf8_lossy(&body[..body.len().min(80)]));
        assert_eq!(answer.header("content-type"), "application/problem+json");
    }
    let large = json!({"argv": ["true", "x".repeat(2 * 1024 * 1024)]}).to_string();
    let answer = api.post("/dev-tasks", large);
    assert_eq!((answer.status(), answer.header("content-type")), (413, "application/problem+json"));
    nothing_happened(&supervisor, &api);
}

#[test]
fn every_wrong_parameter_is_named() {
    let (supervisor, api) = api();
    let create = r#"{"argv":["touch","x"]}"#;
    for (method, path, field) in [
        ("POST", "/dev-tasks?wait=soon", "wait"),
        ("POST", "/dev-tasks?wait=-1s", "wait"),
        ("POST", "/dev-tasks?wait=2h", "wait"),
        ("POST", "/dev-tasks?wait=1s&wait=1s", "wait"),
        ("POST", "/dev-tasks?wiat=1s", "wiat"),
        ("GET", "/dev-tasks?limit=0", "limit"),
        ("GET", "/dev-tasks?limit=1001", "limit"),
        ("GET", "/dev-tasks?limit=x", "limit"),
        ("GET", "/dev-tasks?state=done", "state"),
        ("GET", "/dev-tasks?label=x", "label"),
        ("GET", "/dev-tasks?nonsense", "nonsense"),
    ] {
        let answer = api.call(method, path, &[], if method == "POST" { create.as_bytes() } else { b"" });
        assert_eq!((answer.status(), answer.field().as_str()), (400, field), "{method} {path}");
    }
    for key in ["", &"k".repeat(257)] {
        let answer = api.call("POST", "/dev-tasks", &[("Idempotency-Key", key)], create.as_bytes());
        assert_eq!((answer.status(), answer.field().as_str()), (400, "Idempotency-Key"));
    }
    for query in ["%", "%zz", "%ff"] {
        assert_eq!(api.get(&format!("/dev-tasks?after={query}")).status(), 400, "{query}");
    }
    nothing_happened(&supervisor, &api);
}

#[test]
fn every_wrong_call_on_a_task_is_refused() {
    let (_supervisor, api) = api();
    let task = api.run(json!({"task_id": "t", "script": "echo out; read line"}));
    for (method, path, body, status, field) in [
        ("GET", "/dev-tasks/t/logs?cursor=5", "", 400, "cursor"),
        ("GET", "/dev-tasks/t/logs?cursor=-1", "", 400, "cursor"),
        ("GET", "/dev-tasks/t/logs?cursor=99999999999999999999999", "", 400, "cursor"),
        ("GET", "/dev-tasks/t/logs?stream=stdin", "", 400, "stream"),
        ("GET", "/dev-tasks/t/logs?limit=x", "", 400, "limit"),
        ("GET", "/dev-tasks/t/logs?follow=maybe", "", 400, "follow"),
        ("GET", "/dev-tasks/t/logs?nonsense=1", "", 400, "nonsense"),
        ("GET", "/dev-tasks/t?wait=x", "", 400, "wait"),
        ("POST", "/dev-tasks/t/signal", "{\"signal\":0}", 400, "signal"),
        ("POST", "/dev-tasks/t/signal", "{\"signal\":65}", 400, "signal"),
        ("POST", "/dev-tasks/t/signal", "{\"signal\":\"TERM\"}", 400, "signal"),
        ("POST", "/dev-tasks/t/signal", "{\"signal\":9,\"pid\":1}", 400, "pid"),
        ("POST", "/dev-tasks/t/signal", "", 400, ""),
        ("POST", "/dev-tasks/t/signal?signal=9", "{\"signal\":9}", 400, "signal"),
        ("POST", "/dev-tasks/t/cancel?x=1", "", 400, "x"),
        ("POST", "/dev-tasks/t/stdin?x=1", "", 400, "x"),
        ("POST", "/dev-tasks/t/stdin/close?x=1", "", 400, "x"),
        ("DELETE", "/dev-tasks/t?force=true", "", 400, "force"),
        ("GET", "/dev-tasks/%ff", "", 400, "id"),
        ("GET", "/dev-tasks/other", "", 404, ""),
        ("GET", "/dev-tasks/other/logs", "", 404, ""),
        ("POST", "/dev-tasks/other/cancel", "", 404, ""),
        ("POST", "/dev-tasks/other/signal", "{\"signal\":9}", 404, ""),
        ("POST", "/dev-tasks/other/stdin", "x", 404, ""),
        ("POST", "/dev-tasks/other/stdin/close", "", 404, ""),
        ("DELETE", "/dev-tasks/other", "", 404, ""),
        ("GET", "/dev-tasks/..%2f..%2fetc%2fpasswd", "", 404, ""),
        ("PUT", "/dev-tasks", "", 405, ""),
        ("POST", "/dev-tasks/t", "", 405, ""),
        ("GET", "/dev-tasks/t/cancel", "", 405, ""),
        ("GET", "/dev-tasks/t/nowhere/at/all", "", 404, ""),
    ] {
        let answer = api.call(method, path, &[], body.as_bytes());
        assert_eq!((answer.status(), answer.field().as_str()), (status, field), "{method} {path}: {}", answer.json());
        assert_eq!(answer.header("content-type"), "application/problem+json", "{method} {path}");
        assert_eq!(answer.json()["status"], status, "{method} {path}");
    }
    assert_eq!(api.list(""), [task], "it is as it was");
    let large = vec![b'x'; 2 * 1024 * 1024];
    for path in ["/dev-tasks/t/stdin", "/dev-tasks/t/signal"] {
        let answer = api.call("POST", path, &[], &large);
        assert_eq!((answer.status(), answer.header("content-type")), (413, "application/problem+json"), "{path}");
    }
}

#[test]
fn what_only_the_launch_can_find_out_fails_the_task_with_its_reason() {
    let (_supervisor, api) = api();
    for (create, word) in [
        (json!({"argv": ["/no/such/program"]}), "/no/such/program"),
        (json!({"argv": ["/etc"]}), "/etc"),
        (json!({"argv": ["true"], "cwd": "/no/such/directory"}), "/no/such/directory"),
        (json!({"argv": ["true", "x".repeat(200_000)]}), "128 KiB"),
    ] {
        let task = api.run(create);
        assert_eq!(task["state"], "failed", "{task}");
        assert!(task["reason"].as_str().is_some_and(|r| r.contains(word)), "{word}: {task}");
        assert!(task["started_at"].is_null(), "{task}");
    }
}
