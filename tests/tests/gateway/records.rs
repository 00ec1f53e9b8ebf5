//! Records: acknowledged when stored, stored once, with their holes declared.

use protocol::session::{Class, Extent, FromSupervisor, Gap};
use serde_json::json;
use tests::control_plane::Gateway;
use tests::dialler::{Dialler, hello};

/// Sequences of a class, gaps as (from, to).
fn sequences(gateway: &Gateway, sandbox: &str, class: Class) -> Vec<(i64, i64)> {
    let events = gateway.events(sandbox);
    let of_class = events.iter().filter(|event| event["class"] == class.name());
    let span = |event: &serde_json::Value| match event["seq"].as_i64() {
        Some(seq) => (seq, seq),
        None => (event["gap"]["from"].as_i64().unwrap_or(0), event["gap"]["to"].as_i64().unwrap_or(0)),
    };
    of_class.map(span).collect()
}

#[test]
fn what_is_acknowledged_is_among_the_events_as_it_was_sent() {
    let gateway = Gateway::start();
    let (mut session, welcome) = Dialler::begin(&gateway, "a");
    assert!(welcome.next.is_empty() && welcome.fence > 0, "{welcome:?}");
    session.send_records(Class::Lifecycle, 1..=3);
    session.send_records(Class::Logs, 1..=200);
    session.until_acknowledged(Class::Logs, 200);
    let events = gateway.events("a");
    assert_eq!(events.len(), 203);
    assert_eq!(events[1]["seq"], 2);
    assert_eq!(events[1]["epoch"], "epoch-1");
    assert_eq!(events[1]["record"]["body"], json!({"class": "lifecycle", "seq": 2}));
    let only = gateway.api().get("/v1/sandboxes/a/events?class=logs&limit=2&cursor=3").json();
    assert_eq!(only["events"].as_array().map(Vec::len), Some(2));
    assert_eq!(only["events"][0]["class"], "logs");
    assert_eq!(gateway.api().get("/v1/sandboxes/a").json()["status"], "connected");
}

#[test]
fn a_replay_is_acknowledged_again_and_stored_once() {
    let gateway = Gateway::start();
    let (mut session, _) = Dialler::begin(&gateway, "a");
    session.send_records(Class::Logs, 1..=5);
    session.until_acknowledged(Class::Logs, 5);
    session.send_records(Class::Logs, 1..=5);
    session.until_acknowledged(Class::Logs, 5);
    session.send_records(Class::Logs, 4..=7);
    session.until_acknowledged(Class::Logs, 7);
    drop(session);
    let (mut session, welcome) = Dialler::begin(&gateway, "a");
    assert_eq!(welcome.next.get(&Class::Logs), Some(&8));
    session.send_records(Class::Logs, 2..=8);
    session.until_acknowledged(Class::Logs, 8);
    let expected: Vec<(i64, i64)> = (1..=8).map(|seq| (seq, seq)).collect();
    assert_eq!(sequences(&gateway, "a", Class::Logs), expected);
}

#[test]
fn a_gap_takes_the_place_of_what_will_never_come() {
    let gateway = Gateway::start();
    let (mut session, _) = Dialler::begin(&gateway, "a");
    session.send_records(Class::Logs, 1..=2);
    let gap = |from, to| FromSupervisor::Gap(Gap { class: Class::Logs, from, to, bytes: 9, reason: "evicted".into() });
    session.send(&gap(3, 9));
    session.until_acknowledged(Class::Logs, 9);
    session.send(&gap(3, 9));
    session.send(&gap(5, 11));
    session.send_records(Class::Logs, 12..=12);
    session.until_acknowledged(Class::Logs, 12);
    assert_eq!(sequences(&gateway, "a", Class::Logs), [(1, 1), (2, 2), (3, 9), (10, 11), (12, 12)]);
}

#[test]
fn another_log_epoch_begins_with_1_and_the_old_one_stays() {
    let gateway = Gateway::start();
    let (mut session, _) = Dialler::begin(&gateway, "a");
    session.send_records(Class::Logs, 1..=3);
    session.until_acknowledged(Class::Logs, 3);
    drop(session);
    let mut other = hello("a");
    other.log_epoch = "epoch-2".into();
    let (mut session, welcome) = Dialler::begin_with(&gateway, other);
    assert!(welcome.next.is_empty(), "{welcome:?}");
    session.send_records(Class::Logs, 1..=1);
    session.until_acknowledged(Class::Logs, 1);
    assert_eq!(sequences(&gateway, "a", Class::Logs), [(1, 1), (2, 2), (3, 3), (1, 1)]);
}

#[test]
fn what_a_gateway_had_acknowledged_and_lost_is_declared_by_a_gap() {
    let gateway = Gateway::start();
    let mut behind = hello("a");
    behind.classes.insert(Class::Logs, Extent { first_unacked: 11, last: 20 });
    let (mut session, welcome) = Dialler::begin_with(&gateway, behind);
    assert_eq!(welcome.next.get(&Class::Logs), Some(&11));
    session.send_records(Class::Logs, 11..=20);
    session.until_acknowledged(Class::Logs, 20);
    let all = sequences(&gateway, "a", Class::Logs);
    assert_eq!((all[0], all[1], all.len()), ((1, 10), (11, 11), 11));
    assert_eq!(gateway.events("a")[0]["gap"]["reason"], "store");
}
