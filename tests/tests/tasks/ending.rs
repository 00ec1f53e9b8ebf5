//! Cancel, time-out and stop end the whole tree, before the end is told; output stays.

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde_json::json;
use tests::processes;
use tests::stage::{Pids, Profile, available};
use tests::supervisor::{Builder, Supervisor};
use tests::tasks::Api;

use super::{api, supervisor};

/// TERM is ignored by all, one child leads a session of its own and one is an orphan.
const STUBBORN: &str =
    "trap '' TERM; setsid sleep 1234 & (setsid sleep 1235 &) ; sleep 1236 & echo up; wait; sleep 1237";

/// The processes of all tasks: everything below the supervisor but the shims, which end after they told the end.
fn tree(supervisor: &Supervisor) -> Vec<Pid> {
    let below = processes::trees(supervisor.pid());
    below.into_iter().filter(|&p| processes::alive(p) && processes::name(p) != "shim").collect()
}

#[track_caller]
fn nobody(tree: &[Pid]) {
    let left: Vec<_> = tree.iter().filter(|&&p| processes::alive(p)).map(|&p| processes::name(p)).collect();
    assert!(left.is_empty(), "{left:?} live on");
}

fn cancel_leaves_nobody(builder: Builder) {
    let supervisor = builder.token().set("task-grace", "200ms").start();
    let api = Api::of(&supervisor);
    let id = api.start(json!({"script": STUBBORN}));
    api.wait_output(&id, "up");
    let sleeping = || tree(&supervisor).into_iter().filter(|&p| processes::name(p) == "sleep").count();
    tests::wait::wait_until("three children", || sleeping() == 3);
    let before = tree(&supervisor);
    let task = api.post(&format!("/dev-tasks/{id}/cancel?wait=60s"), "").json();
    nobody(&before);
    assert_eq!((&task["state"], &task["signal"]), (&json!("cancelled"), &json!(9)));
    assert_eq!(api.output(&id, "stdout"), b"up\n");
}

#[test]
fn when_a_cancel_answers_nobody_of_the_tree_is_left() {
    cancel_leaves_nobody(Supervisor::new());
}

#[test]
fn when_a_cancel_answers_nobody_of_the_tree_is_left_as_pid_1() {
    if available(Pids::First, Profile::Plain) {
        cancel_leaves_nobody(Supervisor::new().first());
    }
}

#[test]
fn when_a_cancel_answers_nobody_of_the_tree_is_left_without_any_capability() {
    if available(Pids::First, Profile::Restricted) {
        cancel_leaves_nobody(Supervisor::new().first().profile(Profile::Restricted));
    }
}

#[test]
fn when_a_cancel_answers_nobody_of_another_uids_tree_is_left() {
    if available(Pids::First, Profile::Baseline) {
        cancel_leaves_nobody(Supervisor::new().first().profile(Profile::Baseline));
    }
}

#[test]
fn a_queued_task_is_cancelled_without_having_run() {
    let supervisor = supervisor().set("task-concurrency", "1").start();
    let api = Api::of(&supervisor);
    let first = api.start(json!({"script": "read line", "stdin_open": true}));
    api.wait_state(&first, "running");
    let second = api.start(json!({"script": "touch ran"}));
    assert_eq!(api.post(&format!("/dev-tasks/{second}/signal"), r#"{"signal":15}"#).status(), 409);
    let task = api.post(&format!("/dev-tasks/{second}/cancel"), "").json();
    assert_eq!((&task["state"], &task["started_at"]), (&json!("cancelled"), &json!(null)));
    api.post(&format!("/dev-tasks/{first}/stdin/close"), "");
    let after = api.run(json!({"script": "ls"}));
    assert_eq!(api.output(after["task_id"].as_str().expect("an id"), "stdout"), b"");
}

#[test]
fn a_cancel_of_an_ended_task_changes_nothing() {
    let (_supervisor, api) = api();
    let task = api.run(json!({"argv": ["true"]}));
    let id = task["task_id"].as_str().expect("an id");
    let answer = api.post(&format!("/dev-tasks/{id}/cancel?wait=1s"), "");
    assert_eq!((answer.status(), answer.json()), (200, task));
}

/// 002-16.
#[test]
fn a_task_that_is_cancelled_in_its_setup_never_runs_its_program_but_its_teardown() {
    let (_supervisor, api) = api();
    let polite = "trap 'exit 0' TERM; echo setup; while :; do sleep 0.05; done";
    let id = api.start(json!({"setup": ["sh", "-c", polite], "script": "echo ran", "teardown": ["echo", "after"]}));
    api.wait_output(&id, "setup");
    let task = api.post(&format!("/dev-tasks/{id}/cancel?wait=60s"), "").json();
    assert_eq!((&task["state"], &task["started_at"]), (&json!("cancelled"), &json!(null)), "{task}");
    assert_eq!(api.output(&id, "stdout"), b"setup\nafter\n");
}

#[test]
fn a_timeout_ends_the_tree_and_keeps_the_output() {
    let supervisor = supervisor().set("task-grace", "100ms").start();
    let api = Api::of(&supervisor);
    let task = api.run(json!({"script": format!("echo before; {STUBBORN}"), "timeout": "300ms"}));
    assert_eq!(tree(&supervisor), [], "nobody is left");
    assert_eq!((&task["state"], &task["signal"]), (&json!("timed_out"), &json!(9)));
    assert_eq!(api.output(task["task_id"].as_str().expect("an id"), "stdout"), b"before\nup\n");
    let task = api.run(json!({"setup": ["sleep", "1000"], "argv": ["touch", "ran"], "timeout": "100ms"}));
    assert_eq!((&task["state"], &task["started_at"]), (&json!("timed_out"), &json!(null)), "the clock runs over setup");
}

#[test]
fn a_child_that_keeps_the_output_open_does_not_hold_the_answer_back() {
    let (supervisor, api) = api();
    let task = api.run(json!({"script": "trap '' TERM; (setsid sleep 1234 &); echo done"}));
    assert_eq!(tree(&supervisor), [], "and it is ended too");
    assert_eq!((&task["state"], &task["exit_code"]), (&json!("succeeded"), &json!(0)));
    assert_eq!(api.output(task["task_id"].as_str().expect("an id"), "stdout"), b"done\n");
}

#[test]
fn a_stop_ends_the_tasks_within_the_grace_and_queued_ones_are_left_for_the_next_supervisor() {
    let mut supervisor =
        supervisor().set("grace", "500ms").set("task-grace", "1h").set("task-concurrency", "1").start();
    let api = Api::of(&supervisor);
    let id = api.start(json!({"script": STUBBORN}));
    api.wait_output(&id, "up");
    api.start(json!({"argv": ["true"]}));
    let before = tree(&supervisor);
    supervisor.signal(Signal::SIGTERM);
    assert_eq!(supervisor.wait_code(), 0);
    nobody(&before);
    let journal = std::fs::read_to_string(supervisor.paths().state.join("tasks/journal")).expect("it is there");
    let last = journal.lines().rfind(|line| line.contains(&id)).expect("its record");
    assert!(last.contains(r#""state":"cancelled""#) && last.contains("the supervisor stopped"), "{last}");
    assert!(journal.lines().last().is_some_and(|line| !line.contains(r#""state":"running""#)));
}

#[test]
fn while_it_stops_no_task_is_taken_and_the_rest_is_answered() {
    let mut supervisor = supervisor().set("grace", "1h").set("task-grace", "1h").start();
    let api = Api::of(&supervisor);
    let id = api.start(json!({"script": "trap 'echo told' TERM; echo up; while :; do sleep 0.05; done"}));
    api.wait_output(&id, "up");
    supervisor.signal(Signal::SIGTERM);
    api.wait_output(&id, "told");
    assert_eq!(api.post("/dev-tasks", r#"{"argv":["true"]}"#).status(), 503);
    assert_eq!(api.task(&id)["state"], "running");
    supervisor.signal(Signal::SIGTERM);
    supervisor.wait_exit();
}

#[test]
fn the_agents_end_ends_the_tasks() {
    let mut supervisor = supervisor().shell("read line; exit 6").stdin(std::process::Stdio::piped()).start();
    let api = Api::of(&supervisor);
    let id = api.start(json!({"script": STUBBORN}));
    api.wait_output(&id, "up");
    let before = tree(&supervisor);
    drop(supervisor.stdin());
    assert_eq!(supervisor.wait_code(), 6);
    nobody(&before);
}
