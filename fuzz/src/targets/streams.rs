//! Streams in a session: binary messages of a hostile peer, between reads and writes of ours.

use protocol::session::mux::{Mux, Read, Side};

use crate::Target;

pub(crate) const TARGET: Target = Target { name: "streams", longest: 4096, run, seeds };

/// As many as one side may hold of what the other sends and nobody reads, and some for the room that is given back.
const MOST: usize = 4 * 1024 * 1024;

fn run(data: &[u8]) {
    let Some((side, mut rest)) = data.split_first() else { return };
    let mut mux = Mux::new(if side % 2 == 0 { Side::Gateway } else { Side::Supervisor });
    let mut received = 0;
    while let [what, length, more @ ..] = rest {
        let (piece, after) = more.split_at(usize::from(*length).min(more.len()));
        rest = after;
        let id = u32::from(what / 8);
        match what % 8 {
            0..=3 => match mux.receive(piece) {
                Ok(_) => received += piece.len(),
                Err(_) => return,
            },
            4 => drop(mux.open()),
            5 => drop(mux.write(id, piece)),
            6 => {
                let mut into = [0; 64];
                if let Read::Bytes(count) = mux.read(id, &mut into) {
                    assert!(count <= received, "more was read than came");
                }
            }
            _ => {
                mux.close(id);
                mux.forget(id);
            }
        }
        // What waits for the wire is bounded by what came and what we wrote.
        let mut waiting = 0;
        while let Some((message, _)) = mux.next_message() {
            waiting += message.len();
            assert!(waiting <= MOST);
        }
    }
}

fn seeds() -> Vec<Vec<u8>> {
    use protocol::session::stream::{Frame, Part};
    let frames = [Part::Open, Part::Data(b"hello".to_vec()), Part::Credit(10), Part::Close, Part::Reset("gone".into())];
    let mut inputs = Vec::new();
    for side in [0, 1] {
        let mut input = vec![side, 4, 0];
        for part in &frames {
            let message = Frame { stream: 1, part: part.clone() }.encode();
            input.extend([0, message.len() as u8]);
            input.extend(message);
            input.extend([8 + 6, 0, 8 + 5, 2, b'h', b'i']);
        }
        inputs.push(input);
    }
    inputs
}
