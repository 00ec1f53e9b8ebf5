//! Who makes sandboxes for this gateway, and ends them.
//!
//! A gateway without a backend takes sandboxes that others have made: those are registered, and their supervisors dial in.

use std::io;
use std::path::PathBuf;

use futures_util::future::BoxFuture;
use tokio::sync::broadcast::{self, error::RecvError};

pub mod kubernetes;
pub mod local;
mod spec;
pub(crate) mod words;

pub use spec::{Effect, Resources, Spec, Toleration};

/// A sandbox to make.
#[derive(Clone, PartialEq, Eq)]
pub struct New {
    /// Its id; a checked name.
    pub id: String,
    /// Its supervisor shows this to the gateway, where the backend gives tokens.
    pub token: Option<String>,
    /// What was asked for.
    pub spec: Spec,
}

/// A sandbox that the backend has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Managed {
    /// Its id.
    pub id: String,
    /// Another one of the same id is another instance.
    pub instance: String,
    /// All that belongs to it is there.
    pub whole: bool,
}

/// What the backend knows of a sandbox; whether it is connected, its session knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It is being started.
    Starting {
        /// What it waits for, where that is known.
        reason: Option<String>,
    },
    /// Its supervisor runs.
    Running,
    /// It has come to its end by itself, without a fault.
    Ended,
    /// Its supervisor does not run, or cannot be started; whoever keeps it may still try again.
    Failed {
        /// Exit code, or 128 + signal; `None` where it could not be started or was not our child.
        code: Option<i32>,
        /// Its last words, or what hinders it.
        reason: String,
    },
    /// It is being ended.
    Ending,
}

impl State {
    /// The word in JSON.
    pub fn name(&self) -> &'static str {
        match self {
            State::Starting { .. } => "starting",
            State::Running => "running",
            State::Ended => "ended",
            State::Failed { .. } => "failed",
            State::Ending => "ending",
        }
    }

    /// Why it is not running.
    pub fn reason(&self) -> Option<&str> {
        match self {
            State::Starting { reason } => reason.as_deref(),
            State::Failed { reason, .. } => Some(reason),
            _ => None,
        }
    }
}

/// A sandbox as its backend sees it now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// What it is doing.
    pub state: State,
    /// What the backend calls it, for instance `hive-sandbox/sandbox-a-…`.
    pub place: String,
    /// On which machine, where that is known and not this one.
    pub node: Option<String>,
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
    /// The request asks for what this backend does not do.
    #[error("{field}: {problem}")]
    Request { field: String, problem: String },
    /// Somebody else has what it would be called.
    #[error("{0}")]
    Taken(String),
    /// The cluster takes no such sandbox.
    #[error("{0}")]
    Refused(String),
    /// There is no room for it now.
    #[error("{0}")]
    Full(String),
    /// The gateway itself lacks something that its operator has to give it.
    #[error("{0}")]
    Operator(String),
    /// Nobody answers, or not in time; whether something was done is unknown.
    #[error("{0}")]
    Away(String),
    /// Its end goes on, and takes longer than one waits.
    #[error("{0}")]
    Slow(String),
}

impl BackendError {
    /// The word in metrics.
    pub fn word(&self) -> &'static str {
        match self {
            BackendError::Exists(_) | BackendError::Taken(_) => "taken",
            BackendError::Request { .. } => "request",
            BackendError::Refused(_) => "refused",
            BackendError::Full(_) => "full",
            BackendError::Away(_) | BackendError::Slow(_) => "away",
            _ => "operator",
        }
    }
}

/// Makes, lists and ends sandboxes. What it has made outlives this process.
pub trait Backend: Send + Sync {
    /// Whether it hands on a token of this gateway; else its sandboxes have an identity of their own.
    fn gives_tokens(&self) -> bool;
    /// Whether such a sandbox could be made, as far as can be told without making it.
    fn check(&self, id: &str, spec: &Spec) -> Result<(), BackendError>;
    /// Find out what is not known yet of how sandboxes are made here, before somebody waits for one.
    fn prepare(&self) -> BoxFuture<'_, Result<(), BackendError>> {
        Box::pin(async { Ok(()) })
    }
    /// Make it and start its supervisor, which dials in when it is ready to. Where a supervisor is there under exactly this id, it
    /// is left as it is, and what is missing beside it is made.
    fn create(&self, sandbox: New) -> BoxFuture<'_, Result<(), BackendError>>;
    /// End it and remove all that it had. One that is not there is removed already. Of an `instance`, only that one.
    fn delete<'a>(&'a self, id: &'a str, instance: Option<&'a str>) -> BoxFuture<'a, Result<(), BackendError>>;
    /// All of them, asked for now.
    fn list(&self) -> BoxFuture<'_, Result<Vec<Managed>, BackendError>>;
    /// What is known of one without asking anybody.
    fn see(&self, id: &str) -> Option<Seen>;
    /// The ids of which [`Backend::see`] may say something new, from now on.
    fn changes(&self) -> broadcast::Receiver<String>;
    /// Look at one anew, in case that a change has been missed.
    fn look<'a>(&'a self, id: &'a str) -> BoxFuture<'a, ()>;
    /// Why it cannot work now.
    fn away(&self) -> Option<String>;
    /// What others tell of its trouble; asked for only where there is some.
    fn explain<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Option<String>>;
}

/// Comes when there may be something new of this one; who was too slow for the changes of others may have missed it.
pub async fn changed(changes: &mut broadcast::Receiver<String>, id: &str) {
    loop {
        match changes.recv().await {
            Ok(other) if other != id => {}
            Ok(_) | Err(RecvError::Lagged(_)) => return,
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}
