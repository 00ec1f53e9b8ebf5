//! A client that follows a task whose sandbox was made again without it: what the gateway has of its end counts, and where
//! there is nothing, that is said.

use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use protocol::session::{Class, Data, Entry, FromSupervisor};
use serde_json::json;
use tests::binaries;
use tests::control_plane::{Gateway, USER};
use tests::dialler::Dialler;

fn task(run: &str, state: &str, exit_code: Option<i32>) -> serde_json::Value {
    json!({
        "task_id": "t", "state": state, "exit_code": exit_code, "signal": null, "reason": null, "oom_killed": null,
        "created_at": "2026-11-21T11:18:32Z", "started_at": "2026-11-21T11:18:32Z", "finished_at": null,
        "runtime": {"backend_run_id": run, "execution_class": "local", "artifact_root": "/a", "log_root": "/l"},
        "output": {"stdout_bytes": 3, "stderr_bytes": 0, "cut_bytes": 0},
        "usage": {"user_us": 0, "system_us": 0, "max_rss_kib": 0},
    })
}

fn response(head: &str, kind: &str, body: &str) -> Vec<u8> {
    tests::dialler::response(&format!("{head}\r\nContent-Type: {kind}"), body.as_bytes())
}

/// Knows the task when it is made and read for the first time, and never again.
fn forgetful() -> impl Fn(&str) -> Vec<u8> + Send {
    let read = [AtomicU64::new(0), AtomicU64::new(0)];
    move |request| {
        let lost = || {
            let problem =
                json!({"type": "about:blank", "title": "Not Found", "status": 404, "detail": "there is no such task"});
            response("404 Not Found", "application/problem+json", &problem.to_string())
        };
        if request.starts_with("POST /dev-tasks") {
            return response("201 Created", "application/json", &task("r-2", "running", None).to_string());
        }
        let stream = usize::from(request.contains("stream=stderr"));
        if request.contains("/logs?") && read[stream].fetch_add(1, Ordering::Relaxed) == 0 {
            let event = ["event: output\nid: 3\ndata: YWJj\n\n", ": busy\n\n"][stream];
            return response("200 OK", "text/event-stream", event);
        }
        lost()
    }
}

/// Exit code, output and errors of a client that runs this task in sandbox `a`.
fn run(gateway: &Gateway) -> (Option<i32>, String, String) {
    let token = gateway.directory().join("token");
    std::fs::write(&token, USER).expect("our own directory");
    let output = Command::new(binaries::gateway())
        .args(["task", "run", "--sandbox", "a", "--", "work"])
        .env_clear()
        .env("GATEWAY_URL", format!("http://{}", gateway.address))
        .env("GATEWAY_TOKEN_FILE", token)
        .output()
        .expect("the gateway runs");
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// What came of a task, as the sandbox tells it; stored on return.
fn tell(session: &mut Dialler, seq: i64, task: serde_json::Value) {
    let record = json!({"wall_ms": 1, "boot_ms": 1, "kind": "task.result", "body": task});
    let record = serde_json::value::RawValue::from_string(record.to_string()).expect("JSON");
    session.send(&FromSupervisor::Data(Data { class: Class::Results, records: vec![Entry { seq, record }] }));
    session.until_acknowledged(Class::Results, seq);
}

#[test]
fn a_task_that_its_sandbox_has_forgotten_ended_as_the_gateway_was_told() {
    let gateway = Gateway::start();
    let (mut session, _) = Dialler::begin(&gateway, "a");
    tell(&mut session, 1, task("r-1", "succeeded", Some(0)));
    tell(&mut session, 2, task("r-2", "failed", Some(7)));
    thread::spawn(move || session.serve(&AtomicU64::new(0), forgetful()));
    let (code, output, errors) = run(&gateway);
    assert_eq!((code, output.as_str()), (Some(7), "abc"), "{errors}");
    assert!(errors.contains("stdout is lost from byte 3 on"), "{errors}");
}

#[test]
fn a_task_of_whose_end_nobody_was_told_is_lost_and_said_to_be() {
    let gateway = Gateway::start();
    let (mut session, _) = Dialler::begin(&gateway, "a");
    // Of an earlier run of the same id, which says nothing of this one.
    tell(&mut session, 1, task("r-1", "succeeded", Some(0)));
    thread::spawn(move || session.serve(&AtomicU64::new(0), forgetful()));
    let (code, output, errors) = run(&gateway);
    assert_eq!((code, output.as_str()), (Some(70), "abc"), "{errors}");
    assert!(errors.contains("sandbox a no longer knows task t and has told nothing of its end"), "{errors}");
}
