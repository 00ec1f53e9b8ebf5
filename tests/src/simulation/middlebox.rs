//! A box on the way that knows where frames of WebSocket begin, and loses, doubles or turns round some of them. What it passes on is
//! whole frames, so both ends still understand each other.

use std::collections::VecDeque;

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whim {
    /// It is lost.
    Lose,
    /// It comes twice.
    Double,
    /// It comes behind the next one.
    Overtake,
}

/// One direction.
#[derive(Default)]
pub(super) struct Frames {
    stage: Stage,
    /// The beginning of a frame.
    pending: Vec<u8>,
    /// Of the next frames.
    pub(super) whims: VecDeque<Whim>,
    /// A frame that the next one overtakes.
    held: Option<Vec<u8>>,
}

#[derive(Default, PartialEq, Eq)]
enum Stage {
    /// Of HTTP.
    #[default]
    Head,
    Frames,
    /// No WebSocket.
    Plain,
}

impl Frames {
    /// These bytes come in; what goes out.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        self.pending.extend_from_slice(bytes);
        let mut out = Vec::new();
        if self.stage == Stage::Head {
            let Some(end) = self.pending.windows(4).position(|four| four == b"\r\n\r\n") else { return out };
            let upgrades = self.pending.starts_with(b"GET ") || self.pending.starts_with(b"HTTP/1.1 101");
            self.stage = if upgrades { Stage::Frames } else { Stage::Plain };
            out.push(self.pending.drain(..end + 4).collect());
        }
        if self.stage == Stage::Plain && !self.pending.is_empty() {
            out.push(std::mem::take(&mut self.pending));
        }
        while self.stage == Stage::Frames
            && let Some(length) = length(&self.pending).filter(|length| *length <= self.pending.len())
        {
            let frame = self.pending.drain(..length).collect();
            self.pass(frame, &mut out);
        }
        out
    }

    fn pass(&mut self, frame: Vec<u8>, out: &mut Vec<Vec<u8>>) {
        let overtaken = self.held.take();
        match self.whims.pop_front() {
            Some(Whim::Lose) => {}
            Some(Whim::Double) => out.extend([frame.clone(), frame]),
            Some(Whim::Overtake) => self.held = Some(frame),
            None => out.push(frame),
        }
        out.extend(overtaken);
    }
}

/// How long the frame is that begins here (RFC 6455, 5.2), once that can be told.
fn length(bytes: &[u8]) -> Option<usize> {
    let second = *bytes.get(1)?;
    let mask = if second & 0x80 == 0 { 0 } else { 4 };
    let number = |end: usize| Some(bytes.get(2..end)?.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)));
    Some(match second & 0x7f {
        126 => 4 + mask + number(4)?,
        127 => 10 + mask + number(10)?,
        short => 2 + mask + usize::from(short),
    })
}
