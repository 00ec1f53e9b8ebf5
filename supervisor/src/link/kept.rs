//! What the link remembers over a restart, in the state directory.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::machine::Machine;
use crate::state::{Durability, StateDir};

const FILE: &str = "link.json";
const LIMIT: u64 = 64 * 1024;

/// The file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    /// P, as a gateway told it last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    window_ms: Option<u64>,
}

impl Kept {
    /// What was kept; nothing where that cannot be read: all of it will be told again.
    pub(super) fn load(state: &StateDir) -> Kept {
        let kept = state.read_json(FILE, LIMIT).unwrap_or_else(|error| {
            tracing::warn!(%error, "what the link remembered cannot be read");
            None
        });
        kept.unwrap_or_default()
    }

    pub(crate) fn window(&self) -> Option<Duration> {
        self.window_ms.map(Duration::from_millis)
    }

    /// A disk that refuses it costs a wider window after the next start and nothing else.
    pub(super) async fn set_window(&mut self, window: Duration, state: &Arc<StateDir>, machine: &Machine) {
        let millis = Some(window.as_millis() as u64);
        if self.window_ms == millis {
            return;
        }
        self.window_ms = millis;
        let (bytes, state) = (serde_json::to_vec(self).unwrap_or_default(), state.clone());
        let saved = machine.block(move || state.write(FILE, &bytes, Durability::Crash)).await;
        if let Ok(Err(error)) = saved {
            tracing::warn!(%error, "the reconnect window could not be kept");
        }
    }
}
