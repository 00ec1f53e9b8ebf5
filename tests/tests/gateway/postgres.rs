//! The same store on a real PostgreSQL server (001-8, 000-84, 000-88).

use protocol::session::{Class, close};
use serde_json::json;
use tests::control_plane::{Builder, Gateway};
use tests::dialler::Dialler;
use tests::postgres::Postgres;
use tests::wait::wait_until;

use super::crash::kill_in_the_middle_of_streams;

fn on(server: &Postgres) -> Builder {
    Gateway::build().set("database_url", &server.url())
}

#[test]
fn kill_9_of_the_gateway_loses_and_doubles_nothing() {
    let Some(server) = Postgres::start() else { return };
    kill_in_the_middle_of_streams(on(&server).start());
}

#[test]
fn all_that_a_gateway_keeps_is_kept() {
    let Some(server) = Postgres::start() else { return };
    let mut gateway = on(&server).set("events_keep_count", "100").start();
    let registered = gateway.api().call("PUT", "/v1/sandboxes/new", &[], b"{}").json();
    let token = registered["token"].as_str().expect("a token").to_owned();
    assert!(Dialler::upgrade(gateway.address, &token).expect("a connection").is_ok());
    let (mut session, _) = Dialler::begin(&gateway, "a");
    session.send_records(Class::Lifecycle, 1..=3);
    session.until_acknowledged(Class::Lifecycle, 3);
    gateway.api().post("/v1/sandboxes/a/commands", r#"{"do":"drain","body":{}}"#);
    gateway.kill();
    gateway.start_again();
    assert_eq!(gateway.events("a").len(), 3);
    assert_eq!(gateway.api().get("/v1/sandboxes/a/commands/1").json()["status"], "waiting");
    assert!(Dialler::upgrade(gateway.address, &token).expect("a connection").is_ok(), "its token is known");
    let (mut session, welcome) = Dialler::begin(&gateway, "a");
    assert_eq!(welcome.next.get(&Class::Lifecycle), Some(&4));
    session.send_records(Class::Lifecycle, 4..=300);
    session.until_acknowledged(Class::Lifecycle, 300);
    gateway.kill();
    gateway.start_again();
    wait_until("the oldest are removed", || {
        server.sql("gateway", "SELECT MIN(seq), MAX(seq) FROM records") == "201|300"
    });
    assert_eq!(gateway.api().call("DELETE", "/v1/sandboxes/new", &[], b"").status(), 204);
}

#[test]
fn a_server_that_crashes_costs_a_session_and_no_record() {
    let Some(mut server) = Postgres::start() else { return };
    let gateway = on(&server).start();
    let (mut session, _) = Dialler::begin(&gateway, "a");
    session.send_records(Class::Logs, 1..=2);
    session.until_acknowledged(Class::Logs, 2);
    server.kill();
    session.send_records(Class::Logs, 3..=4);
    assert_eq!(session.close_code(), close::STORE);
    assert_eq!(gateway.api().get("/readyz").status(), 503);
    server.start_again();
    wait_until("ready again", || gateway.api().get("/readyz").status() == 200);
    let (mut session, welcome) = Dialler::begin(&gateway, "a");
    assert_eq!(welcome.next.get(&Class::Logs), Some(&3));
    session.send_records(Class::Logs, 3..=4);
    session.until_acknowledged(Class::Logs, 4);
    assert_eq!(gateway.events("a").len(), 4);
}

#[test]
fn a_server_that_says_nothing_any_more_is_given_up_and_costs_a_session_and_no_record() {
    let Some(server) = Postgres::start() else { return };
    let gateway = on(&server).start();
    let (mut session, _) = Dialler::begin(&gateway, "a");
    session.send_records(Class::Logs, 1..=2);
    session.until_acknowledged(Class::Logs, 2);
    server.freeze();
    session.send_records(Class::Logs, 3..=4);
    assert_eq!(session.close_code(), close::STORE);
    wait_until("what cannot be read is told", || gateway.api().get("/v1/sandboxes").status() == 503);
    server.thaw();
    wait_until("ready again", || gateway.api().get("/readyz").status() == 200);
    let (mut session, welcome) = Dialler::begin(&gateway, "a");
    // What was under way then may have been stored or not; it is known which.
    let next = welcome.next[&Class::Logs];
    assert!(next == 3 || next == 5, "{next}");
    session.send_records(Class::Logs, next..=5);
    session.until_acknowledged(Class::Logs, 5);
    assert_eq!(gateway.events("a").len(), 5);
}

#[test]
fn a_database_that_may_only_be_read_acknowledges_nothing() {
    let Some(server) = Postgres::start() else { return };
    let gateway = on(&server).start();
    let (mut session, _) = Dialler::begin(&gateway, "a");
    server.sql("postgres", "ALTER DATABASE gateway SET default_transaction_read_only = on");
    server.sql("postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'gateway'");
    session.send_records(Class::Logs, 1..=1);
    assert_eq!(session.close_code(), close::STORE);
    assert_eq!(server.sql("gateway", "SELECT COUNT(*) FROM records"), "0");
    assert_eq!(gateway.api().get("/v1/sandboxes").status(), 200, "what can be read is told");
}

/// 001-25, 000-98: as in an upgrade, where the Job comes before the new gateway.
#[test]
fn a_schema_is_made_current_beside_a_gateway_that_serves() {
    let Some(server) = Postgres::start() else { return };
    let gateway = on(&server).start();
    let (mut session, _) = Dialler::begin(&gateway, "a");
    session.send_records(Class::Logs, 1..=2);
    session.until_acknowledged(Class::Logs, 2);
    // What the version before had not.
    server.sql("gateway", "ALTER TABLE sandboxes DROP COLUMN spec, DROP COLUMN ending, DROP COLUMN owner");
    server.sql("gateway", "DROP TABLE gateways, leader, notices");
    server.sql("gateway", "UPDATE schema_version SET version = 1");
    let (code, told, wrong) = on(&server).run(&["migrate", "up"]);
    assert!(code == 0 && told.starts_with("applied 0002"), "{code} {told} {wrong}");
    session.send_records(Class::Logs, 3..=4);
    session.until_acknowledged(Class::Logs, 4);
    assert_eq!(gateway.events("a").len(), 4);
    // One at a time.
    server.sql("gateway", "UPDATE schema_version SET version = 1");
    let migrating = "SELECT pg_advisory_lock(7883946363647714675), pg_sleep(60)";
    let mut other = server.hold("gateway", migrating);
    let (code, _, told) = on(&server).run(&["migrate", "up"]);
    assert!(code == 75 && told.contains("another `gateway migrate up`"), "{code} {told}");
    other.kill().expect("our own child");
    other.wait().expect("our own child");
}

#[test]
fn what_is_wrong_with_the_database_is_told_at_the_start() {
    let Some(mut server) = Postgres::start() else { return };
    let (code, _, told) = on(&server).run(&["serve"]);
    assert!(code == 78 && told.contains("gateway migrate up"), "{code} {told}");
    let (code, told, _) = on(&server).run(&["migrate", "status"]);
    assert!(told.contains('0'), "{code} {told}");
    let first = on(&server).start();
    assert_eq!(first.api().post("/v1/sandboxes/a/commands", json!({ "do": "drain" }).to_string()).status(), 404);
    let (code, _, told) = on(&server).run(&["serve"]);
    assert!(code == 75 && told.contains("another gateway"), "{code} {told}");
    assert_eq!(on(&server).run(&["migrate", "up"]), (0, "the schema is current\n".into(), String::new()));
    drop(first);
    server.kill();
    let secret = server.url().replace("gateway@", "gateway:s3cret@");
    let (code, _, told) = Gateway::build().set("database_url", &secret).run(&["serve"]);
    assert!(code == 75 && !told.contains("s3cret"), "{code} {told}");
}
