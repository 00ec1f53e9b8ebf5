//! The journal as an operator's disk may leave it: torn, damaged, from the first version, out of reach.

use std::io::Write;
use std::path::PathBuf;

use serde_json::json;
use tempfile::TempDir;
use tests::binaries;
use tests::strace::supervisor_without_memory;
use tests::supervisor::Builder;
use tests::tasks::Api;
use tests::wait::wait_until;

use super::supervisor;

/// State and workspace that outlive a supervisor.
pub(crate) struct Home {
    directory: TempDir,
}

impl Home {
    pub(crate) fn new() -> Home {
        let home = Home { directory: binaries::scratch() };
        for name in ["state", "workspace"] {
            std::fs::create_dir(home.path(name)).expect("our own directory");
        }
        home
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn supervisor(&self) -> Builder {
        supervisor().set("state-dir", self.path("state")).set("workspace", self.path("workspace"))
    }
}

#[test]
fn torn_and_damaged_lines_are_left_out_counted_and_keep_nobody_from_starting() {
    let home = Home::new();
    let mut first = home.supervisor().start();
    let api = Api::of(&first);
    for id in ["a", "b", "c"] {
        api.run(json!({"task_id": id, "script": format!("echo {id}")}));
    }
    first.signal(nix::sys::signal::Signal::SIGTERM);
    first.wait_exit();
    let path = home.path("state/tasks/journal");
    // One line a task: the next supervisor keeps nothing else.
    home.supervisor().start().wait_ready();
    let mut lines: Vec<Vec<u8>> =
        std::fs::read(&path).expect("it is there").split_inclusive(|b| *b == b'\n').map(<[u8]>::to_vec).collect();
    assert_eq!(lines.len(), 3);
    lines[1][40] ^= 1;
    let torn = &lines[2][..lines[2].len() / 2];
    std::fs::write(&path, [&lines[0], &lines[1], b"garbage\n".as_slice(), torn].concat()).expect("our own file");

    let second = home.supervisor().start();
    let api = Api::of(&second);
    let left: Vec<_> = api.list("").iter().map(|t| t["task_id"].clone()).collect();
    assert_eq!(left, ["a"]);
    assert_eq!(second.metric("supervisor_journal_damaged_total"), Some(3.0), "{}", second.get("/metrics").body);
    assert_eq!(api.run(json!({"task_id": "c", "script": "echo again"}))["state"], "succeeded");
    assert_eq!(api.output("a", "stdout"), b"a\n");
}

#[test]
fn the_journal_of_the_first_version_is_told_truthfully() {
    let home = Home::new();
    std::fs::create_dir(home.path("state/tasks")).expect("our own directory");
    let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/../supervisor/src/tasks/journal/v1.journal");
    std::fs::copy(fixture, home.path("state/tasks/journal")).expect("the fixture");
    // The fixture grows older every day, and is to be told for ever. So long an age begins before 1970.
    let supervisor = home.supervisor().set("task-keep-age", "800000h").start();
    let api = Api::of(&supervisor);
    assert_eq!(api.task("t-1")["state"], "succeeded");
    assert_eq!(api.task("t-1")["labels"], json!({"suite": "unit"}));
    let lost = api.task("t-2");
    assert_eq!((&lost["state"], &lost["exit_code"]), (&json!("lost"), &json!(null)));
    assert!(!api.wait_end("t-3")["finished_at"].is_null(), "what waited is run");
}

#[test]
fn a_journal_that_cannot_be_opened_is_a_mistake_of_the_configuration() {
    let home = Home::new();
    std::fs::File::create(home.path("state/tasks")).and_then(|mut f| f.write_all(b"x")).expect("our own directory");
    let mut supervisor = home.supervisor().start();
    assert_eq!(supervisor.wait_code(), 78);
    assert!(
        supervisor.termination()["reason"].as_str().is_some_and(|r| r.contains("journal")),
        "{}",
        supervisor.termination()
    );
}

#[test]
fn a_full_disk_refuses_new_tasks_and_says_so() {
    use tests::stage::{Pids, Profile, available};
    if !available(Pids::First, Profile::Plain) {
        return;
    }
    let supervisor = supervisor().first().tmpfs("state", 256).start();
    let api = Api::of(&supervisor);
    let labels: serde_json::Map<_, _> = (0..32).map(|n| (n.to_string(), json!("x".repeat(250)))).collect();
    let create = json!({"argv": ["true"], "labels": labels});
    let answer = (0..200).map(|_| api.post("/dev-tasks?wait=30s", create.to_string())).find(|a| a.status() != 201);
    let answer = answer.expect("256 KiB are full after so many");
    assert_eq!((answer.status(), answer.header("content-type")), (507, "application/problem+json"));
    assert!(answer.json()["detail"].as_str().is_some_and(|d| d.contains("No space left")), "{}", answer.json());
    assert_eq!(supervisor.get("/livez").status, 200);
    let known = api.list("");
    assert!(known.iter().all(|task| task["finished_at"].is_string()), "every accepted one has ended");
}

/// Found by `torture disk`: a task whose end the disk had refused to record was told as lost by the next supervisor, beside its end.
#[test]
fn an_end_that_the_disk_refused_to_record_is_recorded_as_soon_as_it_takes_it() {
    use tests::torture::forgetful::{Call, Damage, Fault, Forgetful, Refusal};
    let Some(disk) = Forgetful::mount() else { return };
    let state = disk.path().join("state");
    let start = || supervisor().set("state-dir", &state).start();
    let mut first = start();
    let api = Api::of(&first);
    let id = api.start(json!({"task_id": "t", "script": "read line", "stdin_open": true}));
    api.wait_state(&id, "running");
    disk.expect(Fault { call: Call::Write, number: 0, times: 1, damage: Damage::Refused(Refusal::Enospc) });
    assert_eq!(api.call("POST", "/dev-tasks/t/stdin", &[], b"end\n").status(), 204);
    assert_eq!(api.wait_end(&id)["state"], "succeeded");
    first.wait_log("a task's state could not be recorded");
    let journal = state.join("tasks/journal");
    wait_until("it is recorded", || {
        std::fs::read_to_string(&journal).is_ok_and(|text| text.contains("\"state\":\"succeeded\""))
    });
    first.signal(nix::sys::signal::Signal::SIGKILL);
    first.wait_exit();
    assert_eq!(Api::of(&start()).task(&id)["state"], "succeeded");
}

/// Found by reading: its line stayed in the journal, and the next supervisor ran it.
#[test]
fn a_task_that_is_refused_because_its_record_cannot_be_synced_never_runs() {
    use tests::torture::forgetful::{Call, Damage, Fault, Forgetful, Refusal};
    let Some(disk) = Forgetful::mount() else { return };
    let state = disk.path().join("state");
    let start = || supervisor().set("state-dir", &state).set("task-sync", "always").start();
    let mut first = start();
    let api = Api::of(&first);
    assert!(api.list("").is_empty(), "once it answers, the journal is open");
    disk.expect(Fault { call: Call::Sync, number: 0, times: 1, damage: Damage::Refused(Refusal::Eio) });
    let refused = api.post("/dev-tasks", json!({"task_id": "t", "argv": ["true"]}).to_string());
    assert_eq!(refused.status(), 507, "{}", refused.json());
    assert_eq!(api.call("GET", "/dev-tasks/t", &[], b"").status(), 404);
    first.signal(nix::sys::signal::Signal::SIGKILL);
    first.wait_exit();
    let second = start();
    assert_eq!(Api::of(&second).call("GET", "/dev-tasks/t", &[], b"").status(), 404);
}

/// Found by reading: the file was synced once more with the next record, by which the kernel may have let go of what it had refused.
#[test]
fn a_record_outlives_a_loss_of_power_though_a_sync_of_it_was_refused() {
    use tests::torture::chance::Chance;
    use tests::torture::forgetful::{Call, Damage, Fault, Forgetful, Refusal};
    let Some(disk) = Forgetful::mount() else { return };
    let state = disk.path().join("state");
    let start = || supervisor().set("state-dir", &state).start();
    let mut first = start();
    let api = Api::of(&first);
    assert!(api.list("").is_empty(), "once it answers, the journal is open");
    disk.expect(Fault { call: Call::Sync, number: 0, times: 1, damage: Damage::Refused(Refusal::Eio) });
    api.start(json!({"task_id": "t", "argv": ["sleep", "1000"]}));
    first.wait_log("the disk syncs the task journal again");
    first.signal(nix::sys::signal::Signal::SIGKILL);
    first.wait_exit();
    disk.cut(&mut Chance::seeded(1));
    assert_eq!(Api::of(&start()).task("t")["state"], "lost");
}

/// Found by `torture power`, once its tasks wrote something: it was told as if the task had never written it.
#[test]
fn output_that_a_loss_of_power_took_was_written_and_is_cut() {
    let home = Home::new();
    let mut first = home.supervisor().start();
    let task = Api::of(&first).run(json!({"task_id": "t", "script": "echo abc; echo d >&2"}));
    assert_eq!(task["output"], json!({"stdout_bytes": 4, "stderr_bytes": 2, "cut_bytes": 0}));
    first.signal(nix::sys::signal::Signal::SIGKILL);
    first.wait_exit();
    let log = PathBuf::from(task["runtime"]["log_root"].as_str().expect("a path"));
    let file = std::fs::OpenOptions::new().write(true).open(log.join("stdout.0")).expect("it wrote something");
    file.set_len(1).expect("our own file");
    std::fs::remove_file(log.join("stderr.0")).expect("our own file");
    let second = home.supervisor().start();
    let api = Api::of(&second);
    assert_eq!(api.task("t")["output"], json!({"stdout_bytes": 4, "stderr_bytes": 2, "cut_bytes": 5}));
    assert_eq!((api.output("t", "stdout"), api.output("t", "stderr")), (b"a".to_vec(), Vec::new()));
}

/// Found by reading: it was told as if the task had written nothing.
#[test]
fn output_that_cannot_be_seen_for_want_of_memory_is_asked_for_at_the_next_start() {
    let home = Home::new();
    let mut first = home.supervisor().start();
    let task = Api::of(&first).run(json!({"task_id": "t", "script": "echo abc"}));
    first.signal(nix::sys::signal::Signal::SIGTERM);
    first.wait_exit();
    let log = task["runtime"]["log_root"].as_str().expect("a path");
    let Some(program) = supervisor_without_memory(home.directory.path(), "openat", log) else { return };
    let mut second = home.supervisor().program(program).start();
    assert_eq!(second.wait_code(), 75);
    second.stderr.to_end();
    assert!(second.stderr.text().contains("cannot be seen"), "{}", second.stderr.text());
    assert_eq!(Api::of(&home.supervisor().start()).output("t", "stdout"), b"abc\n");
}
