//! A supervisor that is killed: every task is answered for once and truthfully by the next one.

use std::collections::BTreeMap;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tests::processes;
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

fn by_id(tasks: Vec<Value>) -> BTreeMap<String, Value> {
    tasks.into_iter().map(|t| (t["task_id"].as_str().unwrap_or_default().to_string(), t)).collect()
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

/// Clients create tasks until the supervisor is killed; the ids that they were told.
fn load(api: &Api, round: usize) -> Vec<String> {
    let client = |client: usize| {
        let mut told = Vec::new();
        for number in 0.. {
            let id = format!("r{round}-{client}-{number:04}");
            let script = format!("echo {id} >> ran-{id}; echo {id}");
            let body = json!({"task_id": id, "script": script}).to_string();
            match api.try_call("POST", "/dev-tasks", &[], body.as_bytes()) {
                Ok(answer) if answer.status() == 201 => told.push(id),
                Ok(answer) if answer.status() == 429 => std::thread::sleep(std::time::Duration::from_millis(5)),
                _ => break,
            }
        }
        told
    };
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4).map(|n| scope.spawn(move || client(n))).collect();
        clients.into_iter().flat_map(|c| c.join().expect("a client")).collect()
    })
}

#[test]
fn kills_under_load_lose_no_task_invent_none_and_run_none_twice() {
    let home = Home::new();
    let mut told: Vec<String> = Vec::new();
    for round in 0..4 {
        let supervisor = home.supervisor().set("task-grace", "100ms").set("task-keep-count", "100000").start();
        let api = Api::of(&supervisor);
        let clients = std::thread::spawn(move || load(&api, round));
        wait_until("some to end", || Api::of(&supervisor).list("state=succeeded").len() >= 20 * (round + 1));
        kill(supervisor);
        told.extend(clients.join().expect("the clients"));
    }
    let last = home.supervisor().set("task-keep-count", "100000").start();
    let api = Api::of(&last);
    wait_until("the queue to be empty", || {
        ["queued", "starting", "running"].iter().all(|state| api.list(&format!("state={state}")).is_empty())
    });
    let tasks = by_id(api.list("limit=1000"));
    for id in &told {
        let task = tasks.get(id).unwrap_or_else(|| panic!("{id} was acknowledged and is gone"));
        let line = format!("{id}\n");
        let ran = std::fs::read_to_string(home.path(&format!("workspace/ran-{id}"))).unwrap_or_default();
        let wrote = String::from_utf8_lossy(&api.output(id, "stdout")).into_owned();
        match task["state"].as_str() {
            Some("succeeded") => assert_eq!((&ran, &wrote), (&line, &line), "{task}"),
            Some("lost") => {
                assert!(ran.is_empty() || ran == line, "{id} ran {} times", ran.lines().count());
                assert!(wrote.is_empty() || wrote == line, "{id}: {wrote:?}");
                assert_eq!(task["output"]["stdout_bytes"], wrote.len(), "{task}");
            }
            _ => panic!("{task}"),
        }
    }
    // What was accepted and not acknowledged, because the kill came between, is at most one a client and kill.
    let unknown: Vec<_> = tasks.keys().filter(|id| !told.contains(id)).collect();
    assert!(unknown.len() <= 16 && unknown.iter().all(|id| id.starts_with('r')), "{unknown:?}");
    println!("goal=0 measured=0 of {} acknowledged tasks lost or run twice by 4 kills", told.len());
}
