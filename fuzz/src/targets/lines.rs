//! What the agent writes, in any pieces, as the lines that go to the gateway. An input says how often it is written, so that its lines
//! become too long, and in pieces of how many bytes.

use supervisor::untrusted::{self, LONGEST_LINE, Told};

use crate::Target;

pub(crate) const TARGET: Target = Target { name: "lines", longest: 2048, run, seeds };

/// Written, however often that is: a line in two pieces that are full, and more.
const MOST: usize = 2 * LONGEST_LINE + 2048;

fn run(data: &[u8]) {
    let [times, piece, text @ ..] = data else { return };
    let mut written = text.repeat(1 << (times % 8));
    written.truncate(MOST);
    let (told, left) = untrusted::lines(written.chunks(64 * usize::from(*piece) + 1));
    let mut rest = &written[..];
    for Told { bytes, more, body } in &told {
        rest = rest.strip_prefix(&bytes[..]).expect("what is told was written, once and in order");
        if *more {
            assert!(bytes.len() > LONGEST_LINE - 4, "a line in pieces that is not too long");
        } else {
            rest = rest.strip_prefix(b"\n").expect("a line ends where it ended");
        }
        assert!(bytes.len() <= LONGEST_LINE);
        assert_eq!(body["lossy"] == true, std::str::from_utf8(bytes).is_err());
        assert_eq!(body["cut"] == true, *more);
    }
    assert_eq!(rest.len(), left, "it is neither told nor kept");
    let is_text = std::str::from_utf8(&written).is_ok();
    assert!(!is_text || told.iter().all(|told| told.body["lossy"] != true), "a line was cut inside a character");
}

fn seeds() -> Vec<Vec<u8>> {
    let of = |times: u8, piece: u8, text: &[u8]| [&[times, piece][..], text].concat();
    vec![
        of(0, 255, b"one\ntwo\r\nthree"),
        of(7, 3, "a line of many letters, ä and 🦀, which has no end when it is written often; ".repeat(4).as_bytes()),
        of(6, 0, "aä€🦀".repeat(30).as_bytes()),
        of(7, 9, &[b'x', 0x80, 0x80, 0x80, 0x80, 0xf0].repeat(50)),
    ]
}
