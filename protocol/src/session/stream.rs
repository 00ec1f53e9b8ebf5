//! Bulk bytes inside a session: binary messages.
//!
//! A stream is what a TCP connection would be between gateway and supervisor: the gateway opens it, speaks HTTP/1.1
//! on it, and the supervisor's own HTTP server answers. So everything that the dev-task API can do, upgrades included,
//! works without an inbound port.
//!
//! ```text
//! offset  size
//! 0       1     kind
//! 1       4     stream, u32 little-endian; chosen by the gateway, never used twice in a session
//! 5       …     payload, at most 16 KiB
//! ```
//!
//! Each side may send as many bytes of data as the other has given it credit for: [`INITIAL_CREDIT`] at the start,
//! more by `credit`. Control frames and records go before data.

/// The longest payload.
pub const MAX_PAYLOAD: usize = 16 * 1024;
/// The longest message: kind, stream, payload.
pub const MAX_MESSAGE: usize = 5 + MAX_PAYLOAD;
/// Bytes that may be sent in each direction before any `credit`.
pub const INITIAL_CREDIT: u32 = 256 * 1024;
/// Streams at once; opening one more is answered with a reset.
pub const MAX_STREAMS: usize = 64;

/// One binary message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Which stream.
    pub stream: u32,
    /// What.
    pub part: Part,
}

/// What a binary message does to its stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// The gateway opens the stream.
    Open,
    /// Bytes, in order.
    Data(Vec<u8>),
    /// The sender takes so many bytes more.
    Credit(u32),
    /// The sender will send no more data; the other direction goes on.
    Close,
    /// The stream is over in both directions; the reason is for people.
    Reset(String),
}

/// A binary message that is not a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Shorter than its head.
    #[error("a binary message is shorter than its head")]
    Short,
    /// Longer than [`MAX_MESSAGE`].
    #[error("a binary message is longer than {MAX_MESSAGE} bytes")]
    Long,
    /// A credit that is not 4 bytes.
    #[error("a credit is not 4 bytes")]
    Credit,
    /// Only the gateway opens streams.
    #[error("the supervisor opens no streams")]
    Open,
    /// More answers to what it sent are due than the peer reads.
    #[error("more is asked than is read of the answers")]
    Flood,
    /// A kind that this protocol does not have.
    #[error("kind {0} is not known")]
    Kind(u8),
}

impl Frame {
    /// A message. Data longer than [`MAX_PAYLOAD`] is the caller's bug and is refused by the peer.
    pub fn encode(&self) -> Vec<u8> {
        let (kind, payload): (u8, &[u8]) = match &self.part {
            Part::Open => (1, &[]),
            Part::Data(bytes) => (2, bytes),
            Part::Credit(bytes) => (3, &bytes.to_le_bytes()),
            Part::Close => (4, &[]),
            Part::Reset(reason) => (5, reason.as_bytes()),
        };
        let mut message = Vec::with_capacity(5 + payload.len());
        message.push(kind);
        message.extend_from_slice(&self.stream.to_le_bytes());
        message.extend_from_slice(payload);
        message
    }

    /// The frame of a message.
    pub fn decode(message: &[u8]) -> Result<Frame, Malformed> {
        let (&kind, rest) = message.split_first().ok_or(Malformed::Short)?;
        let (stream, payload) = rest.split_first_chunk::<4>().ok_or(Malformed::Short)?;
        if payload.len() > MAX_PAYLOAD {
            return Err(Malformed::Long);
        }
        let part = match kind {
            1 => Part::Open,
            2 => Part::Data(payload.to_vec()),
            3 => Part::Credit(u32::from_le_bytes(payload.try_into().map_err(|_| Malformed::Credit)?)),
            4 => Part::Close,
            5 => Part::Reset(String::from_utf8_lossy(payload).into_owned()),
            kind => return Err(Malformed::Kind(kind)),
        };
        Ok(Frame { stream: u32::from_le_bytes(*stream), part })
    }
}
