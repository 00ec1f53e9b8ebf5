//! What the handlers of the API work with.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::FromRef;
use protocol::task::Task;
use tokio::sync::Semaphore;

use super::reply::Problem;
use crate::metrics::Level;
use crate::tasks::{Entry, Handle};
use crate::workspace::relay::Relay;
use crate::workspace::seeds::Seeds;
use crate::workspace::workers::Workers;

/// Cheap to clone.
#[derive(Clone)]
pub struct Api {
    /// The tasks.
    pub tasks: Handle,
    /// Who opens what agents can change.
    pub workers: Workers,
    /// Archives that clients send.
    pub seeds: Seeds,
    /// Who applies patches; `None` where nobody is configured.
    pub relay: Option<Arc<Relay>>,
    /// The shared workspace.
    pub workspace: PathBuf,
    /// One large request at a time is held in memory.
    pub large: Arc<Semaphore>,
    /// The largest file that a client may send.
    pub upload: u64,
    /// An attached client that is not heard of for so long is cut.
    pub attach_silence: Duration,
    /// How many are attached.
    pub attached: Level,
}

impl FromRef<Api> for Handle {
    fn from_ref(api: &Api) -> Handle {
        api.tasks.clone()
    }
}

impl Api {
    /// A task as it is now.
    pub(super) async fn task(&self, id: String) -> Result<(Arc<Entry>, Task), Problem> {
        let entry = self.tasks.get(id).await?;
        let task = entry.view.borrow().clone();
        Ok((entry, task))
    }
}
