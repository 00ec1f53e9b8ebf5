//! Bytes on the WebSocket of a session, as a hostile client sends them.

use protocol::session::MAX_TEXT;

use super::at_once;
use super::peer::Peer;
use crate::Target;

pub(crate) const TARGET: Target = Target { name: "messages", longest: 4096, run, seeds };

fn run(data: &[u8]) {
    let lengths = at_once(gateway::untrusted::messages(Peer::new(data)));
    let most = MAX_TEXT.min(data.len());
    assert!(lengths.iter().all(|length| *length <= most), "more came out than went in");
}

fn seeds() -> Vec<Vec<u8>> {
    vec![
        // A text in two parts with a ping between, masked with zeros (RFC 6455, 5.2).
        vec![0x01, 0x82, 0, 0, 0, 0, b'h', b'i', 0x89, 0x80, 0, 0, 0, 0, 0x80, 0x81, 0, 0, 0, 0, b'!'],
        vec![0x82, 0xfe, 0, 126, 1, 2, 3, 4],
        vec![0x82, 0xff, 0, 0, 0, 0, 0, 1, 0, 0, 1, 2, 3, 4],
        vec![0x88, 0x82, 0, 0, 0, 0, 3, 0xe8],
    ]
}
