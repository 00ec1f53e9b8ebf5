//! Why a session ended: the word for it, the close code, and what it means for the next dial.

use std::time::Duration;

use protocol::session::{COMMANDS, close};

use super::reconnect::Why;
use crate::buffer::BufferError;

/// From the hello to the welcome.
pub(super) const WELCOME: Duration = Duration::from_secs(10);

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    #[error("the supervisor stops")]
    Stopped,
    #[error("the connection broke: {0}")]
    Broken(String),
    #[error("the gateway closed it with {code}")]
    Closed { code: u16 },
    #[error("the gateway goes away")]
    Goaway { again: Duration },
    #[error("the gateway sent no welcome within {}s", WELCOME.as_secs())]
    NoWelcome,
    #[error("the gateway was silent for {}ms", .0.as_millis())]
    Silent(Duration),
    #[error("the gateway takes nothing")]
    Stalled,
    #[error("a message of the gateway is no frame of this protocol")]
    Malformed,
    #[error("a message of the gateway is too long")]
    TooLarge,
    #[error("the gateway has more than {COMMANDS} commands under way")]
    Commands,
    #[error("{0}: something on the way loses or changes messages")]
    Missed(&'static str),
    #[error("the gateway speaks protocol {0}, which this supervisor does not")]
    Protocol(u32),
    #[error("the buffer cannot be read: {0}")]
    Buffer(BufferError),
    #[error("the boot clock cannot be read: {0}")]
    Clock(std::io::Error),
}

impl End {
    /// The gateway asks to be dialled again after so long.
    pub(super) fn goaway(reconnect_in_ms: u64) -> End {
        End::Goaway { again: Duration::from_millis(reconnect_in_ms) }
    }

    /// The word in metrics and logs.
    pub(super) fn name(&self) -> &'static str {
        match self {
            End::Stopped => "stopped",
            End::Broken(_) => "broken",
            End::Closed { code: close::UNAUTHENTICATED | close::FORBIDDEN } => "denied",
            End::Closed { code: close::FENCED } => "fenced",
            End::Closed { .. } => "closed",
            End::Goaway { .. } => "goaway",
            End::NoWelcome => "no-welcome",
            End::Silent(_) => "silent",
            End::Stalled => "stalled",
            End::Malformed => "malformed",
            End::TooLarge => "too-large",
            End::Commands => "commands",
            End::Missed(_) => "missed",
            End::Protocol(_) => "protocol",
            End::Buffer(_) => "buffer",
            End::Clock(_) => "clock",
        }
    }

    /// What it means for the next dial, after a session of this length.
    pub(super) fn why(&self, lasted: Duration) -> Why {
        match self {
            End::Goaway { again } => Why::Reserved(*again),
            End::Protocol(_)
            | End::Closed { code: close::UNAUTHENTICATED | close::FORBIDDEN | close::FENCED | close::PROTOCOL } => {
                Why::Refused
            }
            _ => Why::Lost(lasted),
        }
    }

    /// How to close, where the connection still stands.
    pub(super) fn code(&self) -> Option<u16> {
        match self {
            End::Broken(_) | End::Closed { .. } | End::Stalled => None,
            End::Stopped | End::Goaway { .. } | End::Buffer(_) | End::Clock(_) => Some(1000),
            End::NoWelcome | End::Silent(_) => Some(close::TIMEOUT),
            End::Malformed | End::Commands | End::Missed(_) => Some(close::MALFORMED),
            End::TooLarge => Some(close::TOO_LARGE),
            End::Protocol(_) => Some(close::PROTOCOL),
        }
    }
}
