//! What becomes of a sandbox is an event of it, each change once, also over restarts of the gateway (003-25).

use serde_json::json;
use tokio::sync::broadcast::error::RecvError;

use super::Sandboxes;
use crate::awake::wall_ms;
use crate::backend::{Seen, State};
use crate::exit::reason;
use crate::store::{StoreError, Tell};

impl Sandboxes {
    /// For as long as the gateway runs: every change from this call on, also before it is polled.
    pub fn tell(self) -> impl Future<Output = ()> {
        let mut changes = self.0.backend.changes();
        async move {
            loop {
                let done = match changes.recv().await {
                    Ok(id) => self.tell_of(&id).await,
                    Err(RecvError::Lagged(_)) => self.tell_of_all().await,
                    Err(RecvError::Closed) => return,
                };
                if let Err(error) = done {
                    tracing::warn!(error = reason(&error), "a change of a sandbox is not among its events");
                }
            }
        }
    }

    async fn tell_of_all(&self) -> Result<(), StoreError> {
        for row in self.wanted().await? {
            self.tell_of(&row.id).await?;
        }
        Ok(())
    }

    /// Where it is not what was told last.
    pub(super) async fn tell_of(&self, id: &str) -> Result<(), StoreError> {
        let store = &self.0.store;
        let Some(seen) = store.sandbox(id).await?.and_then(|row| self.see(&row)) else { return Ok(()) };
        if store.write(tell(id, &seen)).await? {
            store.followers().wake(id);
        }
        Ok(())
    }
}

fn tell(id: &str, seen: &Seen) -> Tell {
    let mut body = json!({ "place": seen.place });
    if let Some(node) = &seen.node {
        body["node"] = json!(node);
    }
    if let Some(reason) = seen.state.reason() {
        body["reason"] = json!(reason);
    }
    if let State::Failed { code: Some(code), .. } = &seen.state {
        body["exit_code"] = json!(code);
    }
    Tell { sandbox: id.into(), kind: format!("backend.{}", seen.state.name()), body, now_ms: wall_ms() }
}
