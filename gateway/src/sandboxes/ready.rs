//! Waiting until a sandbox is ready: its backend says that it runs, and it has a session (003-22..24).

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::Sandboxes;
use crate::backend::{State, changed};
use crate::store::StoreError;

/// Who waits has a look taken so often, in case that a change was missed (002-17).
const LOOK: Duration = Duration::from_secs(30);

/// And in the store, where there are other gateways.
const GLANCE: Duration = Duration::from_millis(250);

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
        let (deadline, mut look) = (Instant::now() + limit, Instant::now() + LOOK);
        let mut changes = self.0.backend.changes();
        loop {
            let (state, connected) = self.state(id).await?;
            match &state {
                State::Running if connected => return Ok(()),
                State::Failed { reason, .. } => return Err(self.failed(id, reason.clone()).await),
                State::Ended => return Err(self.failed(id, "it has ended already".into()).await),
                State::Ending => return Err(NotReady::Deleted { id: id.into() }),
                State::Running | State::Starting { .. } => {}
            }
            tokio::select! {
                () = changed(&mut changes, id) => {}
                () = self.session(id), if !connected => {}
                // Nobody tells of a session that begins at another gateway.
                () = sleep(GLANCE), if !connected && !self.0.lease.is_alone() => {}
                () = sleep_until(look) => {
                    self.0.backend.look(id).await;
                    look = Instant::now() + LOOK;
                }
                () = sleep_until(deadline) => return Err(self.late(id, limit, state).await),
            }
        }
    }

    /// Until it has one. Others that begin cost a look at this process's own list.
    async fn session(&self, id: &str) {
        loop {
            let entered = self.0.registry.entered();
            if self.0.registry.get(id).is_some() {
                return;
            }
            entered.await;
        }
    }

    async fn late(&self, id: &str, after: Duration, state: State) -> NotReady {
        let reason = match state {
            State::Starting { reason: Some(reason) } => reason,
            State::Running => "it runs, and its supervisor has not dialled this gateway yet".into(),
            _ => self.0.backend.explain(id).await.unwrap_or_else(|| "it is still being started".into()),
        };
        NotReady::Late { id: id.into(), after, reason }
    }

    /// What it is, and whether it has a session.
    async fn state(&self, id: &str) -> Result<(State, bool), NotReady> {
        let row = self.0.store.sandbox(id).await?;
        let Some(row) = row else { return Err(NotReady::Deleted { id: id.into() }) };
        let connected = self.0.registry.get(id).is_some() || self.0.lease.other(row.owner.as_ref()).is_some();
        // Who makes itself has no state but its session.
        Ok((self.see(&row).map_or(State::Running, |seen| seen.state), connected))
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
