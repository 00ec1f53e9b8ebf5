//! kill -9 of the gateway in the middle of a stream of records.

use protocol::session::{Class, FromGateway};
use tests::bench::report;
use tests::control_plane::Gateway;
use tests::dialler::{Dialler, Received, hello};
use tests::torture;

/// Records of one frame.
const FRAME: i64 = 20;
/// Frames that may be under way.
const AHEAD: i64 = 8;

/// Send from `next` on until the connection breaks or `most` is acknowledged; the newest acknowledged.
fn stream(gateway: &Gateway, most: i64, kill_at: Option<i64>) -> i64 {
    let (mut session, welcome) = Dialler::begin_with(gateway, hello("a"));
    let mut next = welcome.next.get(&Class::Lifecycle).copied().unwrap_or(1);
    let (mut acknowledged, first) = (next - 1, next);
    while acknowledged < most {
        while next - acknowledged <= FRAME * AHEAD && next <= most {
            session.send_records(Class::Lifecycle, next..=next + FRAME - 1);
            next += FRAME;
            if kill_at.is_some_and(|after| next >= first + after) {
                // With frames on the wire, in the writer and on their way to the disk.
                let _ = nix::sys::signal::kill(gateway.pid(), nix::sys::signal::Signal::SIGKILL);
            }
        }
        match session.receive() {
            Received::Frame(FromGateway::Ack { acks, .. }) => {
                acknowledged = acks.get(&Class::Lifecycle).copied().unwrap_or(acknowledged);
            }
            Received::Frame(_) | Received::Binary(_) => {}
            Received::Closed(_) | Received::Lost => break,
        }
    }
    acknowledged
}

#[test]
fn kill_9_in_the_middle_of_a_stream_loses_and_doubles_nothing() {
    kill_in_the_middle_of_streams(Gateway::start());
}

/// Whatever the store is.
pub(super) fn kill_in_the_middle_of_streams(mut gateway: Gateway) {
    let mut acknowledged = 0;
    for round in 1..=10 {
        acknowledged = stream(&gateway, i64::MAX - FRAME, Some(round * 37)).max(acknowledged);
        gateway.wait();
        gateway.start_again();
        let stored = gateway.events("a").len() as i64;
        assert!(stored >= acknowledged, "round {round}: {acknowledged} acknowledged, {stored} stored");
    }
    let (_, welcome) = Dialler::begin_with(&gateway, hello("a"));
    let most = welcome.next.get(&Class::Lifecycle).copied().unwrap_or(1) - 1 + 10 * FRAME;
    assert_eq!(stream(&gateway, most, None), most);
    let seqs: Vec<i64> = gateway.events("a").iter().filter_map(|event| event["seq"].as_i64()).collect();
    assert_eq!(seqs, (1..=most).collect::<Vec<_>>());
}

#[test]
fn kill_9_of_supervisors_and_gateway_under_load_loses_and_doubles_no_record_and_no_end_of_a_task() {
    assert!(report(&torture::kills::measure(4)));
}
