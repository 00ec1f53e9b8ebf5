//! Records on their way from the buffer to the gateway.

use std::fs;

use nix::sys::signal::Signal;
use protocol::session::{Class, FromGateway, FromSupervisor, Record, close};
use serde_json::json;
use tests::gateway::{Gateway, Session};
use tests::supervisor::Supervisor;
use tests::tasks::Api;
use tests::{http, scene};

use super::{SLOW, linked, post};

/// Takes records and gaps of one class, acknowledges each frame, until `enough` says so; they come in order without a hole,
/// from `next` on, or where that is 0 from anywhere.
pub(super) fn take(session: &mut Session, class: Class, next: &mut i64, mut enough: impl FnMut(&Record) -> bool) {
    loop {
        match session.frame() {
            FromSupervisor::Data(data) => {
                let last = data.records.last().expect("at least one").seq;
                session.send(&FromGateway::Ack { acks: [(data.class, last)].into(), applied: None });
                if data.class != class {
                    continue;
                }
                let mut done = false;
                for entry in data.records {
                    *next = if *next == 0 { entry.seq } else { *next };
                    assert_eq!(entry.seq, *next, "in order, without a hole");
                    *next += 1;
                    done |= enough(&serde_json::from_str(entry.record.get()).expect("a record"));
                }
                if done {
                    return;
                }
            }
            FromSupervisor::Gap(gap) if gap.class == class => {
                assert_eq!(gap.from, *next);
                *next = gap.to + 1;
            }
            _ => {}
        }
    }
}

#[test]
fn the_life_of_supervisor_agent_and_tasks_arrives_in_order() {
    let gateway = Gateway::new();
    let supervisor = linked(&gateway).token().start();
    supervisor.wait_ready();
    let mut session = gateway.welcome(SLOW);
    let (mut kinds, mut next) = (Vec::new(), 1);
    take(&mut session, Class::Lifecycle, &mut next, |record| {
        kinds.push(record.kind.clone());
        record.kind == "agent.ready"
    });
    assert_eq!(kinds.first().map(String::as_str), Some("supervisor.started"));
    assert!(kinds.contains(&"agent.running".into()), "{kinds:?}");
    session.call(&post("/dev-tasks?wait=30s", r#"{"task_id":"t-1","argv":["true"]}"#));
    let mut states = Vec::new();
    take(&mut session, Class::Lifecycle, &mut next, |record| {
        states.push(record.kind.clone());
        record.kind == "task.succeeded"
    });
    assert_eq!(states, ["task.starting", "task.running", "task.succeeded"]);
}

#[test]
fn what_is_not_acknowledged_is_sent_again_in_the_next_session_and_nothing_else_is() {
    let gateway = Gateway::new();
    let supervisor = linked(&gateway).start();
    supervisor.wait_ready();
    let mut session = gateway.welcome(SLOW);
    let first = loop {
        if let FromSupervisor::Data(data) = session.frame() {
            break data;
        }
    };
    assert_eq!(first.records[0].seq, 1);
    // The gateway stores one record, and dies before it says so.
    drop(session);
    let mut session = gateway.accept();
    assert_eq!(session.hello().classes[&Class::Lifecycle].first_unacked, 1);
    let mut welcome = Session::usual(SLOW);
    welcome.next.insert(Class::Lifecycle, 2);
    session.send(&FromGateway::Welcome(Box::new(welcome)));
    let mut next = 2;
    take(&mut session, Class::Lifecycle, &mut next, |record| record.kind == "agent.ready");
    // What is answered behind the acknowledgement says that it was read.
    session.send(&FromGateway::Beat { n: 0, state: true, sums: None });
    session.state();
    drop(session);
    let session = gateway.accept();
    assert!(session.hello().classes[&Class::Lifecycle].first_unacked >= next - 1);
}

#[test]
fn records_wait_on_disk_while_there_is_no_gateway_also_over_a_kill() {
    let gateway = Gateway::new();
    let mut supervisor = linked(&gateway).token().start();
    supervisor.wait_ready();
    let body = r#"{"task_id":"t-9","argv":["true"]}"#;
    let request = format!(
        "POST /dev-tasks?wait=30s HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        scene::CANARY,
        body.len()
    );
    let answer = http::exchange(supervisor.address(), &request).expect("an answer");
    assert!(answer.body.contains("succeeded"), "{answer:?}");
    supervisor.signal(Signal::SIGKILL);
    supervisor.wait_exit();
    // Another address: what the first one dialled is still waiting at the old one.
    let gateway = Gateway::new();
    let again = linked(&gateway).set("state-dir", supervisor.paths().state.clone()).start();
    again.wait_ready();
    let mut session = gateway.welcome(SLOW);
    let mut next = 1;
    take(&mut session, Class::Results, &mut next, |record| {
        record.kind == "task.result" && record.body["task_id"] == "t-9" && record.body["state"] == "succeeded"
    });
    assert_eq!(next, 2, "once");
}

#[test]
fn an_end_that_was_noted_and_not_told_is_told_once_by_the_next_supervisor() {
    let gateway = Gateway::new();
    let mut supervisor = linked(&gateway).token().start();
    let ended = Api::of(&supervisor).run(json!({"task_id": "t-1", "argv": ["true"]}));
    assert_eq!(ended["state"], "succeeded");
    let state = supervisor.paths().state.clone();
    let kill = |supervisor: &mut Supervisor| {
        supervisor.signal(Signal::SIGKILL);
        supervisor.wait_exit();
    };
    kill(&mut supervisor);
    // As if the kill had come between the journal and the buffer.
    let results = fs::read_dir(state.join("buffer")).expect("there is a buffer").flatten().map(|entry| entry.path());
    let removed = results.filter(|path| path.display().to_string().contains("/results-")).map(fs::remove_file).count();
    assert_eq!(removed, 1);
    for _ in 0..2 {
        let mut again = linked(&gateway).set("state-dir", state.clone()).start();
        again.wait_ready();
        kill(&mut again);
    }
    let gateway = Gateway::new();
    let again = linked(&gateway).token().set("state-dir", state).start();
    let mut session = gateway.welcome(SLOW);
    Api::of(&again).run(json!({"task_id": "t-2", "argv": ["true"]}));
    let mut told = Vec::new();
    // Each class comes in its own order.
    let last = ["task.succeeded", "task.result"].map(|kind| (kind.to_owned(), "t-2".to_owned()));
    while !last.iter().all(|last| told.contains(last)) {
        let FromSupervisor::Data(data) = session.frame() else { continue };
        let records = data.records.iter().map(|entry| serde_json::from_str(entry.record.get()).expect("a record"));
        told.extend(
            records.map(|record: Record| (record.kind, record.body["task_id"].as_str().unwrap_or_default().to_owned())),
        );
    }
    for task in ["t-1", "t-2"] {
        for kind in ["task.succeeded", "task.result"] {
            let times = told.iter().filter(|one| **one == (kind.to_owned(), task.to_owned())).count();
            assert_eq!(times, 1, "{kind} of {task} in {told:?}");
        }
    }
}

#[test]
fn the_last_record_is_delivered_before_the_goodbye() {
    let gateway = Gateway::new();
    let mut supervisor = linked(&gateway).start();
    supervisor.wait_ready();
    let mut session = gateway.welcome(SLOW);
    let mut next = 1;
    take(&mut session, Class::Lifecycle, &mut next, |record| record.kind == "agent.ready");
    supervisor.signal(Signal::SIGTERM);
    take(&mut session, Class::Lifecycle, &mut next, |record| {
        record.kind == "supervisor.stopped" && record.body["exit_code"] == 143
    });
    let (frames, _) = session.rest();
    assert!(matches!(frames.last(), Some(FromSupervisor::Bye { last: true, .. })), "{frames:?}");
    assert_eq!(supervisor.wait_code(), 143);
}

/// Lifecycle from the first record on, of which nothing is acknowledged; the number of the last.
fn until_ready(session: &mut Session) -> i64 {
    let mut last = 0;
    loop {
        let FromSupervisor::Data(data) = session.frame() else { continue };
        for entry in data.records.iter().filter(|_| data.class == Class::Lifecycle) {
            assert_eq!(entry.seq, last + 1, "in order, without a hole, from the first");
            last = entry.seq;
            if serde_json::from_str::<Record>(entry.record.get()).expect("a record").kind == "agent.ready" {
                return last;
            }
        }
    }
}

#[test]
fn an_acknowledgement_of_what_was_never_sent_ends_the_session_and_nothing_is_let_go_of() {
    let gateway = Gateway::new();
    let supervisor = linked(&gateway).start();
    supervisor.wait_ready();
    for ahead in [1, 1000, i64::MAX / 2] {
        let mut session = gateway.welcome(SLOW);
        let last = until_ready(&mut session);
        session.send(&FromGateway::Ack { acks: [(Class::Lifecycle, last + ahead)].into(), applied: None });
        assert_eq!(session.rest().1, Some(close::MALFORMED), "{ahead} ahead");
    }
}
