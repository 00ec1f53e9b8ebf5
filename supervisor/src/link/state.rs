//! What the sandbox is doing now, as the gateway is told: the body of health, without the link itself.
//!
//! Nothing in it moves by itself (no times, no counts of bytes): where nothing happens its digest stays, and it does not
//! travel.

use std::sync::Arc;

use protocol::session::State;
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use crate::agent;
use crate::app::Stage;
use crate::http::View;

/// Reads the state, and tells when it may have changed.
#[derive(Clone)]
pub(super) struct Watch {
    view: Arc<View>,
    stage: watch::Receiver<Stage>,
    agent: watch::Receiver<agent::Status>,
}

impl Watch {
    pub(super) fn new(view: Arc<View>) -> Watch {
        let (stage, agent) = (view.stage.clone(), view.agent.clone());
        Watch { view, stage, agent }
    }

    /// Until it may be another one.
    pub(super) async fn changed(&mut self) {
        let ended = tokio::select! {
            biased;
            changed = self.stage.changed() => changed.is_err(),
            changed = self.agent.changed() => changed.is_err(),
        };
        if ended {
            // The app is being dropped.
            std::future::pending::<()>().await;
        }
    }

    /// The state with its digest.
    pub(super) fn now(&self) -> State {
        let mut health = self.view.health();
        health.link = None;
        let state = serde_json::to_value(&health).unwrap_or_default();
        State { d: digest(&state), state }
    }
}

/// 12 hex digits: no secret, only short and unlikely to meet.
fn digest(state: &serde_json::Value) -> String {
    let digest = Sha256::digest(state.to_string());
    digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}
