//! How many sessions may begin in a second.

use std::time::{Duration, Instant};

use protocol::session::FromSupervisor;
use protocol::session::Refusal;
use tests::control_plane::{Gateway, token_of};
use tests::dialler::{Dialler, hello};

#[test]
fn whoever_is_refused_is_admitted_at_its_reserved_time() {
    let gateway = Gateway::build().set("admission_rate", "1").start();
    let (_first, welcome) = Dialler::begin(&gateway, "a");
    assert!(welcome.pace.window_ms.is_some_and(|window| window >= 250), "{welcome:?}");
    let refused = Dialler::upgrade(gateway.address, &token_of("b")).expect("an answer").err().expect("refused");
    let dialled = Instant::now();
    assert_eq!(refused.status, 503);
    assert!(refused.head.to_ascii_lowercase().contains("retry-after: "), "{}", refused.head);
    let refusal: Refusal = serde_json::from_str(&refused.body).expect("a refusal");
    assert!(refusal.window_ms.is_some());
    // Somebody else who comes meanwhile does not take that place.
    let other = Dialler::upgrade(gateway.address, &token_of("c")).expect("an answer").err().expect("refused");
    let other: Refusal = serde_json::from_str(&other.body).expect("a refusal");
    assert!(other.reconnect_in_ms > refusal.reconnect_in_ms);
    let at = Duration::from_millis(refusal.reconnect_in_ms);
    std::thread::sleep(at.saturating_sub(dialled.elapsed()));
    let mut session = Dialler::upgrade(gateway.address, &token_of("b")).expect("an answer").expect("admitted");
    session.send(&FromSupervisor::Hello(Box::new(hello("b"))));
    session.receive_until(|_| Some(()));
}
