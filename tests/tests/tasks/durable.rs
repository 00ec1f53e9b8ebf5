//! When a task's record is on the disk, as the kernel is asked for it.

use std::time::Instant;

use serde_json::json;
use tests::strace::{Line, Strace};
use tests::supervisor::Supervisor;
use tests::tasks::Api;
use tests::wait::wait_for;

use super::supervisor;

/// What counts here.
const CALLS: &str = "fdatasync,fsync,write,writev,sendto,sendmsg";

fn is_journal(line: &Line) -> bool {
    line.text.contains("/tasks/journal>")
}

fn is_sync(line: &Line) -> bool {
    line.text.starts_with("fdatasync(")
}

/// Where the record of this task is written, first.
fn recorded(lines: &[Line], id: &str) -> Option<usize> {
    lines.iter().position(|line| line.text.starts_with("write(") && is_journal(line) && line.text.contains(id))
}

/// Where a sync of the journal begins and where it is done, after `from`.
fn synced(lines: &[Line], from: usize) -> Option<(usize, usize)> {
    let after = |at: usize| lines.iter().enumerate().skip(at);
    let (begun, call) = after(from).find(|(_, line)| is_sync(line) && is_journal(line))?;
    if !call.is_unfinished() {
        return Some((begun, begun));
    }
    let done = |line: &Line| line.thread == call.thread && line.text.starts_with("<... fdatasync resumed>");
    after(begun).find(|(_, line)| done(line)).map(|(done, _)| (begun, done))
}

/// Where the client is answered.
fn answered(lines: &[Line], id: &str) -> Option<usize> {
    lines.iter().position(|line| line.text.contains("HTTP/1.1 201") && line.text.contains(id))
}

/// One that runs keeps the others waiting, so that each of them is one record.
fn busy(sync: &str) -> (Supervisor, Api) {
    let supervisor = supervisor().set("task-concurrency", "1").set("task-sync", sync).start();
    let api = Api::of(&supervisor);
    api.start(json!({"task_id": "first", "argv": ["sleep", "1000"]}));
    api.wait_state("first", "running");
    (supervisor, api)
}

#[test]
fn with_sync_always_the_record_is_on_the_disk_before_the_answer_is_sent() {
    let (supervisor, api) = busy("always");
    let Some(strace) = Strace::attach(supervisor.pid(), CALLS) else { return };
    for id in ["one", "two", "three"] {
        api.start(json!({"task_id": id, "argv": ["true"]}));
        let lines = wait_for("the answer is seen", || {
            let lines = strace.lines();
            answered(&lines, id).is_some().then_some(lines)
        });
        let record = recorded(&lines, id).expect("it is written down");
        let (_, done) = synced(&lines, record).unwrap_or_else(|| panic!("no sync of the journal: {lines:#?}"));
        assert!(Some(done) < answered(&lines, id), "told before it was on the disk: {lines:#?}");
    }
}

#[test]
fn by_default_the_record_is_written_before_the_answer_and_one_sync_follows_for_many() {
    let (supervisor, api) = busy("group");
    let Some(strace) = Strace::attach(supervisor.pid(), CALLS) else { return };
    let begun = Instant::now();
    let ids: Vec<String> = (0..32).map(|number| format!("task-{number:02}")).collect();
    std::thread::scope(|scope| {
        for some in ids.chunks(4) {
            let api = &api;
            scope.spawn(move || some.iter().for_each(|id| drop(api.start(json!({"task_id": id, "argv": ["true"]})))));
        }
    });
    let lines = wait_for("a sync after the last record", || {
        let lines = strace.lines();
        let records: Option<Vec<usize>> = ids.iter().map(|id| recorded(&lines, id)).collect();
        let answers = ids.iter().all(|id| answered(&lines, id).is_some());
        (answers && synced(&lines, records?.into_iter().max()?).is_some()).then_some(lines)
    });
    for id in &ids {
        assert!(recorded(&lines, id) < answered(&lines, id), "{id} was told of before it was written down");
    }
    let syncs = lines.iter().filter(|line| is_sync(line) && is_journal(line)).count();
    // Each of them follows 25 ms after the first record that it is for, however slow this machine is.
    let most = begun.elapsed().as_millis() as usize / 25 + 2;
    assert!(syncs <= most, "{syncs} syncs for {} records in {:?}", ids.len(), begun.elapsed());
}

#[test]
fn what_is_written_while_a_sync_of_the_group_lasts_is_synced_by_another() {
    let (supervisor, api) = busy("group");
    let slow = ["inject=fdatasync:delay_enter=300ms".to_string()];
    let Some(strace) = Strace::attach_with(supervisor.pid(), CALLS, &slow) else { return };
    let meanwhile = (0..200).find_map(|number| {
        let id = format!("task-{number:03}");
        api.start(json!({"task_id": id, "argv": ["true"]}));
        let lines = wait_for("its record is seen", || {
            let lines = strace.lines();
            recorded(&lines, &id).is_some().then_some(lines)
        });
        let record = recorded(&lines, &id)?;
        let begun = lines[..record].iter().rposition(|line| is_sync(line) && is_journal(line))?;
        let lasts = lines[begun].is_unfinished() && synced(&lines[..record], begun).is_none();
        lasts.then_some(record)
    });
    let record = meanwhile.expect("a sync lasts longer than a call");
    wait_for("a sync that began later", || synced(&strace.lines(), record));
}
