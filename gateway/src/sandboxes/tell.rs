//! What becomes of a sandbox is an event of it, each change once, also over restarts of the gateway (003-25).

use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;

use super::Sandboxes;
use crate::awake::wall_ms;
use crate::backend::{Seen, State};
use crate::exit::reason;
use crate::store::{StoreError, Tell};

/// An event as a supervisor's record is written.
#[derive(Serialize)]
struct Told {
    wall_ms: i64,
    /// `backend.` and the state.
    kind: String,
    body: Value,
}

impl Sandboxes {
    /// For as long as the gateway runs.
    pub async fn tell(self) {
        let mut changes = self.0.backend.changes();
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
        let now = told(&seen);
        let last = store.told(id).await?.and_then(|text| serde_json::from_str::<Value>(&text).ok()).unwrap_or_default();
        if last["kind"] == now.kind && last["body"] == now.body {
            return Ok(());
        }
        let body = serde_json::to_string(&now).unwrap_or_default();
        store.write(Tell { sandbox: id.into(), body, now_ms: now.wall_ms }).await?;
        store.followers().wake(id);
        Ok(())
    }
}

fn told(seen: &Seen) -> Told {
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
    Told { wall_ms: wall_ms(), kind: format!("backend.{}", seen.state.name()), body }
}
