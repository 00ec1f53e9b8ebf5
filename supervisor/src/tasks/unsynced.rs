//! Lines of the journal that are not known to be on the disk, and their group commit.
//!
//! A sync that the disk refuses may have been the last word about what it was for: the kernel may let go of it, and another sync of the same file
//! says nothing of that (fsync(2)). So the lines that it was for are written once more, and that is synced, until the disk takes it.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use super::journal::{SYNC_WITHIN, Syncer};
use crate::metrics::Metrics;

/// Until what a sync was refused for is written once more. Each time makes the file longer.
const RETRY: Duration = Duration::from_secs(1);

/// The newest line of each task, by id.
pub(super) type Lines = BTreeMap<String, Vec<u8>>;

/// Of one file. Clones are the same.
#[derive(Clone, Default)]
pub(super) struct Unsynced(Arc<Shared>);

#[derive(Default)]
struct Shared {
    lines: Mutex<State>,
    /// One sync at a time: what an older one was for never comes behind what a newer one was for.
    turn: tokio::sync::Mutex<()>,
    refusal: Notify,
}

#[derive(Default)]
struct State {
    /// Written since the last sync began.
    fresh: Lines,
    /// A group commit is to come; it takes with it whatever is written until it begins.
    is_due: bool,
    /// A sync was refused: what it was for and nobody has written since, and when that is to be written again.
    refused: Option<(Lines, Instant)>,
}

impl Unsynced {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This was written. Answers what it takes the place of, where that is not on the disk either.
    pub(super) fn wrote(&self, id: &str, line: Vec<u8>) -> Option<Vec<u8>> {
        let mut state = self.state();
        let refused = state.refused.as_mut().and_then(|(lines, _)| lines.remove(id));
        state.fresh.insert(id.to_owned(), line).or(refused)
    }

    /// The line of a task was taken back; `before` is what stood there.
    pub(super) fn took_back(&self, id: &str, before: Option<Vec<u8>>) {
        let mut state = self.state();
        state.fresh.remove(id);
        if let Some((lines, _)) = &mut state.refused {
            lines.remove(id);
            lines.extend(before.map(|line| (id.to_owned(), line)));
        }
    }

    /// When something is to be written again.
    pub(super) fn again(&self) -> Option<Instant> {
        self.state().refused.as_ref().map(|(_, at)| *at)
    }

    /// What is to be written again by `now`.
    pub(super) fn take_refused(&self, now: Instant) -> Option<Lines> {
        let mut state = self.state();
        let (lines, _) = state.refused.take_if(|(_, at)| *at <= now)?;
        Some(lines)
    }

    /// It could not be.
    pub(super) fn put_back(&self, lines: Lines) {
        self.state().refuse(lines);
        self.0.refusal.notify_one();
    }

    /// Until a sync is refused.
    pub(super) async fn refusal(&self) {
        self.0.refusal.notified().await;
    }

    /// A sync of the journal begins soon enough for the promise.
    pub(super) fn sync_soon(&self, journal: Syncer, metrics: Arc<Metrics>) {
        if std::mem::replace(&mut self.state().is_due, true) {
            return;
        }
        let unsynced = self.clone();
        tokio::spawn(async move {
            // Less than the promise, so that the disk's own time fits in.
            sleep(SYNC_WITHIN / 2).await;
            let _ = unsynced.sync(journal, &metrics).await;
        });
    }

    /// All that was written is on the disk when this answers.
    pub(super) async fn sync(&self, journal: Syncer, metrics: &Metrics) -> io::Result<()> {
        let _turn = self.0.turn.lock().await;
        // What is written while it lasts needs one of its own.
        let lines = {
            let mut state = self.state();
            state.is_due = false;
            std::mem::take(&mut state.fresh)
        };
        let synced = spawn_blocking(move || journal.sync()).await.unwrap_or_else(|_| Err(io::ErrorKind::Other.into()));
        if synced.is_err() {
            self.put_back(lines);
        }
        tell(&synced, metrics);
        synced
    }
}

/// Counted each time, logged once.
fn tell(synced: &io::Result<()>, metrics: &Metrics) {
    let was_refused = metrics.journal_degraded.get() == 1;
    metrics.journal_degraded.set(u64::from(synced.is_err()));
    match synced {
        Err(error) => {
            metrics.journal_sync_failures.inc();
            if !was_refused {
                tracing::warn!(%error, "the disk refuses to sync the task journal; it is asked again each second");
            }
        }
        Ok(()) if was_refused => tracing::info!("the disk syncs the task journal again"),
        Ok(()) => {}
    }
}

impl State {
    fn refuse(&mut self, mut lines: Lines) {
        lines.retain(|id, _| !self.fresh.contains_key(id));
        if let Some((others, _)) = self.refused.take() {
            lines.extend(others);
        }
        self.refused = Some((lines, Instant::now() + RETRY));
    }
}

#[cfg(test)]
mod tests;
