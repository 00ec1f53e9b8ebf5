//! Commands: numbered in the store, sent in order, applied once.

use protocol::session::{COMMANDS, Command, FromGateway, FromSupervisor, Outcome, Sum, Sums, close, encode};
use serde_json::json;
use tests::control_plane::Gateway;
use tests::dialler::{Dialler, Received, hello};
use tests::wait::wait_until;

fn next_command(session: &mut Dialler) -> Command {
    session.receive_until(|frame| match frame {
        FromGateway::Command(command) => Some(*command),
        _ => None,
    })
}

fn applied(n: i64) -> FromSupervisor {
    let outcome = Outcome { n, ok: true, reason: String::new(), body: json!({"task_id": "t"}) };
    FromSupervisor::Applied { n, after: None, outcomes: vec![outcome] }
}

#[test]
fn a_command_is_sent_once_and_its_outcome_is_kept() {
    let gateway = Gateway::start();
    let (mut session, _) = Dialler::begin(&gateway, "a");
    let given = gateway.api().post("/v1/sandboxes/a/commands", r#"{"do":"task.create","body":{"argv":["true"]}}"#);
    assert_eq!((given.status(), given.header("location")), (202, "/v1/sandboxes/a/commands/1"));
    let command = next_command(&mut session);
    assert_eq!((command.n, command.verb.as_str(), command.body), (1, "task.create", json!({"argv": ["true"]})));
    let shown = || gateway.api().get("/v1/sandboxes/a/commands/1").json();
    assert_eq!(shown()["status"], "waiting");
    session.send(&applied(1));
    wait_until("its outcome is stored", || shown()["outcome"]["body"]["task_id"] == "t");
    assert_eq!(shown()["status"], "applied");
    let mut again = hello("a");
    again.applied = 1;
    let (mut session, _) = Dialler::begin_with(&gateway, again);
    gateway.api().post("/v1/sandboxes/a/commands", r#"{"do":"drain"}"#);
    assert_eq!(next_command(&mut session).n, 2, "the first does not come again");
}

#[test]
fn commands_wait_for_a_sandbox_that_is_away_and_come_in_order() {
    let gateway = Gateway::start();
    drop(Dialler::begin(&gateway, "a"));
    for _ in 0..40 {
        assert_eq!(gateway.api().post("/v1/sandboxes/a/commands", r#"{"do":"drain"}"#).status(), 202);
    }
    let (mut session, _) = Dialler::begin(&gateway, "a");
    let came: Vec<i64> = (0..COMMANDS).map(|_| next_command(&mut session).n).collect();
    assert_eq!(came, (1..=COMMANDS as i64).collect::<Vec<_>>());
    drop(session);
    // Not applied, so they come again.
    let (mut session, _) = Dialler::begin(&gateway, "a");
    for n in 1..=40 {
        assert_eq!(next_command(&mut session).n, n);
        session.send(&applied(n));
    }
}

#[test]
fn no_more_commands_are_under_way_than_a_supervisor_takes() {
    let gateway = Gateway::start();
    let (mut session, _) = Dialler::begin(&gateway, "a");
    for _ in 0..40 {
        gateway.api().post("/v1/sandboxes/a/commands", r#"{"do":"drain"}"#);
    }
    for n in 1..=COMMANDS as i64 {
        assert_eq!(next_command(&mut session).n, n);
    }
    // What comes next answers this, so no further command was on its way.
    session.send(&FromSupervisor::Beat { n: 1, d: "0".into() });
    assert!(matches!(session.receive(), Received::Frame(FromGateway::Beat { n: 1, .. })));
    session.send(&applied(3));
    for n in 1..=3 {
        assert_eq!(next_command(&mut session).n, COMMANDS as i64 + n);
    }
}

#[test]
fn an_outcome_is_acknowledged_once_it_is_stored() {
    let gateway = Gateway::start();
    let (mut session, _) = Dialler::begin(&gateway, "a");
    gateway.api().post("/v1/sandboxes/a/commands", r#"{"do":"drain"}"#);
    next_command(&mut session);
    session.send(&applied(1));
    let stored = session.receive_until(|frame| match frame {
        FromGateway::Ack { applied, .. } => applied,
        _ => None,
    });
    assert_eq!(stored, 1);
    assert_eq!(gateway.api().get("/v1/sandboxes/a/commands/1").json()["status"], "applied");
}

#[test]
fn outcomes_that_do_not_follow_what_was_told_are_told_again_in_another_session() {
    let gateway = Gateway::start();
    let (mut session, _) = Dialler::begin(&gateway, "a");
    let told = |n, after| match applied(n) {
        FromSupervisor::Applied { n, outcomes, .. } => FromSupervisor::Applied { n, after: Some(after), outcomes },
        other => other,
    };
    for _ in 0..3 {
        gateway.api().post("/v1/sandboxes/a/commands", r#"{"do":"drain"}"#);
        next_command(&mut session);
    }
    session.send(&told(1, 0));
    // It comes twice.
    session.send(&told(1, 0));
    // The second was lost on the way.
    session.send(&told(3, 2));
    assert_eq!(session.close_code(), close::SEQUENCE);
    let shown = |n: i64| gateway.api().get(&format!("/v1/sandboxes/a/commands/{n}")).json();
    assert_eq!((&shown(1)["status"], &shown(3)["status"]), (&json!("applied"), &json!("waiting")));
    let mut again = hello("a");
    again.applied = 3;
    let (mut session, _) = Dialler::begin_with(&gateway, again);
    session.send(&told(3, 0));
    wait_until("its outcome is stored", || shown(3)["outcome"]["body"]["task_id"] == "t");
}

#[test]
fn an_answer_to_a_beat_has_the_sums_of_all_messages_each_way() {
    let gateway = Gateway::start();
    let (mut session, welcome) = Dialler::begin(&gateway, "a");
    let (mut received, mut sent) = (Sum::default(), Sum::default());
    received.add(encode(&FromSupervisor::Hello(Box::new(hello("a")))).as_bytes());
    sent.add(encode(&FromGateway::Welcome(Box::new(welcome))).as_bytes());
    for n in 1..=3 {
        let beat = FromSupervisor::Beat { n, d: "0".into() };
        session.send(&beat);
        let answer = session.receive_until(|frame| matches!(frame, FromGateway::Beat { .. }).then_some(frame));
        let FromGateway::Beat { sums, .. } = &answer else { panic!("{answer:?}") };
        assert_eq!(*sums, Some(Sums { received, sent }));
        received.add(encode(&beat).as_bytes());
        sent.add(encode(&answer).as_bytes());
    }
}

#[test]
fn a_store_that_has_lost_its_commands_uses_no_number_twice() {
    let gateway = Gateway::start();
    let mut ahead = hello("a");
    ahead.applied = 7;
    let (mut session, _) = Dialler::begin_with(&gateway, ahead);
    gateway.api().post("/v1/sandboxes/a/commands", r#"{"do":"drain"}"#);
    assert_eq!(next_command(&mut session).n, 8);
}

/// Found by reading: such a command was shown as applied.
#[test]
fn a_command_under_a_number_that_was_used_before_the_store_was_restored_says_that_it_never_ran() {
    let gateway = Gateway::start();
    drop(Dialler::begin(&gateway, "a"));
    gateway.api().post("/v1/sandboxes/a/commands", r#"{"do":"drain"}"#);
    let mut ahead = hello("a");
    ahead.applied = 7;
    let (mut session, _) = Dialler::begin_with(&gateway, ahead);
    let outcome = &gateway.api().get("/v1/sandboxes/a/commands/1").json()["outcome"];
    assert_eq!(outcome["ok"], false, "{outcome}");
    gateway.api().post("/v1/sandboxes/a/commands", r#"{"do":"drain"}"#);
    assert_eq!(next_command(&mut session).n, 8);
}
