//! Sessions that move from one gateway to another while nothing is wrong: begun elsewhere, drained, spread (001-5, 001-6, 001-7).

use std::time::{Duration, Instant};

use serde_json::json;
use tests::attach::Attach;
use tests::supervisor::log_lines;
use tests::wait::within;

use super::*;

/// Both ends know within a second or so, on a machine that has time for it; by the end of a lease they would know anyway.
const SOON: Duration = Duration::from_secs(8);

#[test]
fn a_session_that_begins_at_another_gateway_ends_the_older_one() {
    let Some(server) = Postgres::start() else { return };
    let (first, second) = (one(&server).start(), one(&server).start());
    let (mut older, _) = Dialler::begin(&first, "a");
    older.send_records(Class::Logs, 1..=2);
    older.until_acknowledged(Class::Logs, 2);
    let (mut newer, welcome) = Dialler::begin(&second, "a");
    let moved = Instant::now();
    assert_eq!(welcome.next[&Class::Logs], 3);
    // It is told though it sends nothing.
    assert_eq!(older.close_code(), close::FENCED);
    assert!(moved.elapsed() < SOON, "{:?}", moved.elapsed());
    newer.send_records(Class::Logs, 3..=4);
    newer.until_acknowledged(Class::Logs, 4);
    for gateway in [&first, &second] {
        assert_eq!(gateway.events("a").len(), 4);
        assert_eq!(status(gateway, "a"), "connected");
    }
    // And back, at once: what was said of the session before does not count for this one.
    let (mut back, _) = Dialler::begin(&first, "a");
    assert_eq!(newer.close_code(), close::FENCED);
    back.send_records(Class::Logs, 5..=6);
    back.until_acknowledged(Class::Logs, 6);
    wait_until("all was heard", || server.sql("gateway", "SELECT count(*) FROM notices") == "0");
    assert_eq!((first.metric("gateway_sessions"), second.metric("gateway_sessions")), (1.0, 0.0));
}

/// Found by reading: who began first was not told of the other one, which had not seen it.
#[test]
fn of_two_sessions_that_begin_at_once_at_two_gateways_one_is_ended() {
    let Some(server) = Postgres::start() else { return };
    let gateways = [one(&server).start(), one(&server).start()];
    for id in ["a", "b", "c", "d", "a", "b", "c", "d"] {
        let both = std::thread::scope(|scope| {
            let begin = |gateway| {
                scope.spawn(move || {
                    let mut session = Dialler::dial(gateway, id);
                    session.send(&FromSupervisor::Hello(Box::new(hello(id))));
                    // A welcome, or the end already.
                    session.receive();
                    session
                })
            };
            gateways.each_ref().map(begin).map(|begun| begun.join().expect("a session"))
        });
        let sessions = || gateways.iter().map(|gateway| gateway.metric("gateway_sessions")).sum::<f64>();
        let ended = within(SOON, || (sessions() == 1.0).then_some(()));
        assert!(ended.is_some(), "{id}: {} sessions", sessions());
        drop(both);
        wait_until("both have gone", || sessions() == 0.0);
    }
}

#[test]
fn a_sandbox_that_is_deleted_at_another_gateway_loses_its_session() {
    let Some(server) = Postgres::start() else { return };
    let (first, second) = (one(&server).start(), one(&server).start());
    let (mut session, _) = Dialler::begin(&first, "a");
    assert_eq!(second.api().call("DELETE", "/v1/sandboxes/a", &[], b"").status(), 204);
    assert_eq!(session.close_code(), close::UNAUTHENTICATED);
    let (mut again, _) = Dialler::begin(&first, "a");
    again.send_records(Class::Logs, 1..=1);
    again.until_acknowledged(Class::Logs, 1);
    assert_eq!(second.events("a").len(), 1);
}

#[test]
fn a_gateway_that_stops_hands_its_sessions_over_and_none_is_away_for_two_seconds() {
    const IDS: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let Some(server) = Postgres::start() else { return };
    // So slow that who waits for its successor, or for its place in P, is away for longer.
    let slow = || one(&server).set("admission_rate", "6").start();
    let (mut first, second) = (slow(), slow());
    let front = Balancer::before(&[first.address]);
    let supervisors: Vec<Supervisor> = IDS.iter().map(|id| supervisor(id, front.address)).collect();
    wait_until("all are there", || first.metric("gateway_sessions") == IDS.len() as f64);
    wait_together(&[&first, &second]);
    front.now_before(&[first.address, second.address]);
    first.signal(Signal::SIGTERM);
    assert_eq!(first.wait(), 0);
    wait_until("all are at the other", || second.metric("gateway_sessions") == IDS.len() as f64);
    let mut aways = IDS.map(|id| {
        // A line of a log comes by a pipe, behind what it tells of.
        let told = |gateway, message| {
            tests::wait::wait_for("it is logged", || {
                let times = times(gateway, id, message);
                (!times.is_empty()).then_some(times)
            })
        };
        let (ended, begun) = (told(&first, "a session ended"), told(&second, "a session began"));
        assert_eq!((ended.len(), begun.len()), (1, 1), "{id} moved once");
        let away = begun[0] - ended[0];
        println!("{id} was away for {away} ms");
        away
    });
    aways.sort_unstable();
    // A busy machine may hold up some of them, and not most.
    assert!(aways[0] > -1000 && aways[IDS.len() / 2] < 2000 && aways[IDS.len() - 1] < 10_000, "{aways:?}");
    // It has given its lease back, so nobody waits for its end.
    assert_eq!(server.sql("gateway", "SELECT count(*) FROM gateways"), "1");
    assert_eq!(second.metric("gateway_session_ends_total{end=\"4409\"}"), 0.0);
    wait_until("the other leads", || leads(&second));

    // A third takes its share of those that dial from now on.
    let third = one(&server).start();
    front.now_before(&[third.address]);
    let mut late = supervisors;
    late.truncate(7);
    wait_until("one has gone", || second.metric("gateway_sessions") == 7.0);
    let _new = super::supervisor("h", front.address);
    wait_until("it is there", || third.metric("gateway_sessions") == 1.0);
    assert_eq!(api(&second, "h").get("/dev-tasks").status(), 200);
}

#[test]
fn a_sandbox_on_which_a_call_is_under_way_is_not_asked_to_move() {
    const IDS: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let Some(server) = Postgres::start() else { return };
    let first = one(&server).set("balance_after", "10s").start();
    let front = Balancer::before(&[first.address]);
    let supervisors: Vec<Supervisor> = IDS.iter().map(|id| supervisor(id, front.address)).collect();
    wait_until("all are there", || first.metric("gateway_sessions") == IDS.len() as f64);
    // By its name it would be the first to be asked.
    let called = api(&first, "a");
    let task = called.start(
        json!({ "argv": ["sh", "-c", "echo one; read line; echo $line"], "terminal": { "rows": 24, "cols": 80 } }),
    );
    let mut client = Attach::to(&called, &task, "");
    client.wait_text("one");

    let second = one(&server).start();
    front.now_before(&[second.address]);
    // Four fifths of four at least, and whoever was asked has come.
    wait_until("it has its share", || {
        let (here, there) = (first.metric("gateway_sessions"), second.metric("gateway_sessions"));
        there >= 3.0 && here + there == IDS.len() as f64 && first.metric("gateway_moves_total") == there
    });
    assert_eq!(second.metric("gateway_moves_total"), 0.0);
    assert_eq!(times(&first, "a", "a session began").len(), 1);
    client.type_in("two\r");
    client.wait_text("two\r\ntwo");
    assert_eq!(client.to_end(), 1000);
    assert_eq!(times(&second, "a", "a session began").len(), 0);
    drop(supervisors);
}

/// When this gateway logged this of a sandbox, Unix milliseconds.
fn times(gateway: &Gateway, id: &str, message: &str) -> Vec<i64> {
    let lines = log_lines(&gateway.stderr.text());
    let said = |line: &&serde_json::Value| line["message"].as_str().is_some_and(|text| text.starts_with(message));
    let of = lines.iter().filter(said).filter(|line| line["sandbox"] == id);
    of.map(|line| millis(line["timestamp"].as_str().expect("a time"))).collect()
}

fn millis(text: &str) -> i64 {
    let since = humantime::parse_rfc3339(text).expect("RFC 3339").duration_since(std::time::UNIX_EPOCH);
    since.expect("after 1970").as_millis() as i64
}
