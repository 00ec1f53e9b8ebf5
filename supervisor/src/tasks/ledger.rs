//! The journal on the event loop: written at once, synced by the group.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, sleep_until};

use super::journal::{Journal, JournalError, Record, SYNC_WITHIN, sync_folder};
use crate::metrics::Metrics;

/// Until the disk is asked again for what it refused.
const AGAIN: Duration = Duration::from_millis(100);

/// The journal and its sync.
pub(super) struct Ledger {
    journal: Journal,
    always: bool,
    /// What has happened and the disk refused, the newest of each task. It goes before anything else.
    owed: BTreeMap<String, Record>,
    /// When that is tried by itself.
    again: Instant,
    /// A group commit of this file is to come; it takes with it whatever is written until it begins.
    pending: Arc<AtomicBool>,
    metrics: Arc<Metrics>,
}

impl Ledger {
    /// Open it; answers what an earlier supervisor left.
    pub(super) fn open(
        path: &Path,
        always: bool,
        metrics: Arc<Metrics>,
    ) -> Result<(Ledger, Vec<Record>), JournalError> {
        if let Some(folder) = path.parent() {
            let failed = |source| JournalError::Open { path: folder.into(), source };
            crate::state::make_private(folder).map_err(failed)?;
            folder.parent().map_or(Ok(()), sync_folder).map_err(failed)?;
        }
        let (journal, loaded) = Journal::open(path)?;
        metrics.journal_damaged.inc_by(loaded.damaged);
        if loaded.damaged > 0 {
            tracing::warn!(lines = loaded.damaged, "damaged lines of the task journal were left out");
        }
        let ledger =
            Ledger { journal, always, owed: BTreeMap::new(), again: Instant::now(), pending: Arc::default(), metrics };
        Ok((ledger, loaded.records.into_values().collect()))
    }

    /// Record what has happened, now or as soon as the disk takes it: the next supervisor must not think that it has not.
    pub(super) async fn note(&mut self, record: &Record) -> Result<(), String> {
        let written = self.write(record).await;
        if written.is_err() {
            self.owed.insert(record.task.task_id.clone(), record.clone());
            self.again = Instant::now() + AGAIN;
        }
        written
    }

    /// Whether the disk has refused something that it is to take before anything else.
    pub(super) fn owes(&self) -> bool {
        !self.owed.is_empty()
    }

    /// When something is owed, the time to [`Ledger::pay`] it.
    pub(super) async fn due(&self) {
        match self.owed.is_empty() {
            true => std::future::pending().await,
            false => sleep_until(self.again).await,
        }
    }

    /// What is owed, as far as the disk takes it.
    pub(super) fn pay(&mut self) -> Result<(), JournalError> {
        self.again = Instant::now() + AGAIN;
        while let Some(owed) = self.owed.first_entry() {
            self.journal.write(owed.get())?;
            owed.remove();
            self.sync_soon();
        }
        Ok(())
    }

    /// Record before telling. With `sync = always` on the disk, else there within 50 ms.
    pub(super) async fn write(&mut self, record: &Record) -> Result<(), String> {
        self.append(record).map_err(|e| crate::exit::reason(&e))?;
        if self.always {
            return self.sync().await.map_err(|e| e.to_string());
        }
        self.sync_soon();
        Ok(())
    }

    /// Record what nobody waits for.
    pub(super) fn write_later(&mut self, record: &Record) {
        if let Err(error) = self.append(record) {
            tracing::error!(%error, "a task's state could not be recorded");
        }
    }

    /// Behind what is owed.
    fn append(&mut self, record: &Record) -> Result<(), JournalError> {
        self.pay()?;
        self.journal.write(record)
    }

    /// Rewrite where most of it is history.
    pub(super) fn tidy<'a>(&mut self, records: impl Iterator<Item = &'a Record>) {
        if !self.journal.wants_rewriting() {
            return;
        }
        if let Err(error) = self.journal.rewrite(records) {
            let reason = crate::exit::reason(&error);
            tracing::error!(reason, "the task journal was not rewritten as it should be");
        }
        // What is to come is of the file that was.
        self.pending = Arc::default();
    }

    fn sync_soon(&mut self) {
        let Ok(unsynced) = self.journal.unsynced() else { return };
        if self.pending.swap(true, Ordering::Relaxed) {
            return;
        }
        let (pending, metrics) = (self.pending.clone(), self.metrics.clone());
        // Less than the promise, so that the disk's own time fits in.
        tokio::spawn(async move {
            sleep(SYNC_WITHIN / 2).await;
            // Before it begins: what is written while it lasts needs one of its own.
            pending.store(false, Ordering::Relaxed);
            if !matches!(spawn_blocking(move || unsynced.sync()).await, Ok(Ok(()))) {
                metrics.journal_sync_failures.inc();
            }
        });
    }

    /// All that was written is on the disk when this answers.
    pub(super) async fn sync(&mut self) -> std::io::Result<()> {
        let unsynced = self.journal.unsynced()?;
        spawn_blocking(move || unsynced.sync()).await.unwrap_or_else(|_| Err(std::io::ErrorKind::Other.into()))
    }
}
