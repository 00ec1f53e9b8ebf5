//! The journal on the event loop: written at once, synced by the group.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::journal::{Journal, JournalError, Record, sync_folder};
use super::unsynced::{Lines, Unsynced};
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
    unsynced: Unsynced,
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
        let (owed, again, unsynced) = (BTreeMap::new(), Instant::now(), Unsynced::default());
        let ledger = Ledger { journal, always, owed, again, unsynced, metrics };
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
        loop {
            let owed = self.owes().then_some(self.again);
            match owed.into_iter().chain(self.unsynced.again()).min() {
                Some(at) => return sleep_until(at).await,
                None => self.unsynced.refusal().await,
            }
        }
    }

    /// What it refused, as far as it takes it now.
    pub(super) fn mend(&mut self) {
        if self.pay().is_ok()
            && let Some(lines) = self.unsynced.take_refused(Instant::now())
        {
            self.write_again(lines);
        }
    }

    /// What is owed, as far as the disk takes it.
    pub(super) fn pay(&mut self) -> Result<(), JournalError> {
        while let Some((id, record)) = self.owed.first_key_value() {
            let written = self.journal.write(record);
            self.again = Instant::now() + AGAIN;
            self.unsynced.wrote(id, written?);
            self.owed.pop_first();
            self.sync_soon();
        }
        Ok(())
    }

    /// Lines of which a sync was refused.
    fn write_again(&mut self, lines: Lines) {
        self.journal.doubt_the_end();
        let mut lines = lines.into_iter();
        while let Some((id, line)) = lines.next() {
            if self.journal.write_line(&line).is_err() {
                return self.unsynced.put_back(std::iter::once((id, line)).chain(lines).collect());
            }
            self.unsynced.wrote(&id, line);
        }
        self.sync_soon();
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
        let (length, before) = self.append(record).map_err(|e| crate::exit::reason(&e))?;
        let synced = self.sync().await;
        if synced.is_err() {
            self.journal.take_back(length);
            self.unsynced.took_back(&record.task.task_id, before);
        }
        synced.map_err(|e| e.to_string())
    }

    /// Record what nobody waits for.
    pub(super) fn write_later(&mut self, record: &Record) {
        if let Err(error) = self.append(record) {
            tracing::error!(%error, "a task's state could not be recorded");
        }
    }

    /// Behind what is owed. Answers how long the file was before, and the line before of this task, where that is not on the disk.
    fn append(&mut self, record: &Record) -> Result<(u64, Option<Vec<u8>>), JournalError> {
        self.pay()?;
        if self.unsynced.again().is_some() {
            self.journal.doubt_the_end();
        }
        let length = self.journal.length();
        let line = self.journal.write(record)?;
        Ok((length, self.unsynced.wrote(&record.task.task_id, line)))
    }

    /// Rewrite where most of it is history.
    pub(super) fn tidy<'a>(&mut self, records: impl Iterator<Item = &'a Record>) {
        if !self.journal.wants_rewriting() {
            return;
        }
        let rewritten = self.journal.rewrite(records);
        if let Err(error) = &rewritten {
            let reason = crate::exit::reason(error);
            tracing::error!(reason, "the task journal was not rewritten as it should be");
        }
        if matches!(rewritten, Ok(()) | Err(JournalError::Name { .. })) {
            // What is still to come of the file before is not of this one.
            self.unsynced = Unsynced::default();
            self.sync_soon();
        }
    }

    fn sync_soon(&mut self) {
        self.unsynced.sync_soon(self.journal.syncer(), self.metrics.clone());
    }

    /// All that was written is on the disk when this answers.
    async fn sync(&mut self) -> std::io::Result<()> {
        self.unsynced.sync(self.journal.syncer(), &self.metrics).await
    }
}
