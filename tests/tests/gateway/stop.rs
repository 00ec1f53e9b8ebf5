//! Stopping: goodbyes, nothing lost, one deadline (001-6, 001-23).

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use protocol::session::{Class, FromGateway, FromSupervisor, Offline, OfflineAction, close};
use tests::control_plane::{Gateway, token_of};
use tests::dialler::{Dialler, Received, hello};
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

/// Found by reading: it was closed at the end of the grace, as one that does not go.
#[test]
fn a_session_that_was_about_to_begin_is_said_goodbye_to_as_well() {
    let mut gateway = Gateway::start();
    let mut session = Dialler::dial(&gateway, "a");
    gateway.signal(Signal::SIGTERM);
    wait_until("it stops", || gateway.api().with_token(None).get("/readyz").status() == 503);
    session.send(&FromSupervisor::Hello(Box::new(hello("a"))));
    session.receive_until(|frame| matches!(frame, FromGateway::Goaway { .. }).then_some(()));
    drop(session);
    assert_eq!(gateway.wait(), 0);
}

#[test]
fn goodbyes_have_space_between_them_and_so_have_the_times_that_they_reserve() {
    // Of five.
    const STEP: Duration = Duration::from_millis(500);
    let gateway = Gateway::build().set("admission_rate", "4").start();
    let mut window = Duration::ZERO;
    let sessions = ["a", "b", "c", "d", "e"].map(|id| {
        let (session, welcome) = Dialler::begin(&gateway, id);
        window = Duration::from_millis(welcome.pace.window_ms.expect("it is told"));
        session
    });
    let begun = Instant::now();
    gateway.signal(Signal::SIGTERM);
    let told = sessions.map(|mut session| {
        std::thread::spawn(move || {
            let reserved = session.receive_until(|frame| match frame {
                FromGateway::Goaway { reconnect_in_ms, .. } => Some(reconnect_in_ms),
                _ => None,
            });
            let at = begun.elapsed();
            // Whoever has gone makes no difference to the others.
            drop(session);
            (at, Duration::from_millis(reserved))
        })
    });
    let told = told.map(|session| session.join().expect("it is told"));
    let (mut goodbyes, mut reserved): (Vec<_>, Vec<_>) = told.into_iter().unzip();
    // They may be seen late, and never early.
    goodbyes.sort();
    for (place, at) in (0..).zip(&goodbyes) {
        assert!(*at >= STEP * place, "{goodbyes:?}");
    }
    // Whoever is told later waits less, as the window is shorter than the goodbyes take.
    assert!(window / 5 < STEP, "{window:?}");
    reserved.sort_by_key(|reserved| std::cmp::Reverse(*reserved));
    let dials: Vec<Duration> = (0..).zip(&reserved).map(|(place, reserved)| STEP * place + *reserved).collect();
    // Nobody dials before the last goodbye, and each has its own fifth of the window.
    assert!(dials[0] > STEP * 4, "{dials:?}");
    for pair in dials.windows(2) {
        assert!(pair[1] - pair[0] > window / 10, "{dials:?} in {window:?}");
    }
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
        std::thread::sleep(Duration::from_secs(4));
        gateway.signal(Signal::SIGCONT);
        std::thread::sleep(Duration::from_millis(awake_ms));
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

#[test]
fn a_sandbox_that_is_away_expires_by_the_time_that_the_gateway_was_awake() {
    let mut gateway = Gateway::start();
    let mut hello = hello("a");
    hello.offline = Some(Offline { after_ms: 4_000, action: OfflineAction::Keep });
    drop(Dialler::begin_with(&gateway, hello));
    let status = |gateway: &Gateway| gateway.api().get("/v1/sandboxes/a").json()["status"].clone();
    wait_until("it is away", || status(&gateway) == "disconnected");
    // Longer than Y while the gateway is stopped, and again while there is none.
    gateway.signal(Signal::SIGSTOP);
    std::thread::sleep(Duration::from_secs(5));
    gateway.signal(Signal::SIGCONT);
    let awake = Instant::now();
    assert_eq!(status(&gateway), "disconnected");
    gateway.kill();
    std::thread::sleep(Duration::from_secs(5));
    gateway.start_again();
    assert_eq!(status(&gateway), "disconnected");
    wait_until("it was away for Y of awake time", || status(&gateway) == "expired");
    assert!(awake.elapsed() > Duration::from_secs(7), "{:?}", awake.elapsed());
}
