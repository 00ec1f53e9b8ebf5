//! What becomes of sessions when a gateway or the database fails in the midst.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use protocol::session::{Offline, OfflineAction};
use serde_json::{Value, json};
use tests::bench::report;
use tests::dialler::Received;
use tests::torture;
use tests::wait::within;

use super::*;

/// Longer than a lease holds.
const BEYOND: Duration = Duration::from_secs(12);

/// Each sequence of each class once, from the first to the last, in records and gaps.
#[track_caller]
fn assert_once(events: &[Value]) {
    let mut seqs: BTreeMap<(String, String), Vec<i64>> = BTreeMap::new();
    for event in events {
        let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
        let all = seqs.entry((text("epoch"), text("class"))).or_default();
        match event["seq"].as_i64() {
            Some(seq) => all.push(seq),
            None => {
                let number = |name: &str| event["gap"][name].as_i64().expect("a number");
                all.extend(number("from")..=number("to"));
            }
        }
    }
    for (of, seqs) in seqs {
        let expected: Vec<i64> = (1..=seqs.len() as i64).collect();
        assert_eq!(seqs, expected, "{of:?}");
    }
}

#[test]
fn kill_9_of_the_owner_moves_the_session_and_costs_and_doubles_no_record() {
    let Some(server) = Postgres::start() else { return };
    let mut gateways = [one(&server).start(), one(&server).start(), one(&server).start()];
    let front = Balancer::before(&gateways.each_ref().map(|gateway| gateway.address));
    let _supervisor = supervisor("a", front.address);
    let at = |gateways: &[Gateway]| {
        wait_for("a session somewhere", || gateways.iter().position(|one| one.metric("gateway_sessions") == 1.0))
    };
    let mut told = Vec::new();
    for round in 0..3 {
        let owner = at(&gateways);
        let other = (owner + 1) % gateways.len();
        // A follower at another gateway goes on over all of it.
        let path = "/v1/sandboxes/a/events?follow=true&class=results";
        let (_, mut followed) = gateways[other].api().open("GET", path, &[], b"").expect("an answer");
        let by_other = api(&gateways[other], "a");
        for number in 0..5 {
            let id = format!("t-{round}-{number}");
            wait_until("it is created", || {
                let body = json!({ "task_id": id, "argv": ["true"] }).to_string();
                matches!(by_other.post("/dev-tasks", body).status(), 200 | 201)
            });
            told.push(id);
        }
        gateways[owner].kill();
        let killed = Instant::now();
        let last = format!("last-{round}");
        wait_until("it is created at another", || {
            let body = json!({ "task_id": last, "argv": ["true"] }).to_string();
            matches!(by_other.post("/dev-tasks", body).status(), 200 | 201)
        });
        println!("called again after {:?}", killed.elapsed());
        told.push(last.clone());
        let is_last = |event: &BTreeMap<String, String>| event.get("data").is_some_and(|data| data.contains(&last));
        while !is_last(&followed.event().expect("the stream").expect("it goes on")) {}
        gateways[owner].start_again();
        wait_together(&gateways.each_ref());
    }
    wait_until("all results are there", || {
        let events = gateways[0].events("a");
        told.iter().all(|id| {
            let of = events.iter().filter(|event| event["record"]["kind"] == "task.result");
            of.filter(|event| event["record"]["body"]["task_id"] == **id).count() == 1
        })
    });
    assert_once(&gateways[1].events("a"));
}

#[test]
fn a_gateway_that_was_stopped_for_longer_than_its_lease_has_no_session_afterwards_and_doubles_nothing() {
    let Some(server) = Postgres::start() else { return };
    let (first, second) = (one(&server).start(), one(&server).start());
    let (mut idle, begun) = Dialler::begin(&first, "a");
    let (mut busy, _) = Dialler::begin(&first, "b");
    busy.send_records(Class::Logs, 1..=2);
    busy.until_acknowledged(Class::Logs, 2);
    let mut late = ["c", "d", "e", "f", "g", "h"].map(|id| (id, Dialler::begin(&first, id).0));
    wait_together(&[&first, &second]);
    first.signal(Signal::SIGSTOP);
    // A call through it ends with its lease, not later.
    let asked = Instant::now();
    let answer = api(&second, "a").get("/dev-tasks");
    assert!(matches!(answer.status(), 502 | 503), "{}", answer.json());
    assert!(asked.elapsed() < BEYOND + Duration::from_secs(3), "{:?}", asked.elapsed());
    wait_until("its sessions count as ended", || status(&second, "a") == "disconnected");
    // From here on nothing of them is stored, whatever it still writes.
    assert!(second.api().get("/v1/sandboxes/a").json()["fence"].as_i64() > Some(begun.fence));
    wait_until("the other leads", || leads(&second));
    // What was sent meanwhile waits at its socket. The agent dials the other.
    late.iter_mut().for_each(|(_, session)| session.send_records(Class::Logs, 1..=9));
    busy.send_records(Class::Logs, 3..=4);
    let (mut newer, welcome) = Dialler::begin(&second, "b");
    assert_eq!(welcome.next[&Class::Logs], 3);
    newer.send_records(Class::Logs, 3..=3);
    newer.until_acknowledged(Class::Logs, 3);
    first.signal(Signal::SIGCONT);
    for session in [&mut idle, &mut busy] {
        assert!(matches!(session.close_code(), close::STORE | close::FENCED));
    }
    for (id, session) in &mut late {
        assert!(matches!(session.close_code(), close::STORE | close::FENCED), "{id}");
        assert_eq!(second.events(id).len(), 0, "{id} had ended when this came");
    }
    newer.send_records(Class::Logs, 4..=5);
    newer.until_acknowledged(Class::Logs, 5);
    assert_once(&second.events("b"));
    assert_eq!(second.events("b").len(), 5);
    // It is one of them again.
    wait_until("it is ready again", || first.api().get("/readyz").status() == 200);
    assert_eq!(first.metric("gateway_leases_lost_total"), 1.0);
    let (mut again, _) = Dialler::begin(&first, "a");
    again.send_records(Class::Logs, 1..=1);
    again.until_acknowledged(Class::Logs, 1);
    assert_eq!(status(&second, "a"), "connected");
}

#[test]
fn a_database_that_is_away_ends_all_sessions_and_all_come_back_with_it() {
    let Some(mut server) = Postgres::start() else { return };
    let gateways = [one(&server).start(), one(&server).start()];
    wait_together(&gateways.each_ref());
    let (mut idle, _) = Dialler::begin(&gateways[0], "a");
    let (mut busy, _) = Dialler::begin(&gateways[1], "b");
    busy.send_records(Class::Logs, 1..=2);
    busy.until_acknowledged(Class::Logs, 2);
    server.kill();
    // It could not know whether the others count it as ended.
    assert_eq!(idle.close_code(), close::STORE);
    assert_eq!(busy.close_code(), close::STORE);
    for gateway in &gateways {
        assert_eq!(gateway.api().get("/readyz").status(), 503);
        assert!(gateway.metric("gateway_lease_failures_total") >= 1.0);
        let refused = Dialler::upgrade(gateway.address, &token_of("a")).expect("an answer").err().expect("refused");
        assert_eq!(refused.status, 503, "{}", refused.body);
    }
    server.start_again();
    wait_until("ready again", || gateways.iter().all(|gateway| gateway.api().get("/readyz").status() == 200));
    let (mut busy, welcome) = Dialler::begin(&gateways[0], "b");
    assert_eq!(welcome.next[&Class::Logs], 3);
    busy.send_records(Class::Logs, 3..=4);
    busy.until_acknowledged(Class::Logs, 4);
    assert_once(&gateways[1].events("b"));
    wait_until("one of them leads", || leads(&gateways[0]) != leads(&gateways[1]));
    wait_until("the first session counts as ended", || status(&gateways[1], "a") == "disconnected");
}

#[test]
fn what_one_gateway_does_for_all_another_does_when_it_is_killed() {
    let Some(server) = Postgres::start() else { return };
    let one = || one(&server).set("events_keep_count", "10").start();
    let mut gateways = [one(), one()];
    wait_together(&gateways.each_ref());
    let leader = usize::from(leads(&gateways[1]));
    let (mut session, _) = Dialler::begin(&gateways[leader], "a");
    session.send_records(Class::Logs, 1..=50);
    session.until_acknowledged(Class::Logs, 50);
    gateways[leader].kill();
    let other = &gateways[1 - leader];
    let killed = Instant::now();
    wait_until("the other leads", || leads(other));
    println!("another leads after {:?}", killed.elapsed());
    assert!(killed.elapsed() < 3 * BEYOND, "{:?}", killed.elapsed());
    wait_until("the session of the dead one has an end", || {
        server.sql("gateway", "SELECT count(*) FROM sandboxes WHERE ended_ms IS NULL") == "0"
    });
    assert_eq!(other.metric("gateway_gateways"), 1.0);
    wait_until("old events are removed", || server.sql("gateway", "SELECT min(seq) FROM records") == "41");
    assert_eq!(other.metric("gateway_events_removed_total"), 40.0);
}

/// The clock by which somebody is away too long goes on while one of them is awake, and not while none is.
#[test]
fn nobody_expires_while_all_gateways_are_stopped() {
    let Some(server) = Postgres::start() else { return };
    let gateways = [one(&server).start(), one(&server).start()];
    wait_together(&gateways.each_ref());
    let mut hello = tests::dialler::hello("a");
    hello.offline = Some(Offline { after_ms: 15_000, action: OfflineAction::Keep });
    let (session, _) = Dialler::begin_with(&gateways[0], hello);
    drop(session);
    wait_until("it is away", || status(&gateways[1], "a") == "disconnected");
    gateways.iter().for_each(|gateway| gateway.signal(Signal::SIGSTOP));
    std::thread::sleep(Duration::from_secs(15));
    gateways.iter().for_each(|gateway| gateway.signal(Signal::SIGCONT));
    assert_eq!(status(&gateways[0], "a"), "disconnected");
    // One alone is enough for the time to count, also for the one that sleeps through it.
    gateways[0].signal(Signal::SIGSTOP);
    wait_until("it expires", || status(&gateways[1], "a") == "expired");
    gateways[0].signal(Signal::SIGCONT);
    // Sooner than it could have counted so much itself.
    let known = within(Duration::from_secs(6), || (status(&gateways[0], "a") == "expired").then_some(()));
    assert!(known.is_some(), "the other does not know");
}

#[test]
fn a_gateway_that_is_cut_off_from_the_database_gives_its_sessions_to_the_others() {
    let Some(server) = Postgres::start() else { return };
    let wire = Balancer::before(&[server.address()]);
    let url = server.url().replace(&server.address().to_string(), &wire.address.to_string());
    let (cut, other) = (one(&server).set("database_url", &url).start(), one(&server).start());
    let front = Balancer::before(&[cut.address]);
    let _supervisor = supervisor("a", front.address);
    let (mut session, _) = Dialler::begin(&cut, "b");
    wait_until("both are there", || cut.metric("gateway_sessions") == 2.0);
    wait_together(&[&cut, &other]);
    front.now_before(&[cut.address, other.address]);
    let task = api(&other, "a").run(json!({ "argv": ["true"] }));
    assert_eq!(task["state"], "succeeded");
    wire.cut();
    let instant = Instant::now();
    wait_until("it answers for nobody, since it cannot know", || api(&cut, "a").get("/dev-tasks").status() == 503);
    assert_eq!(cut.metric("gateway_sessions"), 2.0, "their lease holds still");
    // It sends nothing, and is closed all the same before the other may count it as ended.
    assert_eq!(session.close_code(), close::STORE);
    println!("given up after {:?}", instant.elapsed());
    assert!(instant.elapsed() < Duration::from_secs(11), "{:?}", instant.elapsed());
    wait_until("the agent's session is at the other", || other.metric("gateway_sessions") == 1.0);
    let task = api(&other, "a").run(json!({ "argv": ["true"] }));
    assert_eq!(task["state"], "succeeded");
    assert_eq!(cut.metric("gateway_sessions"), 0.0);
    wire.mend();
    wait_until("it is one of them again", || cut.api().get("/readyz").status() == 200);
    assert_eq!(api(&cut, "a").get("/dev-tasks").status(), 200);
    assert_once(&cut.events("a"));
}

#[test]
fn no_session_begins_where_the_lease_is_over_also_while_its_gateway_does_not_know_it() {
    let Some(server) = Postgres::start() else { return };
    let gateway = one(&server).start();
    for round in 0..5 {
        wait_until("it has a lease", || gateway.api().get("/readyz").status() == 200);
        server.sql("gateway", "UPDATE gateways SET until_ms = 0");
        if let Ok(mut session) = Dialler::upgrade(gateway.address, &token_of("a")).expect("an answer") {
            session.send(&protocol::session::FromSupervisor::Hello(Box::new(tests::dialler::hello("a"))));
            match session.receive() {
                Received::Closed(code) => assert_eq!(code, close::STORE, "round {round}"),
                // Its gateway was faster: it knows, and has another lease.
                Received::Frame(_) => {
                    assert!(gateway.metric("gateway_leases_lost_total") > f64::from(round), "round {round}");
                    server.sql("gateway", "DELETE FROM sandboxes");
                }
                other => panic!("round {round}: {other:?}"),
            }
        }
        assert_eq!(server.sql("gateway", "SELECT count(*) FROM sandboxes"), "0", "round {round}");
        wait_until("it knows", || gateway.metric("gateway_leases_lost_total") > f64::from(round));
    }
}

/// As another gateway does it that begins a session, ends those of a dead one, or forgets the sandbox.
#[test]
fn what_is_fenced_off_while_it_waits_to_be_stored_is_expected_again_and_not_lost() {
    let Some(server) = Postgres::start() else { return };
    let gateway = one(&server).start();
    let (mut older, _) = Dialler::begin(&gateway, "a");
    older.send_records(Class::Logs, 1..=2);
    older.until_acknowledged(Class::Logs, 2);
    let mut newer =
        server.hold("gateway", "UPDATE sandboxes SET fence = fence + 1 WHERE id = $$a$$; SELECT pg_sleep(4)");
    let of_row = "SELECT count(*) FROM (SELECT id FROM sandboxes FOR UPDATE SKIP LOCKED) AS free";
    wait_until("the row is held", || server.sql("gateway", of_row) == "0");
    older.send_records(Class::Logs, 3..=4);
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = $$Lock$$";
    wait_until("it waits to be stored", || server.sql("gateway", waits) == "1");
    assert_eq!(older.close_code(), close::FENCED);
    newer.wait().expect("our own child");
    let (mut session, welcome) = Dialler::begin(&gateway, "a");
    assert_eq!(welcome.next[&Class::Logs], 3);
    session.send_records(Class::Logs, 3..=5);
    session.until_acknowledged(Class::Logs, 5);
    assert_once(&gateway.events("a"));
    assert_eq!(gateway.events("a").len(), 5);
}

#[test]
fn a_gateway_that_renews_while_the_leader_removes_it_stays() {
    let Some(server) = Postgres::start() else { return };
    let leader = one(&server).start();
    // Its lease is over, and its renewal is not committed yet.
    let renewing = "BEGIN; \
        INSERT INTO sandboxes (id, created_ms, begun_ms, owner) VALUES ($$a$$, 1, 1, $$late$$); \
        INSERT INTO gateways (id, url, until_ms) VALUES ($$late$$, $$http://127.0.0.1:1$$, 0); COMMIT; \
        BEGIN; UPDATE gateways SET until_ms = 9000000000000 WHERE id = $$late$$; SELECT pg_sleep(4); COMMIT";
    let mut late = server.hold("gateway", renewing);
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = $$Lock$$";
    wait_until("the leader removes it", || server.sql("gateway", waits) == "1");
    late.wait().expect("our own child");
    wait_until("it is seen", || leader.metric("gateway_gateways") == 2.0);
    // Written after the removal, if there was one.
    assert_eq!(leader.api().call("PUT", "/v1/sandboxes/b", &[], b"").status(), 201);
    let open = "SELECT count(*) FROM sandboxes s JOIN gateways g ON g.id = s.owner WHERE s.ended_ms IS NULL";
    assert_eq!(server.sql("gateway", open), "1");
}

#[test]
fn a_row_that_somebody_holds_costs_its_own_session_and_no_other() {
    let Some(server) = Postgres::start() else { return };
    let gateway = one(&server).start();
    let [(mut held, _), (mut free, _), (mut also, _)] = ["a", "b", "c"].map(|id| Dialler::begin(&gateway, id));
    let mut others = ["a", "c"].map(|id| {
        let locking = format!("UPDATE sandboxes SET fence = fence WHERE id = $${id}$$ RETURNING pg_sleep(20)");
        server.hold("gateway", &locking)
    });
    wait_until("both rows are held", || {
        let free = "SELECT count(*) FROM (SELECT id FROM sandboxes WHERE id <> $$b$$ FOR UPDATE SKIP LOCKED) AS free";
        server.sql("gateway", free) == "0"
    });
    held.send_records(Class::Logs, 1..=1);
    // While the writer waits for that one, these come together.
    std::thread::sleep(Duration::from_millis(500));
    free.send_records(Class::Logs, 1..=1);
    also.send_records(Class::Logs, 1..=1);
    free.until_acknowledged(Class::Logs, 1);
    assert_eq!(held.close_code(), close::STORE);
    for other in &mut others {
        other.kill().expect("our own child");
        other.wait().expect("our own child");
    }
}

#[test]
fn faults_of_three_gateways_under_load_lose_and_double_no_record_and_no_end_of_a_task() {
    assert!(report(&torture::gateways::measure(10)));
}
