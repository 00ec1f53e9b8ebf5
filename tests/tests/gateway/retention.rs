//! Events are kept within bounds.

use protocol::session::Class;
use tests::control_plane::Gateway;
use tests::dialler::Dialler;
use tests::wait::wait_until;

/// Store records `from` to `to` of sandbox a.
fn store(gateway: &Gateway, from: i64, to: i64) {
    let (mut session, _) = Dialler::begin(gateway, "a");
    for first in (from..=to).step_by(100) {
        session.send_records(Class::Logs, first..=(first + 99).min(to));
    }
    session.until_acknowledged(Class::Logs, to);
}

#[test]
fn the_oldest_events_go_by_count_and_who_read_behind_them_is_told_where_to_go_on() {
    let mut gateway = Gateway::build().set("events_keep_count", "100").start();
    store(&gateway, 1, 1_200);
    // The first look is at the start.
    gateway.kill();
    gateway.start_again();
    let oldest = || gateway.api().get("/v1/sandboxes/a/events?limit=1").json()["events"][0]["seq"].clone();
    wait_until("the old ones have gone", || oldest() == 1_101);
    assert!(gateway.metric("gateway_events_removed_total") > 0.0);
    let seqs: Vec<i64> = gateway.events("a").iter().filter_map(|event| event["seq"].as_i64()).collect();
    assert_eq!(seqs, (1_101..=1_200).collect::<Vec<_>>(), "the newest, without a hole");
    let api = gateway.api();
    for path in ["cursor=7", "cursor=7&class=logs", "cursor=7&follow=true"] {
        let answer = api.get(&format!("/v1/sandboxes/a/events?{path}"));
        assert_eq!(answer.status(), 410, "{path}: {}", answer.json());
        assert_eq!(answer.header("content-type"), "application/problem+json");
        let cursor = answer.json()["cursor"].as_str().expect("where to go on").to_owned();
        let page = api.get(&format!("/v1/sandboxes/a/events?limit=1&cursor={cursor}"));
        assert_eq!((page.status(), page.json()["events"][0]["seq"].as_i64()), (200, Some(1_101)));
    }
    let answer = api.call("GET", "/v1/sandboxes/a/events?follow=true", &[("Last-Event-ID", "7")], b"");
    assert_eq!(answer.status(), 410, "also a follower that comes again");
    // Nothing is asked for again: what was acknowledged stays acknowledged.
    let (_, welcome) = Dialler::begin(&gateway, "a");
    assert_eq!(welcome.next.get(&Class::Logs), Some(&1_201));
}

#[test]
fn events_go_by_age_also_the_last_one_and_numbers_go_on() {
    let mut gateway = Gateway::build().set("events_keep_age", "1ms").start();
    store(&gateway, 1, 700);
    gateway.kill();
    gateway.start_again();
    wait_until("all have gone", || {
        let answer = gateway.api().get("/v1/sandboxes/a/events?cursor=699");
        answer.status() == 410
    });
    let answer = gateway.api().get("/v1/sandboxes/a/events?cursor=7");
    assert_eq!((answer.status(), answer.json()["cursor"].as_str()), (410, Some("700")));
    store(&gateway, 701, 701);
}

#[test]
fn a_reader_of_one_class_is_not_behind_because_another_class_went_on() {
    let mut gateway = Gateway::build().set("events_keep_count", "100").start();
    let (mut session, _) = Dialler::begin(&gateway, "a");
    session.send_records(Class::Lifecycle, 1..=5);
    session.until_acknowledged(Class::Lifecycle, 5);
    drop(session);
    let read = |gateway: &Gateway, cursor: &str| {
        let answer = gateway.api().get(&format!("/v1/sandboxes/a/events?class=lifecycle&cursor={cursor}"));
        assert_eq!(answer.status(), 200, "{}", answer.json());
        let cursor = answer.json()["cursor"].as_str().expect("a cursor").to_owned();
        (answer.json()["events"].as_array().map_or(0, Vec::len), cursor)
    };
    assert_eq!(read(&gateway, "0"), (5, "5".to_owned()));
    store(&gateway, 1, 1_200);
    let (none, cursor) = read(&gateway, "5");
    assert_eq!((none, cursor.as_str()), (0, "1205"), "all of it was another class's");
    gateway.kill();
    gateway.start_again();
    wait_until("the old ones have gone", || gateway.api().get("/v1/sandboxes/a/events?cursor=5").status() == 410);
    assert_eq!(read(&gateway, &cursor).0, 0);
}
