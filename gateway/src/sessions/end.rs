//! How a session ends.

use protocol::session::close;
use protocol::words::printable;

use crate::store::StoreError;

/// Why a session is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// We close it with this code; the text is for people.
    Close(u16, String),
    /// The supervisor ended it on purpose; `last` where no other of its boot will come.
    Bye {
        /// See above.
        last: bool,
    },
    /// The connection broke, or the peer closed it.
    Lost,
}

impl End {
    pub(super) fn close(code: u16, reason: impl Into<String>) -> End {
        End::Close(code, reason.into())
    }

    /// Another session has the sandbox.
    pub(super) fn fenced() -> End {
        End::close(close::FENCED, "a newer session of this agent has taken over")
    }

    /// Not a frame, or a frame where none of its kind may come.
    pub(super) fn malformed(reason: impl Into<String>) -> End {
        // It may quote what came.
        End::close(close::MALFORMED, printable(&reason.into()))
    }

    /// The word in metrics.
    pub(super) fn label(&self) -> String {
        match self {
            End::Close(code, _) => code.to_string(),
            End::Bye { .. } => "bye".into(),
            End::Lost => "lost".into(),
        }
    }

    /// For the log.
    pub(super) fn reason(&self) -> &str {
        match self {
            End::Close(_, reason) => reason,
            End::Bye { last: true } => "the supervisor ended it for good",
            End::Bye { last: false } => "the supervisor ended it",
            End::Lost => "the connection broke",
        }
    }

    /// Whether somebody should look at it.
    pub(super) fn is_trouble(&self) -> bool {
        matches!(self, End::Close(code, _) if *code != close::GOING_AWAY)
    }
}

impl From<StoreError> for End {
    fn from(error: StoreError) -> End {
        match error {
            StoreError::Closed => End::close(close::GOING_AWAY, "the gateway stops"),
            StoreError::Behind => {
                End::close(close::STORE, "the gateway's store has more to do than it can: dial again")
            }
            // What the database says is for our own log, where the writer puts it.
            _ => End::close(close::STORE, "the gateway cannot store now; what is not acknowledged is to be sent again"),
        }
    }
}
