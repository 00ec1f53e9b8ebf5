use protocol::session::MAX_TEXT;
use tokio::io::{AsyncWriteExt, DuplexStream, duplex};

use super::*;

/// A client's frame with a mask of zeros; `first` is its first byte.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = match payload.len() {
        length @ 0..=125 => vec![0x80 | length as u8],
        length @ 126..=65_535 => [&[0xFE][..], &(length as u16).to_be_bytes()].concat(),
        length => [&[0xFF][..], &(length as u64).to_be_bytes()].concat(),
    };
    [&[first][..], &length, &[0; 4], payload].concat()
}

fn text(length: usize) -> Vec<u8> {
    frame(0x81, &vec![b'x'; length])
}

/// Each way to write a length, at its ends.
const LENGTHS: [usize; 9] = [5, READ + 1, 125, 126, 65_535, 65_536, MAX_TEXT, 0, 1];

/// Lengths of the texts that come until the peer ends; other messages are none.
async fn texts(wire: &mut Wire<DuplexStream>) -> Vec<usize> {
    let mut lengths = Vec::new();
    loop {
        match wire.event(true).await {
            Ok(Event::Text(text)) => lengths.push(text.len()),
            Ok(_) => {}
            Err(_) => return lengths,
        }
    }
}

#[tokio::test]
async fn messages_of_any_length_in_any_pieces_come_whole_and_in_order() {
    let fragments = [frame(0x01, &[b'a'; 900]), frame(0x89, b"ping"), frame(0x80, &[b'b'; 100])].concat();
    // What is in several frames comes last: behind it nothing is replaced any more.
    let all = [LENGTHS.map(text).concat(), fragments, text(7)].concat();
    for piece in [1, 7, 766, 4096, 70_000, all.len()] {
        let (ours, mut theirs) = duplex(64 * 1024);
        let all = all.clone();
        let peer = tokio::spawn(async move {
            for piece in all.chunks(piece) {
                theirs.write_all(piece).await.expect("it is read");
            }
            theirs.shutdown().await.expect("nobody else ends it");
            // Pongs go somewhere.
            theirs
        });
        let lengths = texts(&mut Wire::new(ours).await).await;
        assert_eq!(lengths, [&LENGTHS[..], &[1000, 7]].concat(), "in pieces of {piece}");
        peer.await.expect("it has written all");
    }
}

#[tokio::test]
async fn whoever_has_sent_or_got_a_long_message_has_the_room_of_a_short_one_afterwards() {
    let (ours, mut theirs) = duplex(256 * 1024);
    let mut wire = Wire::new(ours).await;
    theirs.write_all(&text(32 * 1024)).await.expect("there is room");
    assert!(matches!(wire.event(true).await, Ok(Event::Text(text)) if text.len() == 32 * 1024));
    assert!(wire.has_grown);
    theirs.write_all(&text(10)).await.expect("there is room");
    assert!(matches!(wire.event(true).await, Ok(Event::Text(text)) if text.len() == 10));
    assert!(!wire.has_grown, "it was replaced before the next message");
    wire.put(Message::text("x".repeat(READ + 1))).expect("there is room");
    assert!(matches!(wire.event(true).await, Ok(Event::Sent)));
    theirs.write_all(&text(11)).await.expect("there is room");
    assert!(matches!(wire.event(true).await, Ok(Event::Text(text)) if text.len() == 11));
    assert!(!wire.has_grown, "nor does what was sent keep its room");
}

#[tokio::test]
async fn what_is_half_read_stays_and_what_is_wholly_read_goes() {
    for length in LENGTHS {
        for part in 0..10 {
            let (ours, mut theirs) = duplex(2 * MAX_TEXT);
            let mut wire = Wire::new(ours).await;
            let next = text(50);
            theirs.write_all(&[&text(length)[..], &next[..part]].concat()).await.expect("there is room");
            assert!(matches!(wire.event(true).await, Ok(Event::Text(text)) if text.len() == length));
            wire.has_grown = true;
            assert!(wire.event(true).now_or_never().is_none(), "a part of the next one is no message");
            theirs.write_all(&next[part..]).await.expect("there is room");
            assert!(matches!(wire.event(true).await, Ok(Event::Text(text)) if text.len() == 50));
            assert!(wire.event(true).now_or_never().is_none());
            assert!(!wire.has_grown, "{length} bytes and 50 are all that was read");
        }
    }
}
