//! Stopping: goodbyes, nothing lost, one deadline.

use nix::sys::signal::Signal;
use protocol::session::{Class, FromGateway, close};
use tests::control_plane::{Gateway, token_of};
use tests::dialler::{Dialler, Received};
use tests::wait::wait_until;

#[test]
fn a_stop_says_goodbye_with_a_reserved_time_and_ends_with_0() {
    let mut gateway = Gateway::start();
    let (mut session, _) = Dialler::begin(&gateway, "a");
    session.send_records(Class::Logs, 1..=9);
    gateway.signal(Signal::SIGTERM);
    let mut goaway = None;
    let mut acknowledged = 0;
    while goaway.is_none() || acknowledged < 9 {
        session.receive_until(|frame| {
            match frame {
                FromGateway::Goaway { reconnect_in_ms, .. } => goaway = Some(reconnect_in_ms),
                FromGateway::Ack { acks, .. } => acknowledged = acks[&Class::Logs],
                _ => {}
            }
            Some(())
        });
    }
    assert_eq!(gateway.api().with_token(None).get("/readyz").status(), 503);
    let refused = Dialler::upgrade(gateway.address, &token_of("b")).expect("an answer").err().expect("refused");
    assert_eq!(refused.status, 503);
    assert!(refused.body.contains("reconnect_in_ms"), "{}", refused.body);
    drop(session);
    assert_eq!(gateway.wait(), 0);
    gateway.start_again();
    assert_eq!(gateway.events("a").len(), 9);
    assert_eq!(gateway.api().get("/v1/sandboxes/a").json()["status"], "disconnected");
}

#[test]
fn who_does_not_go_is_closed_within_the_grace() {
    let mut gateway = Gateway::build().set("grace", "5s").start();
    let (mut session, _) = Dialler::begin(&gateway, "a");
    gateway.signal(Signal::SIGTERM);
    assert_eq!(session.close_code(), close::GOING_AWAY);
    assert_eq!(gateway.wait(), 0);
}

#[test]
fn a_second_signal_shortens_it() {
    let mut gateway = Gateway::build().set("grace", "1h").start();
    let (session, _) = Dialler::begin(&gateway, "a");
    gateway.signal(Signal::SIGTERM);
    wait_until("it drains", || gateway.api().with_token(None).get("/readyz").status() == 503);
    gateway.signal(Signal::SIGTERM);
    assert_eq!(gateway.wait(), 0);
    drop(session);
}

#[test]
fn a_gateway_that_was_stopped_for_a_while_calls_nobody_late() {
    // Silence ends a session after 5.15 s. It is stopped for 8 s, of which it may count 2, and silent for 2 beside that.
    let gateway = Gateway::build().set("beat", "100ms").start();
    let (mut session, _) = Dialler::begin(&gateway, "a");
    for awake_ms in [500, 1500] {
        gateway.signal(Signal::SIGSTOP);
        std::thread::sleep(std::time::Duration::from_secs(4));
        gateway.signal(Signal::SIGCONT);
        std::thread::sleep(std::time::Duration::from_millis(awake_ms));
    }
    session.send_records(Class::Logs, 1..=1);
    loop {
        match session.receive() {
            Received::Frame(FromGateway::Ack { .. }) => break,
            Received::Frame(_) => {}
            other => panic!("{other:?}"),
        }
    }
}
