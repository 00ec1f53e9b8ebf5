//! What a sandbox does that has been without its gateway for Y.
//!
//! Y is counted on the boot clock, from the start of the supervisor or from the end of the last session: a suspended machine
//! and a changed date make no difference, and a gateway that refuses is as far away as one that does not answer.

use std::sync::Arc;
use std::time::Duration;

use protocol::session::{Offline, OfflineAction};
use serde_json::json;
use tokio::sync::{mpsc, watch};

use super::{Ending, Feed, Phase};
use crate::machine::Machine;
use crate::metrics::Metrics;

/// The word in settings, metrics and logs.
pub(super) const fn name(action: OfflineAction) -> &'static str {
    match action {
        OfflineAction::Keep => "keep",
        OfflineAction::Stop => "stop",
        OfflineAction::StopAfterTasks => "stop-after-tasks",
    }
}

/// For as long as the supervisor runs: once in each time without a gateway.
pub(super) async fn watch(
    offline: Offline,
    machine: Machine,
    mut phase: watch::Receiver<Phase>,
    feed: Feed,
    endings: mpsc::Sender<Ending>,
    metrics: Arc<Metrics>,
) {
    let after = Duration::from_millis(offline.after_ms.unsigned_abs());
    loop {
        let until = machine.now().saturating_add(after);
        let expired = tokio::select! {
            biased;
            _ = phase.wait_for(|phase| *phase == Phase::Connected) => false,
            () = machine.until(until) => true,
        };
        if expired {
            expire(offline.action, after, &feed, &endings, &metrics).await;
        }
        if phase.wait_for(|phase| *phase == Phase::Connected).await.is_err()
            || phase.wait_for(|phase| *phase != Phase::Connected).await.is_err()
        {
            return;
        }
    }
}

async fn expire(
    action: OfflineAction,
    after: Duration,
    feed: &Feed,
    endings: &mpsc::Sender<Ending>,
    metrics: &Metrics,
) {
    let (word, after_s) = (name(action), after.as_secs());
    tracing::warn!(after_s, action = word, "there was no gateway for as long as this sandbox may be without one");
    metrics.link_offline.get_or_create(&vec![("action", word.into())]).inc();
    feed.tell("supervisor.offline", json!({ "after_ms": after.as_millis() as u64, "action": word })).await;
    let after_tasks = match action {
        OfflineAction::Keep => return,
        OfflineAction::Stop => false,
        OfflineAction::StopAfterTasks => true,
    };
    let _ = endings.send(Ending { after_tasks, reason: format!("without a gateway for {after_s} s") }).await;
}
