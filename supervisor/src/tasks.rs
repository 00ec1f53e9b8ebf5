//! Dev-tasks: accepted, run beside the agent, and told of truthfully, also after a crash.
//!
//! One task of the event loop owns the table, the queue and the journal; clients reach it through [`Handle`], and
//! each dev-task's own life is [`run`]. What a client is told was written to the journal before.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use protocol::task::{Create, State, Task};
use tokio::sync::{mpsc, oneshot};

pub mod config;
mod control;
mod folders;
mod handle;
pub(crate) mod identity;
pub mod journal;
mod ledger;
pub mod output;
pub mod patch;
pub mod request;
mod retain;
mod row;
pub(crate) mod run;
mod unsynced;
mod untold;

pub use config::Config;
use folders::Folders;
pub(crate) use handle::Control;
use handle::{Amendment, Ask};
pub use handle::{Asks, Entry, Handle, Page, Query, Refused, handle};
use journal::{JournalError, Record};
use ledger::Ledger;
use request::Spec;
use retain::kept;
use row::{Row, written, written_since};

use crate::launch::Launcher;
use crate::link::feed::Written;
use crate::link::{Feed, Lines};
use crate::metrics::Metrics;
use crate::workspace::seeds::Seed;
use crate::workspace::workers::Workers;

/// Tasks that are too old are looked for so often, or as often as a short age asks for.
const RETENTION: Duration = Duration::from_secs(60);

/// The part.
pub struct Tasks {
    config: Config,
    launcher: Launcher,
    metrics: Arc<Metrics>,
    feed: Feed,
    lines: Lines,
    workers: Workers,
    folders: Folders,
    ledger: Ledger,
    asks: mpsc::Receiver<Ask>,
    updates: mpsc::Receiver<Update>,
    update_sender: mpsc::Sender<Update>,
    table: BTreeMap<String, Row>,
    keys: BTreeMap<String, String>,
    /// Highest priority first, then in the order of their coming.
    queue: BTreeSet<(std::cmp::Reverse<i32>, u64, String)>,
    arrivals: u64,
    running: usize,
    /// Once it stops: who waits for the last task's end. A second stop only shortens the first.
    stopping: Option<Vec<oneshot::Sender<()>>>,
    /// Ended tasks and the output that is kept of them, since retention last counted.
    ended: (usize, u64),
    log_root: PathBuf,
}

/// What a run tells its owner.
pub(crate) struct Update {
    pub(crate) id: String,
    pub(crate) change: run::Change,
}

impl Tasks {
    /// The part to run. What an earlier supervisor left is reported here: running ones as lost, queued
    /// ones are run or failed.
    pub fn new(
        config: Config,
        launcher: Launcher,
        metrics: Arc<Metrics>,
        (feed, lines): (Feed, Lines),
        directory: PathBuf,
        Asks(asks): Asks,
    ) -> Result<Tasks, JournalError> {
        let (ledger, records) = Ledger::open(&directory.join("journal"), config.sync_always, metrics.clone())?;
        // A run has two updates under way at most, so that it never waits here for an owner who waits for it.
        let (update_sender, updates) = mpsc::channel(2 * config.concurrency);
        let root = config.directory.as_ref().unwrap_or(&directory).clone();
        let mut tasks = Tasks {
            config,
            folders: Folders::new(root, launcher.config().user.is_some()),
            workers: Workers::new(launcher.clone()),
            launcher,
            metrics,
            feed,
            lines,
            ledger,
            asks,
            updates,
            update_sender,
            table: BTreeMap::new(),
            keys: BTreeMap::new(),
            queue: BTreeSet::new(),
            arrivals: 0,
            running: 0,
            stopping: None,
            ended: (0, 0),
            log_root: directory,
        };
        for record in records {
            tasks.take_over(record)?;
        }
        tasks.remove_leftovers();
        Ok(tasks)
    }

    /// Until all handles are gone.
    pub async fn run(mut self) {
        self.tell_what_was_lost().await;
        let mut retention = tokio::time::interval(self.config.keep_age.clamp(Duration::from_secs(1), RETENTION));
        retention.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            self.start_what_may().await;
            self.metrics.tasks.queue_depth.set(self.queue.len() as u64);
            tokio::select! {
                ask = self.asks.recv() => match ask {
                    Some(ask) => self.answer(ask).await,
                    None => return,
                },
                () = self.ledger.due() => self.ledger.mend(),
                Some(update) = self.updates.recv() => drop(self.update(update).await),
                _ = retention.tick() => self.retain().await,
            }
        }
    }

    async fn answer(&mut self, ask: Ask) {
        match ask {
            Ask::Create { create, key, digest, seed, reply } => {
                drop(reply.send(self.create(*create, key, digest, seed).await));
            }
            Ask::Amend { id, amendment, reply } => drop(reply.send(self.amend(&id, amendment).await)),
            Ask::Get { id, reply } => drop(reply.send(self.entry(&id))),
            Ask::List { query, reply } => drop(reply.send(self.list(&query))),
            Ask::Control { id, control, reply } => drop(reply.send(self.control(&id, control).await)),
            Ask::Delete { id, reply } => drop(reply.send(self.delete(&id).await)),
            Ask::Drain { done } => self.drain(done),
            Ask::Stop { deadline, done } => self.stop(deadline, done),
        }
    }

    fn entry(&self, id: &str) -> Result<Arc<Entry>, Refused> {
        self.table.get(id).map(|row| row.entry.clone()).ok_or(Refused::Unknown)
    }

    async fn create(
        &mut self,
        create: Create,
        key: Option<String>,
        digest: String,
        seed: Option<Seed>,
    ) -> Result<(Arc<Entry>, bool), Refused> {
        if let Some(known) = key.as_ref().and_then(|key| self.keys.get(key)).and_then(|id| self.table.get(id)) {
            return known.again(&digest, "this Idempotency-Key came with another body before");
        }
        let spec = Spec::new(&create, &self.config)?;
        let id = create.task_id.clone().unwrap_or_else(identity::task_id);
        if let Some(known) = self.table.get(&id) {
            return known.again(&digest, "there is a task with this id and another body");
        }
        if self.stopping.is_some() {
            return Err(Refused::Stopping);
        }
        if self.queue.len() >= self.config.queue && self.running >= self.config.concurrency {
            return Err(Refused::Full { waiting: self.queue.len() });
        }
        if create.task_id.is_some() {
            self.remove_folders(self.put_away(&id));
        }
        let root = self.config.directory.as_deref().unwrap_or(&self.log_root);
        let mut task = row::accepted(&id, &create, &spec, (root, &self.log_root));
        if let Some(seed) = seed {
            // Before the record: a task that is known to be seeded has its seed.
            self.keep_seed(&id, seed).map_err(|e| Refused::Journal(e.to_string()))?;
            let root = std::path::Path::new(&task.runtime.artifact_root).with_file_name("workspace");
            task.runtime.workspace_root = Some(root.display().to_string());
        }
        let record = Record {
            v: Record::VERSION,
            task,
            create: Some(create),
            key,
            digest: Some(digest),
            told: None,
            deleted: false,
        };
        if let Err(error) = self.ledger.write(&record).await {
            // With its seed.
            self.remove_folders(self.put_away(&id));
            return Err(Refused::Journal(error));
        }
        self.metrics.tasks.accept(&record.task);
        row::log(&record.task, None);
        let entry = self.insert(record, Some(spec)).map_err(|e| Refused::Journal(e.to_string()))?;
        Ok((entry, true))
    }

    fn keep_seed(&self, id: &str, seed: Seed) -> std::io::Result<()> {
        let folder = self.log_root.join(id);
        std::fs::create_dir_all(&folder)?;
        seed.move_to(&folder.join(run::SEED))
    }

    async fn amend(&mut self, id: &str, amendment: Amendment) -> Result<(Task, bool), Refused> {
        let row = self.table.get_mut(id).ok_or(Refused::Unknown)?;
        let mut record = row.record.clone();
        let changed = amendment(&mut record.task)?;
        if changed {
            self.ledger.write_through(&record).await.map_err(Refused::Journal)?;
            row.record = record;
            row.view.send_replace(row.record.task.clone());
        }
        Ok((row.record.task.clone(), changed))
    }

    /// Put a task into the table, and into the queue where it is to be run.
    fn insert(&mut self, record: Record, spec: Option<Spec>) -> io::Result<Arc<Entry>> {
        let id = record.task.task_id.clone();
        let limit = spec.as_ref().map_or(self.config.output_bytes, |spec| spec.output_bytes);
        // First: where it fails nothing of the task is known.
        let row = Row::new(record, spec, limit)?;
        if let Some(key) = &row.record.key {
            self.keys.insert(key.clone(), id.clone());
        }
        if let Some(spec) = &row.spec {
            self.arrivals += 1;
            self.queue.insert((std::cmp::Reverse(spec.priority), self.arrivals, id.clone()));
        }
        self.metrics.tasks.remember(&row.record.task);
        let entry = row.entry.clone();
        self.table.insert(id, row);
        Ok(entry)
    }

    /// A task of an earlier supervisor, as what it is now.
    fn take_over(&mut self, mut record: Record) -> Result<(), JournalError> {
        let spec = record.create.as_ref().and_then(|create| Spec::new(create, &self.config).ok());
        let spec = spec.filter(|_| record.task.state == State::Queued && self.config.requeue);
        if row::inherit(&mut record.task, spec.is_some()) {
            self.metrics.tasks.end(&record.task);
            row::log(&record.task, None);
        }
        if record.task.apply.as_mut().is_some_and(patch::forget_the_answer) {
            self.ledger.write_later(&record);
        }
        if record.ended_just_now() {
            record.task.finished_at.get_or_insert_with(identity::now);
        }
        let (id, before) = (record.task.task_id.clone(), record.task.output);
        let path = PathBuf::from(&record.task.runtime.log_root);
        let entry = self.insert(record, spec).map_err(|source| JournalError::Output { path, source })?;
        let output = written_since(&entry, before);
        if let Some(row) = self.table.get_mut(&id) {
            row.record.task.output = output;
            row.view.send_replace(row.record.task.clone());
        }
        Ok(())
    }

    /// Recorded as starting before anything of it runs: after a crash it is lost, and never run twice.
    async fn start_what_may(&mut self) {
        // While the disk takes nothing, a start would be refused as well.
        while self.running < self.config.concurrency && self.stopping.is_none() && !self.ledger.owes() {
            let Some(next) = self.queue.pop_first() else { return };
            let id = next.2.clone();
            let Some(row) = self.table.get_mut(&id) else { continue };
            let (Some(spec), Some(orders)) = (row.spec.take(), row.orders.take()) else { continue };
            self.running += 1;
            let recorded = self.update(Update { id: id.clone(), change: run::Change::Starting }).await;
            let Some(row) = self.table.get_mut(&id) else { continue };
            if !recorded {
                // It waits until the disk takes it; each later ask or end tries again.
                (row.spec, row.orders) = (Some(spec), Some(orders));
                self.running -= 1;
                self.queue.insert(next);
                return;
            }
            let run = run::Run {
                id,
                spec,
                launcher: self.launcher.clone(),
                config: self.config.clone(),
                artifacts: PathBuf::from(&row.record.task.runtime.artifact_root),
                workspace: row.record.task.runtime.workspace_root.clone().map(PathBuf::from),
                workers: self.workers.clone(),
                folders: self.folders.clone(),
                seed: self.log_root.join(&row.record.task.task_id).join(run::SEED),
                streams: (
                    run::Counted::new(&row.entry.stdout, &self.metrics),
                    run::Counted::new(&row.entry.stderr, &self.metrics),
                ),
                lines: self.lines.clone(),
                control: orders.control,
                typed: orders.typed,
                size: row.entry.size.subscribe(),
                updates: self.update_sender.clone(),
                told_to_end: false,
            };
            tokio::spawn(run.run());
        }
    }

    /// Whether it is in the journal. A start that is not there did not happen.
    async fn update(&mut self, update: Update) -> bool {
        let Some(row) = self.table.get_mut(&update.id) else { return false };
        let task = &mut row.record.task;
        let from = task.state;
        update.change.apply(task, row.cancelled);
        let ended = task.state.is_final();
        if ended {
            task.finished_at = Some(identity::now());
            task.output = written(&row.entry);
            if task.state == State::Cancelled && row.stopped {
                task.reason.get_or_insert_with(|| "the supervisor stopped".into());
            }
            (row.record.create, row.orders) = (None, None);
            self.running -= 1;
            self.ended = (self.ended.0 + 1, self.ended.1 + kept(&task.output));
        }
        let state = task.state;
        let turn = if ended { self.feed.turn().await } else { None };
        row.record.told = turn.as_ref().map(|turn| turn.numbers.clone());
        // A start that is not recorded is none; everything else has happened.
        let recorded = match state {
            State::Starting => self.ledger.write(&row.record).await,
            _ => self.ledger.note(&row.record).await,
        };
        if let Err(error) = &recorded {
            tracing::error!(error, task_id = update.id, "a task's state could not be recorded");
            if state == State::Starting {
                row.record.task.state = State::Queued;
                return false;
            }
        }
        // Before anybody is told, as with the journal.
        match turn {
            Some(turn) => turn.end(&row.record.task, Written::default()).await,
            None => self.feed.task(&row.record.task).await,
        }
        row.changed(from, &self.metrics.tasks);
        row.view.send_replace(row.record.task.clone());
        if ended {
            row.entry.end();
        }
        self.tell_who_waits_for_the_end();
        if self.keeps_too_much() {
            self.retain().await;
        }
        recorded.is_ok()
    }

    async fn delete(&mut self, id: &str) -> Result<(), Refused> {
        let row = self.table.get(id).ok_or(Refused::Unknown)?;
        if !row.record.task.state.is_final() {
            return Err(Refused::State("the task has not ended; cancel it first"));
        }
        let left = self.forget(id).await.map_err(Refused::Journal)?;
        self.remove_folders(left);
        Ok(())
    }

    fn list(&self, query: &Query) -> Page {
        let matches = |row: &&Row| {
            let task = &row.record.task;
            query.state.is_none_or(|state| task.state == state)
                && query.label.as_ref().is_none_or(|(key, value)| task.labels.get(key) == Some(value))
        };
        let after = query.after.clone().map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        let rows = self.table.range::<String, _>((after, std::ops::Bound::Unbounded)).map(|(_, row)| row);
        let mut tasks: Vec<Task> =
            rows.filter(matches).take(query.limit + 1).map(|row| row.record.task.clone()).collect();
        let more = tasks.len() > query.limit;
        tasks.truncate(query.limit);
        let next = tasks.last().filter(|_| more).map(|task| task.task_id.clone());
        Page { tasks, next }
    }
}
