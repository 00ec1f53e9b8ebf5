//! What the agent's run was doing, written at each change of state, so that the next start can say how it ended.
//!
//! When the whole container is killed (an out-of-memory kill takes every process where `memory.oom.group` is set),
//! nobody is left to report. The record then still says `running`: the run was lost with the container.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Durability, StateDir, StateError};
use crate::exit;

const LIMIT: u64 = 64 * 1024;

/// The states that decide how a silent end is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunState {
    /// Being launched.
    Starting,
    /// The program runs.
    Running,
    /// Told to stop, not gone yet.
    Stopping,
    /// Gone, to be started again.
    Waiting,
    /// Gone for good; `exit` or `signal` says how.
    Ended,
}

impl RunState {
    /// The word in the file, in health and in logs.
    pub const fn name(self) -> &'static str {
        match self {
            RunState::Starting => "starting",
            RunState::Running => "running",
            RunState::Stopping => "stopping",
            RunState::Waiting => "waiting",
            RunState::Ended => "ended",
        }
    }
}

/// One run of the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Version of this record.
    pub v: u32,
    /// What it was doing.
    pub state: RunState,
    /// Pid of the program, 0 before it has one.
    pub pid: i32,
    /// When the run began, ms since 1970.
    pub started_at: u64,
    /// How the run ended, once its program has: exit code.
    pub exit: Option<i32>,
    /// How it ended: signal.
    pub signal: Option<i32>,
    /// Restarts since the supervisor started.
    pub restarts: u64,
    /// Which boot of the node.
    pub boot_id: String,
}

impl RunRecord {
    /// The version that this program writes.
    pub const VERSION: u32 = 1;
    /// Its name in the state directory.
    pub const FILE: &'static str = "run.json";

    /// Written before anybody is told. It outlives every process, not the node: nothing here is worth a disk
    /// flush in the way of a start, because after a power cut an older record still tells that the run was lost.
    pub fn save(&self, state: &StateDir) -> Result<(), StateError> {
        let bytes =
            serde_json::to_vec(self).map_err(|source| StateError::Corrupt { file: Self::FILE.to_owned(), source })?;
        state.write(Self::FILE, &bytes, Durability::Crash)
    }

    /// The record that the supervisor before this one left, `None` on the first start and where it is [damaged](StateDir::recall).
    pub fn load(state: &StateDir) -> Result<Option<RunRecord>, StateError> {
        state.recall(Self::FILE, LIMIT)
    }

    /// `lost` where the run was under way when its supervisor fell silent; `None` where it had left its last word.
    pub fn silent_end(&self) -> Option<&'static str> {
        match self.state {
            // The program had ended; only what it left behind was still being ended.
            RunState::Stopping if self.exit.is_some() || self.signal.is_some() => None,
            RunState::Starting | RunState::Running | RunState::Stopping => Some("lost"),
            RunState::Waiting | RunState::Ended => None,
        }
    }
}

/// The id of this boot of the node, empty where the kernel tells none; an error where there is no memory or descriptor to read it. `proc` is
/// `/proc`.
pub fn boot_id(proc: &Path) -> io::Result<String> {
    match std::fs::read_to_string(proc.join("sys/kernel/random/boot_id")) {
        Ok(id) => Ok(id.trim_end().to_owned()),
        Err(error) if exit::is_scarce(error.raw_os_error().unwrap_or(0)) => Err(error),
        Err(_) => Ok(String::new()),
    }
}
