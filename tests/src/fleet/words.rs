//! What the fleet's processes say to each other: JSON, a line each, by standard input and output.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::tally::Produced;

/// What a process of agents is started with.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Share {
    /// Where to dial: the first, or all of them through a door of this process's own.
    pub(super) gateways: Vec<SocketAddr>,
    pub(super) door: bool,
    /// The number of its first sandbox.
    pub(super) first: usize,
    /// How many it has.
    pub(super) count: usize,
    /// In which they begin to dial, milliseconds.
    pub(super) window_ms: u64,
    /// Whom they believe, where they dial by TLS.
    pub(super) authority: Option<PathBuf>,
}

/// To a process of agents.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Order {
    /// From now on so many tasks a second.
    Work(f64),
    /// New connections go to these gateways, where there is a door.
    Before(Vec<SocketAddr>),
    /// Each sandbox keeps so many KiB of records; then it is said of each when the gateway has all that it produced.
    Fill(usize),
    /// No more tasks; say what was produced once the gateway has it, and end.
    Finish,
}

/// From one.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Word {
    /// How it stands.
    Now(Now),
    /// What this sandbox has produced, all of which the gateway has.
    Produced(String, Produced),
    /// The gateway does not take what this sandbox has produced.
    Waits(String),
}

/// Some or all sandboxes at a moment.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Now {
    /// In session.
    pub(super) connected: usize,
    /// Sessions that have begun, ever.
    pub(super) begun: u64,
    /// Dials of which none came, ever.
    pub(super) failed: u64,
    /// Beats that were sent, ever.
    pub(super) beats: u64,
    /// Tasks that have run.
    pub(super) tasks: u64,
    /// Those that have kept what they were told to.
    pub(super) filled: usize,
    /// Those of them of which the gateway has everything.
    pub(super) caught_up: usize,
    /// Those that came back since it was said last.
    pub(super) returns: Vec<Return>,
}

/// A sandbox is in session again, or for the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Return {
    /// When, by the clock that all processes share.
    pub(super) at_ns: u64,
    /// For how long it was not.
    pub(super) away_ns: u64,
}
