//! What becomes of a sandbox is an event of it, each change once, also over restarts of the gateway (003-25).

use serde_json::json;
use tokio::sync::broadcast::error::RecvError;

use super::Sandboxes;
use crate::awake::wall_ms;
use crate::backend::{Seen, State};
use crate::exit::reason;
use crate::store::{StoreError, Tell};

impl Sandboxes {
    /// For as long as this gateway leads: what has become of each that its backend sees, and every change.
    pub(super) async fn tell(self) {
        let mut changes = self.0.backend.changes();
        let mut done = self.tell_of_all().await;
        loop {
            if let Err(error) = done {
                tracing::warn!(error = reason(&error), "a change of a sandbox is not among its events");
            }
            done = match changes.recv().await {
                Ok(id) => self.tell_of(&id).await,
                Err(RecvError::Lagged(_)) => self.tell_of_all().await,
                Err(RecvError::Closed) => return,
            };
        }
    }

    async fn tell_of_all(&self) -> Result<(), StoreError> {
        for row in self.wanted().await? {
            // What is not seen may only not have been looked at yet.
            if self.0.backend.see(&row.id).is_some() {
                self.tell_of(&row.id).await?;
            }
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
