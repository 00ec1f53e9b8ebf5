//! The words of an attached client (`GET /dev-tasks/{id}/attach`): one JSON object in one text message.
//!
//! Bytes are not words: a binary message from the client is input, one from the supervisor is output.

use serde::{Deserialize, Serialize};

use crate::task::{State, Terminal};

/// What a client asks. Each field by itself, or several at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ask {
    /// The terminal has another size.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "crate::object::optional")]
    pub resize: Option<Terminal>,
    /// No more input: standard input is closed; on a terminal it is what control-D is.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub eof: bool,
    /// Let go of the task, which runs on.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub detach: bool,
}

/// What the supervisor tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    /// The first word, before any output.
    Attached(Attached),
    /// What comes from here on is of this stream; standard output until this is said.
    Stream(Stream),
    /// These bytes of the stream are no longer kept. The next ones follow.
    Cut(Cut),
    /// The terminal was given this size.
    Resized(Terminal),
    /// What was asked was not done. The client stays attached.
    Refused(Refused),
    /// The last word, after all output: nobody of the task is left.
    Exited(Exited),
}

/// Where a client begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// Position of the first byte of standard output that will come, unless a cut is told before.
    pub cursor: u64,
    /// The same for standard error; a terminal has none.
    pub stderr_cursor: u64,
    /// Size of the terminal; null where the task has none.
    pub terminal: Option<Terminal>,
    /// Input of this client is refused.
    pub read_only: bool,
    /// Where the task is.
    pub state: State,
}

/// One of a task's streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// Standard output, and all that a terminal shows.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Bytes that are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    /// Of which stream.
    pub stream: Stream,
    /// The first.
    pub from: u64,
    /// The first that follows.
    pub to: u64,
}

/// What was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Which thing that was asked: `input`, `resize` or `eof`.
    pub what: String,
    /// Why.
    pub why: String,
}

/// How the task ended; as in the task's own answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exited {
    /// The end.
    pub state: State,
    /// Exit code of the program, where it ended by itself.
    pub exit_code: Option<i32>,
    /// Signal that ended it.
    pub signal: Option<i32>,
    /// Why, in words.
    pub reason: Option<String>,
}
