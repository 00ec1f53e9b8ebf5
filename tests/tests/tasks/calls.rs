//! Create, wait, show, list, repeat, delete.

use serde_json::json;

use super::api;

#[test]
fn a_create_that_waits_answers_with_the_result() {
    let (_supervisor, api) = api();
    let answer = api.post("/dev-tasks?wait=30s", r#"{"argv":["true"],"execution_class":"local"}"#);
    assert_eq!(answer.status(), 201);
    let task = answer.json();
    let id = task["task_id"].as_str().expect("an id");
    assert_eq!(answer.header("location"), format!("/dev-tasks/{id}"));
    assert_eq!((&task["state"], &task["exit_code"]), (&json!("succeeded"), &json!(0)));
    assert!(task["signal"].is_null() && task["reason"].is_null(), "{task}");
    for time in ["created_at", "started_at", "finished_at"] {
        assert!(task[time].as_str().is_some_and(|t| t.ends_with('Z')), "{time}: {task}");
    }
    let runtime = &task["runtime"];
    assert_eq!(runtime["execution_class"], "local");
    for name in ["backend_run_id", "artifact_root", "log_root"] {
        assert!(runtime[name].as_str().is_some_and(|v| !v.is_empty()), "{name}: {task}");
    }
    assert_eq!(task["output"], json!({"stdout_bytes": 0, "stderr_bytes": 0, "cut_bytes": 0}));
    assert!(task["usage"]["max_rss_kib"].as_u64() > Some(0), "{task}");
    assert_eq!(api.task(id), task, "and so does a look at it");
}

#[test]
fn a_task_ends_as_its_program_does() {
    let (_supervisor, api) = api();
    for (script, state, exit_code, signal) in [
        ("exit 0", "succeeded", json!(0), json!(null)),
        ("exit 7", "failed", json!(7), json!(null)),
        ("kill -SEGV $$", "failed", json!(null), json!(11)),
    ] {
        let task = api.run(json!({"script": script}));
        assert_eq!(
            (&task["state"], &task["exit_code"], &task["signal"]),
            (&json!(state), &exit_code, &signal),
            "{script}"
        );
    }
    let task = api.run(json!({"argv": ["no-such-program"]}));
    assert_eq!(task["state"], "failed");
    assert!(task["reason"].as_str().is_some_and(|r| r.contains("no-such-program")), "{task}");
    assert!(task["started_at"].is_null() && task["exit_code"].is_null(), "{task}");
}

#[test]
fn a_create_that_does_not_wait_answers_at_once_and_a_look_can_wait() {
    let (_supervisor, api) = api();
    let id = api.start(json!({"script": "read line; exit 3", "stdin_open": true}));
    assert_eq!(api.get(&format!("/dev-tasks/{id}?wait=10ms")).json()["finished_at"], json!(null));
    api.wait_state(&id, "running");
    assert_eq!(api.post(&format!("/dev-tasks/{id}/stdin"), "go\n").status(), 204);
    assert_eq!(api.wait_end(&id)["exit_code"], 3);
}

/// 002-3.
#[test]
fn a_task_gets_its_directory_environment_and_labels() {
    let (supervisor, api) = api();
    let workspace = supervisor.paths().workspace.display().to_string();
    assert_eq!(api.shell("pwd"), format!("{workspace}\n"));
    let create = json!({
        "argv": ["sh", "-c", "pwd; echo \"$GREETING $TASK_ID\"; echo \"${SUPERVISOR_API_TOKEN_FILE-none}\"; env"],
        "cwd": "/", "env": {"GREETING": "hello, you"}, "task_id": "named", "labels": {"suite": "unit"}});
    let task = api.run(create);
    assert_eq!((&task["task_id"], &task["labels"]), (&json!("named"), &json!({"suite": "unit"})));
    let output = String::from_utf8(api.output("named", "stdout")).expect("text");
    assert!(output.starts_with("/\nhello, you named\nnone\n"), "{output}");
    assert!(!output.contains("SUPERVISOR_"), "{output}");
}

/// 002-2.
#[test]
fn setup_and_teardown_run_around_the_program_and_their_failures_are_told() {
    let (_supervisor, api) = api();
    let echo = |word: &str| json!(["sh", "-c", format!("echo {word}")]);
    let task = api.run(json!({"setup": echo("before"), "argv": echo("now"), "teardown": echo("after")}));
    assert_eq!(task["state"], "succeeded");
    assert_eq!(api.output(task["task_id"].as_str().expect("an id"), "stdout"), b"before\nnow\nafter\n");

    let task = api.run(json!({"setup": ["sh", "-c", "exit 3"], "argv": echo("now"), "teardown": echo("after")}));
    assert_eq!((&task["state"], &task["exit_code"]), (&json!("failed"), &json!(null)));
    assert_eq!(task["reason"], "setup failed with exit code 3");
    assert_eq!(api.output(task["task_id"].as_str().expect("an id"), "stdout"), b"after\n");

    let task = api.run(json!({"argv": ["sh", "-c", "exit 4"], "teardown": ["false"]}));
    assert_eq!((&task["state"], &task["exit_code"]), (&json!("failed"), &json!(4)));
    let task = api.run(json!({"argv": ["true"], "teardown": ["false"]}));
    assert_eq!((&task["state"], &task["reason"]), (&json!("succeeded"), &json!("teardown failed")));
}

#[test]
fn a_list_is_paged_in_order_and_filtered_by_state_and_label() {
    let (_supervisor, api) = api();
    for number in 0..7 {
        let exit = if number == 3 { "exit 1" } else { "exit 0" };
        let parity = if number % 2 == 0 { "even" } else { "odd" };
        api.run(json!({"task_id": format!("n-{number}"), "script": exit, "labels": {"parity": parity}}));
    }
    let ids = |query: &str| -> Vec<String> {
        api.list(query).iter().map(|t| t["task_id"].as_str().unwrap_or_default().to_string()).collect()
    };
    let all: Vec<String> = (0..7).map(|n| format!("n-{n}")).collect();
    for limit in [1, 2, 3, 7, 100] {
        assert_eq!(ids(&format!("limit={limit}")), all, "{limit} a page");
    }
    assert_eq!(ids("limit=2&label=parity=odd"), ["n-1", "n-3", "n-5"]);
    assert_eq!(ids("limit=1&label=parity%3Deven"), ["n-0", "n-2", "n-4", "n-6"]);
    assert_eq!(ids("state=failed"), ["n-3"]);
    assert_eq!(ids("state=lost"), [] as [&str; 0]);
    assert!(api.get("/dev-tasks?limit=7").json()["next"].is_null(), "nothing follows the last page");
}

#[test]
fn a_repeated_create_is_the_first_task_and_another_body_is_a_conflict() {
    let (_supervisor, api) = api();
    let create =
        |key: &str, body: &str| api.call("POST", "/dev-tasks?wait=30s", &[("Idempotency-Key", key)], body.as_bytes());
    let body = r#"{"script":"echo x >> counted"}"#;
    let first = create("k", body);
    let again = create("k", body);
    assert_eq!((first.status(), again.status()), (201, 200));
    assert_eq!(first.json(), again.json());
    assert_eq!(api.shell("cat counted"), "x\n", "it ran once");
    let other = create("k", r#"{"argv":["true"]}"#);
    assert_eq!((other.status(), other.header("content-type")), (409, "application/problem+json"));
    assert_eq!(create("another", body).status(), 201);

    let named = r#"{"task_id":"mine","argv":["true"]}"#;
    let first = api.post("/dev-tasks?wait=30s", named);
    let again = api.post("/dev-tasks?wait=30s", named);
    assert_eq!((first.status(), again.status()), (201, 200));
    assert_eq!(first.json()["runtime"], again.json()["runtime"]);
    assert_eq!(api.post("/dev-tasks", r#"{"task_id":"mine","argv":["false"]}"#).status(), 409);
}

#[test]
fn many_clients_with_one_key_get_one_task() {
    let (_supervisor, api) = api();
    let body = br#"{"script":"echo x >> counted"}"#;
    let ids: Vec<String> = std::thread::scope(|scope| {
        let one = || api.call("POST", "/dev-tasks?wait=30s", &[("Idempotency-Key", "k")], body);
        let clients: Vec<_> = (0..16).map(|_| scope.spawn(one)).collect();
        let answers = clients.into_iter().map(|c| c.join().expect("an answer"));
        answers.map(|a| a.json()["task_id"].as_str().expect("an id").to_string()).collect()
    });
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert_eq!(api.shell("cat counted"), "x\n");
}

#[test]
fn a_deleted_task_is_gone_with_all_that_it_left() {
    let (supervisor, api) = api();
    let id = api.start(json!({"script": "echo here; read line", "stdin_open": true}));
    api.wait_output(&id, "here");
    assert_eq!(api.call("DELETE", &format!("/dev-tasks/{id}"), &[], b"").status(), 409, "it runs");
    api.post(&format!("/dev-tasks/{id}/stdin/close"), "");
    let folder = supervisor.paths().state.join("tasks").join(&id);
    api.wait_end(&id);
    assert!(folder.join("log").exists());
    assert_eq!(api.call("DELETE", &format!("/dev-tasks/{id}"), &[], b"").status(), 204);
    for path in ["", "/logs", "/logs?follow=true"] {
        assert_eq!(api.get(&format!("/dev-tasks/{id}{path}")).status(), 404, "{path}");
    }
    assert_eq!(api.call("DELETE", &format!("/dev-tasks/{id}"), &[], b"").status(), 404);
    tests::wait::wait_until("its files to go", || !folder.exists());
}
