use super::*;
use protocol::control::Usage;
use protocol::policy::ExecutionClass;
use protocol::task::{Output, Runtime, State};

fn record(id: &str, state: State) -> Record {
    let task = Task {
        task_id: id.into(),
        state,
        exit_code: None,
        signal: None,
        reason: None,
        oom_killed: None,
        created_at: "2026-11-21T00:00:00.000Z".into(),
        started_at: None,
        finished_at: None,
        labels: BTreeMap::new(),
        terminal: None,
        diff: None,
        apply: None,
        runtime: Runtime {
            backend_run_id: "r".into(),
            execution_class: ExecutionClass::Local,
            artifact_root: "/a".into(),
            log_root: "/l".into(),
            workspace_root: None,
        },
        output: Output::default(),
        usage: Usage::default(),
    };
    Record { v: Record::VERSION, task, create: None, key: None, digest: None, told: None, deleted: false }
}

fn states(path: &Path) -> (Vec<(String, State)>, u64) {
    let (_, loaded) = Journal::open(path).expect("opens");
    let states = loaded.records.into_iter().map(|(id, record)| (id, record.task.state)).collect();
    (states, loaded.damaged)
}

#[test]
fn the_last_record_of_a_task_counts_and_a_deleted_one_is_gone() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("journal");
    let (mut journal, _) = Journal::open(&path).expect("opens");
    for (id, state) in [("a", State::Queued), ("b", State::Queued), ("a", State::Succeeded)] {
        journal.write(&record(id, state)).expect("writes");
    }
    journal.write(&Record { deleted: true, ..record("b", State::Failed) }).expect("writes");
    assert_eq!(states(&path), (vec![("a".into(), State::Succeeded)], 0));
    assert_eq!(states(&path), (vec![("a".into(), State::Succeeded)], 0), "and after rewriting");
}

#[test]
fn a_damaged_byte_loses_its_own_line_only() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("journal");
    let (mut journal, _) = Journal::open(&path).expect("opens");
    for id in ["a", "b", "c"] {
        journal.write(&record(id, State::Succeeded)).expect("writes");
    }
    let good = std::fs::read(&path).expect("bytes");
    let lines: Vec<usize> = good.iter().enumerate().filter(|(_, b)| **b == b'\n').map(|(at, _)| at).collect();
    for at in 0..good.len() {
        let mut bad = good.clone();
        // 0x20 would only change the case of a hex digit, which means the same.
        bad[at] ^= 0x40;
        std::fs::write(&path, &bad).expect("written");
        let (left, damaged) = states(&path);
        // A destroyed newline joins two lines, of which neither is whole then.
        let expected = if lines.contains(&at) && at != good.len() - 1 { 1 } else { 2 };
        assert_eq!((left.len(), damaged), (expected, 1), "byte {at}");
    }
}

#[test]
fn a_torn_last_line_is_left_out_and_does_not_swallow_the_next() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("journal");
    let (mut journal, _) = Journal::open(&path).expect("opens");
    journal.write(&record("a", State::Succeeded)).expect("writes");
    journal.write(&record("b", State::Succeeded)).expect("writes");
    let good = std::fs::read(&path).expect("bytes");
    for length in 0..good.len() {
        std::fs::write(&path, &good[..length]).expect("written");
        let (mut journal, loaded) = Journal::open(&path).expect("opens");
        assert!(loaded.records.len() <= 1, "only whole lines count");
        journal.write(&record("z", State::Failed)).expect("writes");
        assert!(states(&path).0.contains(&("z".into(), State::Failed)), "after {length} bytes");
    }
}

#[test]
fn a_journal_of_the_first_version_loads_for_ever() {
    let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/src/tasks/journal/v1.journal");
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("journal");
    std::fs::copy(fixture, &path).expect("the fixture");
    let (left, damaged) = states(&path);
    assert_eq!(left, [("t-1".into(), State::Succeeded), ("t-2".into(), State::Running), ("t-3".into(), State::Queued)]);
    assert_eq!(damaged, 0);
}

#[test]
fn a_record_behind_a_write_that_a_full_disk_broke_off_is_not_lost_with_it() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("journal");
    let (mut journal, _) = Journal::open(&path).expect("opens");
    journal.write(&record("a", State::Queued)).expect("writes");
    // What a full disk does: a part of the line is there, and the rest is refused.
    File::options().append(true).open(&path).expect("opens").write_all(b"0123abcd {\"v\":").expect("writes");
    let own =
        std::mem::replace(&mut journal.file, File::options().write(true).open("/dev/full").expect("opens").into());
    journal.write(&record("b", State::Queued)).expect_err("it is full");
    journal.file = own;
    journal.write(&record("c", State::Queued)).expect("there is room again");
    drop(journal);
    assert_eq!(states(&path), (vec![("a".into(), State::Queued), ("c".into(), State::Queued)], 1));
}

#[test]
fn a_name_that_could_not_be_synced_is_synced_before_anything_else_counts_as_synced() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (folder, away) = (dir.path().join("tasks"), dir.path().join("away"));
    std::fs::create_dir(&folder).expect("our own directory");
    let (mut journal, _) = Journal::open(&folder.join("journal")).expect("opens");
    assert!(!journal.unnamed.load(Ordering::Relaxed), "opening has synced it");
    journal.unnamed.store(true, Ordering::Relaxed);
    journal.write(&record("a", State::Queued)).expect("writes");
    std::fs::rename(&folder, &away).expect("our own directory");
    journal.syncer().sync().expect_err("there is no folder to sync");
    std::fs::rename(&away, &folder).expect("our own directory");
    journal.syncer().sync().expect("it is there again");
    assert!(!journal.unnamed.load(Ordering::Relaxed));
}
