//! Who makes sandboxes for this gateway, and ends them.
//!
//! A gateway without a backend takes sandboxes that others have made: those are registered, and their supervisors dial in.

use std::io;
use std::path::PathBuf;

use futures_util::future::BoxFuture;

pub mod local;

/// A sandbox to make.
#[derive(Clone, PartialEq, Eq)]
pub struct New {
    /// Its id; a checked name.
    pub id: String,
    /// Its supervisor shows this to the gateway.
    pub token: String,
}

/// A sandbox that the backend has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Managed {
    /// Its id.
    pub id: String,
    /// What it is doing.
    pub state: State,
}

/// What the backend knows of a sandbox; whether it is connected, its session knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It is being started.
    Starting,
    /// Its supervisor runs.
    Running {
        /// On this machine.
        pid: i32,
    },
    /// Its supervisor has ended and will be started again.
    Failed {
        /// Exit code, or 128 + signal; `None` where it could not be started or was not our child.
        code: Option<i32>,
        /// Its last words.
        reason: String,
    },
}

/// Why a sandbox was not made or not ended.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum BackendError {
    #[error("there is a sandbox {0} already")]
    Exists(String),
    #[error("sandbox {id} cannot be made in {path}")]
    Make { id: String, path: PathBuf, source: io::Error },
    #[error("sandbox {id} cannot be removed from {path}")]
    Remove { id: String, path: PathBuf, source: io::Error },
    #[error("{path} is a mount point inside of sandbox {id}: nothing is removed before it is unmounted")]
    Mounted { id: String, path: PathBuf },
    #[error("the sandboxes in {path} cannot be listed")]
    List { path: PathBuf, source: io::Error },
}

/// Makes, lists and ends sandboxes. What it has made outlives this process.
pub trait Backend: Send + Sync {
    /// Make it and start its supervisor; it dials in when it is ready to.
    fn create(&self, sandbox: New) -> BoxFuture<'_, Result<(), BackendError>>;
    /// End it and remove all that it had. One that is not there is removed already.
    fn delete<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<(), BackendError>>;
    /// All of them, by id.
    fn list(&self) -> BoxFuture<'_, Result<Vec<Managed>, BackendError>>;
}
