//! The journal on the event loop: written at once, synced by the group.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, sleep_until};

use super::journal::{Journal, JournalError, Record, SYNC_WITHIN, Unsynced, sync_folder};
use crate::metrics::Metrics;

/// Until the disk is asked again for what it refused.
const AGAIN: Duration = Duration::from_millis(100);
/// The same for a whole file.
const ANEW: Duration = Duration::from_secs(1);

/// The journal and its sync.
pub(super) struct Ledger {
    journal: Journal,
    always: bool,
    /// What has happened and the disk refused, the newest of each task. It goes before anything else.
    owed: BTreeMap<String, Record>,
    /// The disk has refused to sync this file, so that it has to be written anew.
    doubt: watch::Sender<bool>,
    /// When either is tried by itself.
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
        let (owed, doubt, again) = (BTreeMap::new(), watch::Sender::new(false), Instant::now());
        let ledger = Ledger { journal, always, owed, doubt, again, pending: Arc::default(), metrics };
        Ok((ledger, loaded.records.into_values().collect()))
    }

    /// Record what has happened, now or as soon as the disk takes it: the next supervisor must not think that it has not.
    pub(super) async fn note(&mut self, record: &Record) -> Result<(), String> {
        if let Err(error) = self.append(record) {
            self.owed.insert(record.task.task_id.clone(), record.clone());
            self.again = Instant::now() + AGAIN;
            return Err(crate::exit::reason(&error));
        }
        if self.always {
            return self.sync().await.map_err(|e| e.to_string());
        }
        self.sync_soon();
        Ok(())
    }

    /// Whether the disk has refused something that it is to take before anything else.
    pub(super) fn owes(&self) -> bool {
        !self.owed.is_empty()
    }

    /// Until the disk is to be asked again for what it refused: that is [`Ledger::mend`].
    pub(super) async fn due(&self) {
        if self.owed.is_empty() {
            // Its sender is ours.
            let _ = self.doubt.subscribe().wait_for(|doubt| *doubt).await;
        }
        sleep_until(self.again).await;
    }

    /// What the disk refused, as far as it takes it now; `records` are all that count.
    pub(super) fn mend<'a>(&mut self, records: impl Iterator<Item = &'a Record>) {
        if !*self.doubt.borrow() {
            let _ = self.pay();
        } else if self.rewrite(records) {
            tracing::warn!("the task journal was written anew, since the disk had refused to sync it");
        } else {
            self.again = Instant::now() + ANEW;
        }
    }

    /// What is owed, as far as the disk takes it.
    fn pay(&mut self) -> Result<(), JournalError> {
        self.again = Instant::now() + AGAIN;
        while let Some(owed) = self.owed.first_entry() {
            self.journal.write(owed.get())?;
            owed.remove();
            self.sync_soon();
        }
        Ok(())
    }

    /// Record before telling. With `sync = always` on the disk, else there within 50 ms. What is refused is not there later either.
    pub(super) async fn write(&mut self, record: &Record) -> Result<(), String> {
        if self.always {
            return self.write_through(record).await;
        }
        self.append(record).map_err(|e| crate::exit::reason(&e))?;
        self.sync_soon();
        Ok(())
    }

    /// The same, on the disk in any case.
    pub(super) async fn write_through(&mut self, record: &Record) -> Result<(), String> {
        let before = self.append(record).map_err(|e| crate::exit::reason(&e))?;
        let synced = self.sync().await;
        if synced.is_err() {
            self.journal.take_back(before);
        }
        synced.map_err(|e| e.to_string())
    }

    /// Record what nobody waits for.
    pub(super) fn write_later(&mut self, record: &Record) {
        if let Err(error) = self.append(record) {
            tracing::error!(%error, "a task's state could not be recorded");
        }
    }

    /// Behind what is owed; how long the file was before.
    fn append(&mut self, record: &Record) -> Result<u64, JournalError> {
        self.pay()?;
        let before = self.journal.length();
        self.journal.write(record)?;
        Ok(before)
    }

    /// Rewrite where most of it is history.
    pub(super) fn tidy<'a>(&mut self, records: impl Iterator<Item = &'a Record>) {
        if self.journal.wants_rewriting() {
            self.rewrite(records);
        }
    }

    /// Whether that is on the disk, under its name.
    fn rewrite<'a>(&mut self, records: impl Iterator<Item = &'a Record>) -> bool {
        let rewritten = self.journal.rewrite(records);
        if let Err(error) = &rewritten {
            let reason = crate::exit::reason(error);
            tracing::error!(reason, "the task journal was not rewritten as it should be");
        }
        if matches!(rewritten, Ok(()) | Err(JournalError::Name { .. })) {
            // What is to come of the file that was is not of this one, and all that is owed is in it.
            self.pending = Arc::default();
            self.doubt = watch::Sender::new(rewritten.is_err());
            self.owed.clear();
        }
        rewritten.is_ok()
    }

    fn sync_soon(&mut self) {
        let Ok(unsynced) = self.journal.unsynced() else {
            // No descriptor: a new file is synced by itself.
            self.doubt.send_replace(true);
            return;
        };
        if self.pending.swap(true, Ordering::Relaxed) {
            return;
        }
        let (pending, doubt, metrics) = (self.pending.clone(), self.doubt.clone(), self.metrics.clone());
        // Less than the promise, so that the disk's own time fits in.
        tokio::spawn(async move {
            sleep(SYNC_WITHIN / 2).await;
            // Before it begins: what is written while it lasts needs one of its own.
            pending.store(false, Ordering::Relaxed);
            let _ = sync(unsynced, &doubt, &metrics).await;
        });
    }

    /// All that was written is on the disk when this answers.
    async fn sync(&mut self) -> std::io::Result<()> {
        sync(self.journal.unsynced()?, &self.doubt, &self.metrics).await
    }
}

async fn sync(unsynced: Unsynced, doubt: &watch::Sender<bool>, metrics: &Metrics) -> std::io::Result<()> {
    let synced =
        spawn_blocking(move || unsynced.sync()).await.unwrap_or_else(|_| Err(std::io::ErrorKind::Other.into()));
    if synced.is_err() {
        metrics.journal_sync_failures.inc();
        doubt.send_replace(true);
    }
    synced
}
