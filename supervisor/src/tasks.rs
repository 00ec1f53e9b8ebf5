//! Dev-tasks: accepted, run beside the agent, and told of truthfully, also after a crash.
//!
//! One task of the event loop owns the table, the queue and the journal; clients reach it through [`Handle`], and
//! each dev-task's own life is [`run`]. What a client is told was written to the journal before.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use protocol::task::{Create, Output, State, Task};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

pub mod config;
pub(crate) mod identity;
pub mod journal;
mod ledger;
pub mod output;
pub mod patch;
pub mod request;
pub(crate) mod run;

pub use config::Config;
use journal::Record;
use ledger::Ledger;
use output::Stream;
use request::{Invalid, Spec};

use crate::launch::Launcher;
use crate::metrics::Metrics;
use crate::workspace::seeds::Seed;
use crate::workspace::work::Work;
use crate::workspace::workers::{Input, Workers};

/// Why a request was not granted.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// A field is wrong.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The id or the key belongs to another task.
    #[error("{0}")]
    Conflict(&'static str),
    /// Too many wait.
    #[error("{waiting} tasks wait already; try again later")]
    Full {
        /// How many.
        waiting: usize,
    },
    /// There is no such task.
    #[error("there is no such task")]
    Unknown,
    /// The task is not in a state for this.
    #[error("{0}")]
    State(&'static str),
    /// The supervisor stops.
    #[error("the supervisor stops and takes no more tasks")]
    Stopping,
    /// The journal cannot be written, so nothing was accepted.
    #[error("the task could not be recorded: {0}")]
    Journal(String),
}

/// What clients see of one task.
pub struct Entry {
    /// The answer, as it changes.
    pub view: watch::Receiver<Task>,
    /// Standard output.
    pub stdout: Arc<Stream>,
    /// Standard error.
    pub stderr: Arc<Stream>,
    control: mpsc::Sender<Control>,
}

/// What a running task can be told.
#[derive(Debug)]
pub(crate) enum Control {
    /// End it, with this much time until KILL where it is less than the usual.
    End(Duration),
    /// Send this signal to its main program.
    Signal(i32),
    /// More standard input; answers whether it was taken.
    Input(Vec<u8>, oneshot::Sender<bool>),
    /// No more standard input.
    CloseInput,
}

/// A page of the list.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// Only this state.
    pub state: Option<State>,
    /// Only with this label.
    pub label: Option<(String, String)>,
    /// After this id.
    pub after: Option<String>,
    /// At most so many.
    pub limit: usize,
}

/// A page: tasks by id, and the id to go on after.
#[derive(Debug)]
pub struct Page {
    /// In order of their ids.
    pub tasks: Vec<Task>,
    /// Where more follow.
    pub next: Option<String>,
}

/// A change of what is told of a task; answers whether it changed anything.
type Amendment = Box<dyn FnOnce(&mut Task) -> Result<bool, Refused> + Send>;

/// Beginning of a folder's name on its way out; no task's id begins with a dot.
const REMOVED: &str = ".removed-";

type Reply<T> = oneshot::Sender<Result<T, Refused>>;

/// What clients ask, on its way to the owner.
pub struct Asks(mpsc::Receiver<Ask>);

/// A handle that can be given away before there is an owner: what is asked waits for it.
pub fn handle() -> (Handle, Asks) {
    let (sender, asks) = mpsc::channel(64);
    (Handle { asks: sender }, Asks(asks))
}

enum Ask {
    Create {
        create: Box<Create>,
        key: Option<String>,
        digest: String,
        seed: Option<Seed>,
        reply: Reply<(Arc<Entry>, bool)>,
    },
    Amend {
        id: String,
        amendment: Amendment,
        reply: Reply<(Task, bool)>,
    },
    Get {
        id: String,
        reply: Reply<Arc<Entry>>,
    },
    List {
        query: Query,
        reply: oneshot::Sender<Page>,
    },
    Control {
        id: String,
        control: Control,
        reply: Reply<Arc<Entry>>,
    },
    Delete {
        id: String,
        reply: Reply<()>,
    },
    Stop {
        deadline: Instant,
        done: oneshot::Sender<()>,
    },
}

/// Reaches the owner.
#[derive(Clone)]
pub struct Handle {
    asks: mpsc::Sender<Ask>,
}

impl Handle {
    /// Accept a task. The flag says that it is new; a repeated `key` answers the first one.
    pub async fn create(
        &self,
        create: Create,
        key: Option<String>,
        digest: String,
        seed: Option<Seed>,
    ) -> Result<(Arc<Entry>, bool), Refused> {
        self.ask(|reply| Ask::Create { create: Box::new(create), key, digest, seed, reply }).await
    }

    /// Change what is told of a task. On return the change is on the disk.
    pub async fn amend(
        &self,
        id: String,
        amendment: impl FnOnce(&mut Task) -> Result<bool, Refused> + Send + 'static,
    ) -> Result<(Task, bool), Refused> {
        self.ask(|reply| Ask::Amend { id, amendment: Box::new(amendment), reply }).await
    }

    /// One task.
    pub async fn get(&self, id: String) -> Result<Arc<Entry>, Refused> {
        self.ask(|reply| Ask::Get { id, reply }).await
    }

    /// A page of them.
    pub async fn list(&self, query: Query) -> Page {
        let (reply, answer) = oneshot::channel();
        let _ = self.asks.send(Ask::List { query, reply }).await;
        answer.await.unwrap_or(Page { tasks: Vec::new(), next: None })
    }

    /// Ask for its end; one that has ended stays as it is.
    pub async fn cancel(&self, id: String) -> Result<Arc<Entry>, Refused> {
        self.ask(|reply| Ask::Control { id, control: Control::End(Duration::MAX), reply }).await
    }

    /// Send a signal to its main program.
    pub async fn signal(&self, id: String, signal: i32) -> Result<Arc<Entry>, Refused> {
        self.ask(|reply| Ask::Control { id, control: Control::Signal(signal), reply }).await
    }

    /// More standard input, all of it or, when this answers an error, maybe a part.
    pub async fn input(&self, id: String, bytes: Vec<u8>) -> Result<(), Refused> {
        let (taken, answer) = oneshot::channel();
        self.ask(|reply| Ask::Control { id, control: Control::Input(bytes, taken), reply }).await?;
        match answer.await {
            Ok(true) => Ok(()),
            _ => Err(Refused::State("standard input is closed")),
        }
    }

    /// Close standard input.
    pub async fn close_input(&self, id: String) -> Result<(), Refused> {
        self.ask(|reply| Ask::Control { id, control: Control::CloseInput, reply }).await.map(drop)
    }

    /// Forget an ended task with all that it left.
    pub async fn delete(&self, id: String) -> Result<(), Refused> {
        self.ask(|reply| Ask::Delete { id, reply }).await
    }

    /// Refuse new tasks and end all, by KILL at `deadline`; answers when nobody is left.
    pub async fn stop(&self, deadline: Instant) {
        let (done, ended) = oneshot::channel();
        if self.asks.send(Ask::Stop { deadline, done }).await.is_ok() {
            let _ = ended.await;
        }
    }

    async fn ask<T>(&self, ask: impl FnOnce(Reply<T>) -> Ask) -> Result<T, Refused> {
        let (reply, answer) = oneshot::channel();
        self.asks.send(ask(reply)).await.map_err(|_| Refused::Stopping)?;
        answer.await.unwrap_or(Err(Refused::Stopping))
    }
}

/// The part.
pub struct Tasks {
    config: Config,
    launcher: Launcher,
    metrics: Arc<Metrics>,
    workers: Workers,
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

/// What the owner keeps of a task.
struct Row {
    entry: Arc<Entry>,
    view: watch::Sender<Task>,
    record: Record,
    spec: Option<Spec>,
    /// Taken by the run when it starts.
    control: Option<mpsc::Receiver<Control>>,
    cancelled: bool,
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
        directory: PathBuf,
        Asks(asks): Asks,
    ) -> Result<Tasks, journal::JournalError> {
        let (ledger, records) = Ledger::open(&directory.join("journal"), config.sync_always, metrics.clone())?;
        let (update_sender, updates) = mpsc::channel(64);
        let mut tasks = Tasks {
            config,
            workers: Workers::new(launcher.clone()),
            launcher,
            metrics,
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
            tasks.take_over(record);
        }
        tasks.remove_leftovers();
        Ok(tasks)
    }

    /// Until all handles are gone.
    pub async fn run(mut self) {
        let mut retention = tokio::time::interval(Duration::from_secs(60));
        retention.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            self.start_what_may().await;
            tokio::select! {
                ask = self.asks.recv() => match ask {
                    Some(ask) => self.answer(ask).await,
                    None => return,
                },
                Some(update) = self.updates.recv() => self.update(update).await,
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
            return match known.record.digest.as_ref() == Some(&digest) {
                true => Ok((known.entry.clone(), false)),
                false => Err(Refused::Conflict("this Idempotency-Key came with another body before")),
            };
        }
        let spec = Spec::new(&create, &self.config)?;
        let id = create.task_id.clone().unwrap_or_else(identity::task_id);
        if let Some(known) = self.table.get(&id) {
            return match known.record.digest.as_ref() == Some(&digest) {
                true => Ok((known.entry.clone(), false)),
                false => Err(Refused::Conflict("there is a task with this id and another body")),
            };
        }
        if self.stopping.is_some() {
            return Err(Refused::Stopping);
        }
        if self.queue.len() >= self.config.queue && self.running >= self.config.concurrency {
            return Err(Refused::Full { waiting: self.queue.len() });
        }
        if create.task_id.is_some() {
            self.remove_files(&id);
        }
        let mut task = self.new_task(&id, &create, &spec);
        if let Some(seed) = seed {
            // Before the record: a task that is known to be seeded has its seed.
            self.keep_seed(&id, seed).map_err(|e| Refused::Journal(e.to_string()))?;
            let root = std::path::Path::new(&task.runtime.artifact_root).with_file_name("workspace");
            task.runtime.workspace_root = Some(root.display().to_string());
        }
        let record =
            Record { v: Record::VERSION, task, create: Some(create), key, digest: Some(digest), deleted: false };
        self.ledger.write(&record).await.map_err(Refused::Journal)?;
        self.metrics.task_states.get_or_create(&vec![("state", State::Queued.name().into())]).inc();
        let entry = self.insert(record, Some(spec));
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
            self.ledger.write(&record).await.map_err(Refused::Journal)?;
            self.ledger.sync().await.map_err(|e| Refused::Journal(e.to_string()))?;
            row.record = record;
            row.view.send_replace(row.record.task.clone());
        }
        Ok((row.record.task.clone(), changed))
    }

    fn new_task(&self, id: &str, create: &Create, spec: &Spec) -> Task {
        let root = self.config.directory.as_deref().unwrap_or(&self.log_root);
        Task {
            task_id: id.to_string(),
            state: State::Queued,
            exit_code: None,
            signal: None,
            reason: None,
            oom_killed: None,
            created_at: identity::now(),
            started_at: None,
            finished_at: None,
            labels: create.labels.clone(),
            runtime: protocol::task::Runtime {
                backend_run_id: identity::run_id(),
                execution_class: spec.class,
                artifact_root: root.join(id).join("artifacts").display().to_string(),
                log_root: self.log_root.join(id).join("log").display().to_string(),
                workspace_root: None,
            },
            diff: None,
            apply: None,
            output: Output::default(),
            usage: protocol::control::Usage::default(),
        }
    }

    /// Put a task into the table, and into the queue where it is to be run.
    fn insert(&mut self, record: Record, spec: Option<Spec>) -> Arc<Entry> {
        let id = record.task.task_id.clone();
        let log = PathBuf::from(&record.task.runtime.log_root);
        let limit = spec.as_ref().map_or(self.config.output_bytes, |spec| spec.output_bytes);
        let stream = |name| match record.task.state {
            State::Queued => Arc::new(Stream::new(&log, name, limit)),
            _ => Arc::new(Stream::reopen(&log, name, limit)),
        };
        let (control_sender, control) = mpsc::channel(8);
        let (view, view_receiver) = watch::channel(record.task.clone());
        let (stdout, stderr) = (stream("stdout"), stream("stderr"));
        let entry = Arc::new(Entry { view: view_receiver, stdout, stderr, control: control_sender });
        if let Some(key) = &record.key {
            self.keys.insert(key.clone(), id.clone());
        }
        if let Some(spec) = &spec {
            self.arrivals += 1;
            self.queue.insert((std::cmp::Reverse(spec.priority), self.arrivals, id.clone()));
        }
        let row = Row { entry: entry.clone(), view, record, spec, control: Some(control), cancelled: false };
        self.table.insert(id, row);
        entry
    }

    /// A task of an earlier supervisor: reported once, as what it is now.
    fn take_over(&mut self, mut record: Record) {
        let spec = record.create.as_ref().and_then(|create| Spec::new(create, &self.config).ok());
        let spec = match record.task.state {
            State::Queued if self.config.requeue && spec.is_some() => spec,
            State::Queued => {
                let reason = "the supervisor ended before this task ran";
                (record.task.state, record.task.reason) = (State::Failed, Some(reason.into()));
                None
            }
            State::Starting | State::Running => {
                let reason = "the supervisor ended while this task ran; what it wrote until then is kept";
                (record.task.state, record.task.reason) = (State::Lost, Some(reason.into()));
                None
            }
            _ => None,
        };
        if record.task.apply.as_mut().is_some_and(patch::forget_the_answer) {
            self.ledger.write_later(&record);
        }
        if spec.is_none() && record.create.take().is_some() {
            record.task.finished_at.get_or_insert_with(identity::now);
            self.ledger.write_later(&record);
        }
        let entry = self.insert(record, spec);
        let output = written(&entry);
        if let Some(row) = self.table.values_mut().find(|row| Arc::ptr_eq(&row.entry, &entry)) {
            row.record.task.output = output;
            row.view.send_replace(row.record.task.clone());
        }
    }

    /// Recorded as starting before anything of it runs: after a crash it is lost, and never run twice.
    async fn start_what_may(&mut self) {
        while self.running < self.config.concurrency && self.stopping.is_none() {
            let Some((_, _, id)) = self.queue.pop_first() else { return };
            let Some(row) = self.table.get_mut(&id) else { continue };
            let (Some(spec), Some(control)) = (row.spec.take(), row.control.take()) else { continue };
            self.running += 1;
            self.update(Update { id: id.clone(), change: run::Change::Starting }).await;
            let Some(row) = self.table.get(&id) else { continue };
            let run = run::Run {
                id,
                spec,
                launcher: self.launcher.clone(),
                config: self.config.clone(),
                artifacts: PathBuf::from(&row.record.task.runtime.artifact_root),
                workspace: row.record.task.runtime.workspace_root.clone().map(PathBuf::from),
                workers: self.workers.clone(),
                seed: self.log_root.join(&row.record.task.task_id).join(run::SEED),
                streams: (row.entry.stdout.clone(), row.entry.stderr.clone()),
                control,
                updates: self.update_sender.clone(),
                told_to_end: false,
            };
            tokio::spawn(run.run());
        }
    }

    async fn update(&mut self, update: Update) {
        let Some(row) = self.table.get_mut(&update.id) else { return };
        let task = &mut row.record.task;
        update.change.apply(task, row.cancelled);
        let ended = task.state.is_final();
        if ended {
            task.finished_at = Some(identity::now());
            task.output = written(&row.entry);
            if task.state == State::Cancelled && self.stopping.is_some() {
                task.reason.get_or_insert_with(|| "the supervisor stopped".into());
            }
            row.record.create = None;
            self.running -= 1;
            self.ended = (self.ended.0 + 1, self.ended.1 + kept(&task.output));
        }
        let state = task.state;
        tracing::info!(task_id = update.id, state = state.name(), exit_code = task.exit_code, "a task");
        self.metrics.task_states.get_or_create(&vec![("state", state.name().into())]).inc();
        if let Err(error) = self.ledger.write(&row.record).await {
            tracing::error!(error, task_id = update.id, "a task's state could not be recorded");
        }
        row.view.send_replace(row.record.task.clone());
        if ended {
            row.entry.stdout.end();
            row.entry.stderr.end();
        }
        self.tell_who_waits_for_the_end();
        if self.keeps_too_much() {
            self.retain().await;
        }
    }

    fn tell_who_waits_for_the_end(&mut self) {
        if self.running == 0
            && let Some(waiting) = &mut self.stopping
        {
            for done in waiting.drain(..) {
                // Who no longer waits need not be told.
                let _ = done.send(());
            }
        }
    }

    async fn control(&mut self, id: &str, control: Control) -> Result<Arc<Entry>, Refused> {
        let row = self.table.get_mut(id).ok_or(Refused::Unknown)?;
        let cancel = matches!(control, Control::End(_));
        if row.record.task.state.is_final() {
            return if cancel { Ok(row.entry.clone()) } else { Err(Refused::State("the task has ended")) };
        }
        if row.spec.is_some() {
            if !cancel {
                return Err(Refused::State("the task has not started yet"));
            }
            return self.cancel_queued(id).await;
        }
        row.cancelled |= cancel;
        let entry = row.entry.clone();
        // A run takes its controls at once; one that is just ending no longer does, and its end is on the way.
        let _ = entry.control.send(control).await;
        Ok(entry)
    }

    async fn cancel_queued(&mut self, id: &str) -> Result<Arc<Entry>, Refused> {
        self.queue.retain(|(_, _, queued)| queued != id);
        let row = self.table.get_mut(id).ok_or(Refused::Unknown)?;
        row.spec = None;
        row.cancelled = true;
        let entry = row.entry.clone();
        self.running += 1;
        self.update(Update { id: id.to_string(), change: run::Change::NeverRan }).await;
        Ok(entry)
    }

    async fn delete(&mut self, id: &str) -> Result<(), Refused> {
        let row = self.table.get(id).ok_or(Refused::Unknown)?;
        if !row.record.task.state.is_final() {
            return Err(Refused::State("the task has not ended; cancel it first"));
        }
        self.forget(id).await.map_err(Refused::Journal)
    }

    /// First the record, then the files: after a crash between the two the files are found and removed.
    async fn forget(&mut self, id: &str) -> Result<(), String> {
        let Some(row) = self.table.get(id) else { return Ok(()) };
        let record = Record { deleted: true, ..row.record.clone() };
        self.ledger.write(&record).await?;
        self.table.remove(id);
        self.keys.retain(|_, known| known != id);
        self.remove_files(id);
        Ok(())
    }

    fn remove_files(&self, id: &str) {
        let roots = [Some(self.log_root.clone()), self.config.directory.clone()];
        // Moved at once, so that a new task of this name finds nothing.
        let moved = |root: PathBuf| {
            let away = root.join(format!("{REMOVED}{}", identity::run_id()));
            std::fs::rename(root.join(id), &away).is_ok().then_some(away)
        };
        self.remove_folders(roots.into_iter().flatten().filter_map(moved).collect());
    }

    /// What no record tells of: its task was forgotten just before a crash, or its line was damaged.
    fn remove_leftovers(&self) {
        let entries = |root: &PathBuf| std::fs::read_dir(root).into_iter().flatten().flatten();
        let roots = [Some(self.log_root.clone()), self.config.directory.clone()];
        let is_removed =
            |entry: &std::fs::DirEntry| entry.file_name().as_encoded_bytes().starts_with(REMOVED.as_bytes());
        let removed = roots.iter().flatten().flat_map(entries).filter(is_removed);
        self.remove_folders(removed.map(|entry| entry.path()).collect());
        for entry in entries(&self.log_root).filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            let name = entry.file_name();
            if let Some(id) = name.to_str().filter(|id| !id.starts_with('.') && !self.table.contains_key(*id)) {
                self.remove_files(id);
            }
        }
    }

    fn remove_folders(&self, folders: Vec<PathBuf>) {
        if folders.is_empty() {
            return;
        }
        let workers = self.workers.clone();
        tokio::spawn(async move {
            for folder in folders {
                if remove(folder.clone()).await {
                    continue;
                }
                // What another uid made, or closed, only that uid can empty.
                for own in ["workspace", "artifacts", "scratch"].map(|name| folder.join(name)) {
                    let _ = workers.run(&Work::Clear { root: own }, Input::None).await;
                }
                if !remove(folder.clone()).await {
                    tracing::warn!(folder = %folder.display(), "what a task left could not be removed");
                }
            }
        });
    }

    /// A tenth above the bounds, so that not every end has to look at all that ended before.
    fn keeps_too_much(&self) -> bool {
        let (count, bytes) = self.ended;
        count > self.config.keep_count + self.config.keep_count / 10
            || bytes > self.config.keep_bytes.saturating_add(self.config.keep_bytes / 10)
    }

    /// Oldest first, until count, age and bytes are within their bounds.
    async fn retain(&mut self) {
        let mut ended: Vec<(String, String, u64)> = self
            .table
            .iter()
            .filter(|(_, row)| row.record.task.state.is_final())
            .map(|(id, row)| {
                let task = &row.record.task;
                (task.finished_at.clone().unwrap_or_default(), id.clone(), kept(&task.output))
            })
            .collect();
        ended.sort();
        let oldest_allowed = identity::time(SystemTime::now() - self.config.keep_age);
        let mut bytes: u64 = ended.iter().map(|(_, _, kept)| kept).sum();
        let mut count = ended.len();
        for (finished, id, kept) in ended {
            if count <= self.config.keep_count && bytes <= self.config.keep_bytes && finished >= oldest_allowed {
                break;
            }
            if let Err(error) = self.forget(&id).await {
                tracing::error!(error, task_id = id, "an old task could not be forgotten");
                return;
            }
            (count, bytes) = (count - 1, bytes - kept);
        }
        self.ended = (count, bytes);
        self.ledger.tidy(self.table.values().map(|row| &row.record));
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

    /// What waits stays in the journal and is the next supervisor's.
    fn stop(&mut self, deadline: Instant, done: oneshot::Sender<()>) {
        self.stopping.get_or_insert_default().push(done);
        for row in self.table.values_mut().filter(|row| row.control.is_none() && row.spec.is_none()) {
            row.cancelled = true;
            let grace = deadline.saturating_duration_since(Instant::now());
            let _ = row.entry.control.try_send(Control::End(grace));
        }
        self.tell_who_waits_for_the_end();
    }
}

/// Bytes on disk.
fn kept(output: &Output) -> u64 {
    (output.stdout_bytes + output.stderr_bytes).saturating_sub(output.cut_bytes)
}

/// Without following links; whether nothing is left.
async fn remove(folder: PathBuf) -> bool {
    let removing = tokio::task::spawn_blocking(move || match std::fs::remove_dir_all(folder) {
        Err(e) => e.kind() == std::io::ErrorKind::NotFound,
        Ok(()) => true,
    });
    removing.await.unwrap_or(false)
}

fn written(entry: &Entry) -> Output {
    let (stdout, stderr) = (*entry.stdout.progress().borrow(), *entry.stderr.progress().borrow());
    Output { stdout_bytes: stdout.total, stderr_bytes: stderr.total, cut_bytes: stdout.cut + stderr.cut }
}
