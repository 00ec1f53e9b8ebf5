//! How many sessions may begin in a second (001-23).

use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use protocol::session::{FromSupervisor, Refusal};
use tests::control_plane::{Gateway, token_of};
use tests::dialler::{Dialler, hello};
use tests::wait::wait_until;

/// So many dial at once, where one may begin in a second.
const IDS: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];

#[test]
fn who_comes_shortly_before_its_place_waits_for_it_and_who_is_refused_is_admitted_at_its_reserved_time() {
    let gateway = Gateway::build().set("admission_rate", "1").start();
    let address = gateway.address;
    let begun = Instant::now();
    let dials = IDS.map(|id| thread::spawn(move || (id, dial(address, id), begun.elapsed())));
    let (mut admitted, mut refused) = (Vec::new(), Vec::new());
    for dial in dials {
        let (id, answer, at) = dial.join().expect("an answer");
        match answer {
            Ok(session) => admitted.push((at, session)),
            Err(refusal) => refused.push((Duration::from_millis(refusal.reconnect_in_ms), at, id)),
        }
    }
    admitted.sort_by_key(|(at, _)| *at);
    refused.sort();
    println!("{:?} admitted, {refused:?} refused", admitted.iter().map(|(at, _)| at).collect::<Vec<_>>());
    // The first at once, and those whose places are within two seconds.
    assert!(admitted.len() >= 2 && refused.len() >= 2, "{refused:?}");
    for (place, (at, _)) in (0..).zip(&admitted) {
        assert!(*at >= Duration::from_secs(place), "{place} was admitted after {at:?}");
    }
    // Places of those who have gone are kept for them, and nobody has two.
    for pair in refused.windows(2) {
        let ((first, at, _), (second, then, _)) = (pair[0], pair[1]);
        assert!((at + first).abs_diff(then + second) > Duration::from_millis(500), "{refused:?}");
    }
    let (wait, at, id) = refused[0];
    thread::sleep((at + wait).saturating_sub(begun.elapsed()));
    let mut session = dial(address, id).expect("its place is kept");
    session.send(&FromSupervisor::Hello(Box::new(hello(id))));
    session.receive_until(|_| Some(()));
}

#[test]
fn who_waits_for_its_place_is_refused_when_the_gateway_stops() {
    let mut gateway = Gateway::build().set("admission_rate", "1").start();
    let address = gateway.address;
    let (session, _) = Dialler::begin(&gateway, "a");
    let dials = ["b", "c", "d", "e"].map(|id| thread::spawn(move || dial(address, id)));
    // The last of them has a place beyond what is waited for, and is answered.
    wait_until("the others wait", || gateway.metric("gateway_dials_refused_total{reason=\"rate\"}") >= 1.0);
    gateway.signal(Signal::SIGTERM);
    let answers = dials.map(|dial| dial.join().expect("an answer").map(|_| ()));
    let stopping = answers.iter().filter(|answer| answer.as_ref().is_err_and(|told| told.reason.contains("stopping")));
    assert!(stopping.count() >= 1, "{answers:?}");
    drop(session);
    assert_eq!(gateway.wait(), 0);
}

/// Its session, or what it was told.
fn dial(gateway: std::net::SocketAddr, id: &str) -> Result<Dialler, Refusal> {
    Dialler::upgrade(gateway, &token_of(id)).expect("an answer").map_err(|refused| {
        assert_eq!(refused.status, 503);
        assert!(refused.head.to_ascii_lowercase().contains("retry-after: "), "{}", refused.head);
        let refusal: Refusal = serde_json::from_str(&refused.body).expect("a refusal");
        assert!(refusal.window_ms.is_some_and(|window| window >= 250), "{refusal:?}");
        refusal
    })
}
