//! Waiting until a sandbox is ready: its backend says that it runs, and it has a session (003-22..24).

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::Sandboxes;
use crate::backend::State;
use crate::store::StoreError;

/// Why it is not.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum NotReady {
    /// And will not be, as it is.
    #[error("sandbox {id} does not start: {reason}")]
    Failed { id: String, reason: String },
    /// Not yet.
    #[error("sandbox {id} is not ready after {}, and stays: {reason}", humantime::format_duration(*.after))]
    Late { id: String, after: Duration, reason: String },
    /// And was deleted meanwhile.
    #[error("sandbox {id} was deleted")]
    Deleted { id: String },
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Sandboxes {
    /// Until it is, for so long.
    pub async fn ready(&self, id: &str, limit: Duration) -> Result<(), NotReady> {
        let deadline = Instant::now() + limit;
        loop {
            let changed = self.0.backend.changed(id);
            let entered = self.0.registry.entered();
            let state = self.state(id).await?;
            match &state {
                State::Running if self.0.registry.get(id).is_some() => return Ok(()),
                State::Failed { reason, .. } => return Err(self.failed(id, reason.clone()).await),
                State::Ended => return Err(self.failed(id, "it has ended already".into()).await),
                State::Ending => return Err(NotReady::Deleted { id: id.into() }),
                State::Running | State::Starting { .. } => {}
            }
            let something = async {
                tokio::select! {
                    () = changed => {}
                    () = entered => {}
                }
            };
            if timeout_at(deadline, something).await.is_err() {
                let reason = match &state {
                    State::Starting { reason: Some(reason) } => reason.clone(),
                    State::Running => "it runs, and its supervisor has not dialled this gateway yet".into(),
                    _ => self.0.backend.explain(id).await.unwrap_or_else(|| "it is still being started".into()),
                };
                return Err(NotReady::Late { id: id.into(), after: limit, reason });
            }
        }
    }

    async fn state(&self, id: &str) -> Result<State, NotReady> {
        let row = self.0.store.sandbox(id).await?;
        let Some(row) = row else { return Err(NotReady::Deleted { id: id.into() }) };
        // Who makes itself has no state but its session.
        Ok(self.see(&row).map_or(State::Running, |seen| seen.state))
    }

    /// With what others tell of it, which is asked for only now (002-19).
    async fn failed(&self, id: &str, reason: String) -> NotReady {
        let reason = match self.0.backend.explain(id).await {
            Some(more) if !reason.contains(&more) => format!("{reason}; {more}"),
            _ => reason,
        };
        NotReady::Failed { id: id.into(), reason }
    }
}
