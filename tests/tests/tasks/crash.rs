//! A supervisor that is killed: every task is answered for once and truthfully by the next one.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;
use tests::bench::kills;
use tests::processes;
use tests::strace::Strace;
use tests::supervisor::Supervisor;
use tests::tasks::Api;
use tests::wait::wait_until;

use super::journal::Home;

/// Kill it, and wait until its trees are gone.
#[track_caller]
fn kill(mut supervisor: Supervisor) {
    let trees = processes::descendants(supervisor.pid());
    supervisor.signal(Signal::SIGKILL);
    supervisor.wait_exit();
    wait_until("the end of the trees", || !trees.iter().any(|&p| processes::alive(p)));
}

#[test]
fn after_a_kill_ended_tasks_are_as_they_were_running_ones_lost_and_queued_ones_run() {
    let home = Home::new();
    let first = home.supervisor().set("task-concurrency", "1").set("task-grace", "200ms").start();
    let api = Api::of(&first);
    let ended = api.run(json!({"task_id": "ended", "script": "echo out; echo err >&2; exit 3", "labels": {"a": "b"}}));
    let escape = "trap '' TERM; setsid sleep 1234 & printf 'so far \\377'; echo >&2; wait; wait";
    api.start(json!({"task_id": "running", "script": escape}));
    wait_until("its output", || {
        api.output("running", "stdout") == b"so far \xff" && api.output("running", "stderr") == b"\n"
    });
    for (id, priority) in [("late", 0), ("soon", 5)] {
        api.start(json!({"task_id": id, "script": format!("echo {id} >> order; echo ran"), "priority": priority}));
    }
    kill(first);

    let second = home.supervisor().set("task-concurrency", "1").start();
    let api = Api::of(&second);
    assert_eq!(api.task("ended"), ended);
    assert_eq!(api.output("ended", "stdout"), b"out\n");
    let lost = api.task("running");
    assert_eq!((&lost["state"], &lost["exit_code"], &lost["signal"]), (&json!("lost"), &json!(null), &json!(null)));
    assert!(lost["reason"].as_str().is_some_and(|r| r.contains("supervisor ended")), "{lost}");
    assert_eq!(lost["output"], json!({"stdout_bytes": 8, "stderr_bytes": 1, "cut_bytes": 0}));
    assert_eq!(api.output("running", "stdout"), b"so far \xff");
    assert!(lost["started_at"].is_string() && lost["finished_at"].is_string(), "{lost}");
    for id in ["late", "soon"] {
        let task = api.wait_end(id);
        assert_eq!(task["state"], "succeeded", "{task}");
        assert_eq!(api.output(id, "stdout"), b"ran\n");
    }
    let order = std::fs::read_to_string(home.path("workspace/order")).expect("they ran");
    assert_eq!(order, "soon\nlate\n", "once each, in the order of the queue");
    drop(second);

    let third = home.supervisor().start();
    let lost_again = Api::of(&third).task("running");
    assert_eq!(lost_again, lost, "what was told stays");
}

#[test]
fn queued_tasks_fail_where_the_operator_chose_so() {
    let home = Home::new();
    let first = home.supervisor().set("task-concurrency", "1").set("task-grace", "100ms").start();
    let api = Api::of(&first);
    api.start(json!({"task_id": "running", "script": "sleep 1000"}));
    api.start(json!({"task_id": "queued", "script": "touch ran"}));
    api.wait_state("running", "running");
    kill(first);
    let second = home.supervisor().set("task-requeue", "false").start();
    let task = Api::of(&second).task("queued");
    assert_eq!((&task["state"], &task["started_at"]), (&json!("failed"), &json!(null)));
    assert!(task["reason"].as_str().is_some_and(|r| r.contains("before this task ran")), "{task}");
    assert!(!home.path("workspace/ran").exists());
}

#[test]
fn a_key_that_came_before_the_kill_still_means_the_same_task() {
    let home = Home::new();
    let body = br#"{"script":"echo x >> counted"}"#;
    let key = [("Idempotency-Key", "k")];
    let first = home.supervisor().start();
    let before = Api::of(&first).call("POST", "/dev-tasks?wait=30s", &key, body).json();
    kill(first);
    let second = home.supervisor().start();
    let api = Api::of(&second);
    let again = api.call("POST", "/dev-tasks?wait=30s", &key, body);
    assert_eq!((again.status(), again.json()), (200, before));
    assert_eq!(api.call("POST", "/dev-tasks", &key, b"{\"argv\":[\"true\"]}").status(), 409);
    assert_eq!(std::fs::read_to_string(home.path("workspace/counted")).expect("it ran"), "x\n");
}

#[test]
fn kills_under_load_lose_no_task_invent_none_and_run_none_twice() {
    let lines = kills::measure(4);
    lines.iter().for_each(tests::bench::Line::print);
    assert!(lines.iter().all(tests::bench::Line::kept));
}

/// Found by `torture calls`: parts of the supervisor panicked, as an agent can have it that uses up `pids.max`, and no task was answered any more.
#[test]
fn a_supervisor_that_gets_no_further_thread_answers_and_goes_on() {
    let (supervisor, api) = super::api();
    api.run(json!({"argv": ["true"]}));
    // At rest: longer than a thread waits for something to do.
    let threads = || std::fs::read_dir(format!("/proc/{}/task", supervisor.pid())).map_or(0, Iterator::count);
    let mut since = (Instant::now(), threads());
    wait_until("it rests", || {
        since = if threads() == since.1 { since } else { (Instant::now(), threads()) };
        since.0.elapsed() > Duration::from_secs(3)
    });
    let refused = ["inject=clone,clone3:error=EAGAIN".to_string()];
    let Some(strace) = Strace::attach_with(supervisor.pid(), "clone,clone3", &refused) else { return };
    for _ in 0..5 {
        let answer = api.post("/dev-tasks?wait=10s", json!({"argv": ["true"]}).to_string());
        assert_eq!((answer.status(), &answer.json()["state"]), (201, &json!("succeeded")), "{}", answer.json());
    }
    drop(strace);
    assert_eq!(api.run(json!({"argv": ["true"]}))["state"], "succeeded");
    assert_eq!(supervisor.metric("supervisor_panics_total").unwrap_or(0.0), 0.0);
}
