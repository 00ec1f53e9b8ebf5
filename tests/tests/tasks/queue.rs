//! How many run at once, in which order, and what happens when there are too many.

use serde_json::json;
use tests::tasks::Api;

use super::supervisor;

#[test]
fn no_more_run_than_the_limit_and_one_too_many_is_told_when_to_come_back() {
    let supervisor = supervisor().set("task-concurrency", "2").set("task-queue", "3").start();
    let api = Api::of(&supervisor);
    let script = json!({"script": "echo started >> log; read line", "stdin_open": true});
    let ids: Vec<String> = (0..5).map(|_| api.start(script.clone())).collect();
    api.wait_state(&ids[0], "running");
    api.wait_state(&ids[1], "running");
    assert_eq!(api.list("state=queued").len(), 3);
    let refused = api.post("/dev-tasks", script.to_string());
    assert_eq!(refused.status(), 429);
    assert!(refused.header("retry-after").parse::<u32>().is_ok(), "{:?}", refused.head);
    assert_eq!(api.list("").len(), 5, "the refused one is not there");
    api.post(&format!("/dev-tasks/{}/stdin/close", ids[0]), "");
    api.wait_state(&ids[2], "running");
    assert_eq!(api.list("state=running").len(), 2);
    assert_eq!(api.post("/dev-tasks", script.to_string()).status(), 201, "there is room again");
    let log = std::fs::read_to_string(supervisor.paths().workspace.join("log")).expect("it was written");
    assert!(log.lines().count() <= 3, "{log}");
}

#[test]
fn a_higher_priority_goes_first_and_equals_go_in_the_order_of_their_coming() {
    let supervisor = supervisor().set("task-concurrency", "1").start();
    let api = Api::of(&supervisor);
    let first = api.start(json!({"script": "read line", "stdin_open": true}));
    api.wait_state(&first, "running");
    let mut last = String::new();
    for (name, priority) in [("a", 0), ("b", -100), ("c", 100), ("d", 0), ("e", 100)] {
        let script = format!("echo {name} >> order");
        let id = api.start(json!({"script": script, "priority": priority}));
        last = if name == "b" { id } else { last };
    }
    api.post(&format!("/dev-tasks/{first}/stdin/close"), "");
    assert_eq!(api.wait_end(&last)["state"], "succeeded");
    let order = std::fs::read_to_string(supervisor.paths().workspace.join("order")).expect("it was written");
    assert_eq!(order.split_whitespace().collect::<String>(), "ceadb");
}

#[test]
fn old_tasks_are_forgotten_by_count_with_their_files() {
    let supervisor = supervisor().set("task-keep-count", "3").start();
    let api = Api::of(&supervisor);
    for number in 0..6 {
        api.run(json!({"task_id": format!("n-{number}"), "script": "echo kept"}));
    }
    let ids = || api.list("").iter().map(|t| t["task_id"].as_str().unwrap_or_default().to_string()).collect::<Vec<_>>();
    tests::wait::wait_until("three to be left", || ids() == ["n-3", "n-4", "n-5"]);
    let folder = |number: u32| supervisor.paths().state.join(format!("tasks/n-{number}"));
    tests::wait::wait_until("their files to go", || (0..3).all(|n| !folder(n).exists()));
    assert!((3..6).all(|n| folder(n).exists()));
    assert_eq!(api.get("/dev-tasks/n-0").status(), 404);
}

#[test]
fn old_tasks_are_forgotten_by_the_bytes_of_their_output() {
    let supervisor = supervisor().set("task-keep-bytes", "250KiB").start();
    let api = Api::of(&supervisor);
    for number in 0..4 {
        api.run(json!({"task_id": format!("n-{number}"), "script": "head -c 100000 /dev/zero"}));
    }
    tests::wait::wait_until("two to be left", || api.list("").len() == 2);
    assert_eq!(api.output("n-3", "stdout").len(), 100_000);
}

#[test]
fn old_tasks_are_forgotten_by_age_with_their_files_and_running_ones_are_not() {
    let home = super::journal::Home::new();
    let supervisor = || home.supervisor().set("task-keep-age", "1s").start();
    let first = supervisor();
    let api = Api::of(&first);
    let running = api.start(json!({"argv": ["sleep", "1000"]}));
    api.wait_state(&running, "running");
    let folder = home.path("state/tasks/old");
    let old = json!({"task_id": "old", "script": "echo kept; read line", "stdin_open": true});
    api.start(old);
    api.wait_output("old", "kept");
    assert!(folder.exists());
    api.post("/dev-tasks/old/stdin/close", "");
    tests::wait::wait_until("it is too old", || api.get("/dev-tasks/old").status() == 404);
    tests::wait::wait_until("its files to go", || !folder.exists());
    assert_eq!(api.get("/dev-tasks/old/logs").status(), 404);
    assert_eq!(api.task(&running)["state"], "running", "one that has not ended has no age");
    drop(first);

    let second = supervisor();
    let api = Api::of(&second);
    assert_eq!(api.get("/dev-tasks/old").status(), 404, "the journal does not bring it back");
    assert_eq!(api.run(json!({"task_id": "old", "argv": ["true"]}))["state"], "succeeded", "its id is free");
    assert_eq!(api.output("old", "stdout"), b"", "and nothing of the first is in the second");
}
