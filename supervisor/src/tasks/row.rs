//! What the owner keeps of one task, and what becomes of it when the supervisor is another one.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use protocol::task::{Create, Output, State, Task};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::handle::{Control, Entry, Refused, Ways};
use super::identity;
use super::journal::Record;
use super::output::Stream;
use super::request::Spec;
use super::run::Typed;
use crate::metrics;

/// A line of the table.
pub(super) struct Row {
    pub(super) entry: Arc<Entry>,
    pub(super) view: watch::Sender<Task>,
    pub(super) record: Record,
    pub(super) spec: Option<Spec>,
    /// Taken by the run when it starts.
    pub(super) orders: Option<Orders>,
    pub(super) cancelled: bool,
    /// By the stop of the supervisor.
    pub(super) stopped: bool,
    /// Since when it is in its state, or known to this supervisor.
    pub(super) since: Instant,
}

/// The run's ends of what its clients and its owner say.
pub(super) struct Orders {
    pub(super) control: mpsc::Receiver<Control>,
    pub(super) typed: mpsc::Receiver<Typed>,
}

impl Row {
    /// With the streams where the record says that they are; `limit` is for each of them. Fails where those cannot be seen now.
    pub(super) fn new(record: Record, spec: Option<Spec>, limit: u64) -> io::Result<Row> {
        let log = PathBuf::from(&record.task.runtime.log_root);
        let stream = |name| match record.task.state {
            State::Queued => Ok(Stream::new(&log, name, limit)),
            _ => Stream::reopen(&log, name, limit),
        };
        let (stdout, stderr) = (Arc::new(stream("stdout")?), Arc::new(stream("stderr")?));
        let (ways, orders) = if record.task.state.is_final() { (None, None) } else { reach() };
        let size = watch::Sender::new(record.task.terminal);
        let (view, view_receiver) = watch::channel(record.task.clone());
        let entry = Entry { view: view_receiver, stdout, stderr, size, ways: Mutex::new(ways) };
        Ok(Row {
            entry: Arc::new(entry),
            view,
            record,
            spec,
            orders,
            cancelled: false,
            stopped: false,
            since: Instant::now(),
        })
    }

    /// What is answered to who asks for it once more: the same task for the same body, else why not.
    pub(super) fn again(&self, digest: &str, otherwise: &'static str) -> Result<(Arc<Entry>, bool), Refused> {
        match self.record.digest.as_deref() == Some(digest) {
            true => Ok((self.entry.clone(), false)),
            false => Err(Refused::Conflict(otherwise)),
        }
    }

    /// It has left the state `from`: counted and logged once for each change.
    pub(super) fn changed(&mut self, from: State, metrics: &metrics::Tasks) {
        let lasted = std::mem::replace(&mut self.since, Instant::now()).elapsed();
        metrics.change(from, &self.record.task, lasted);
        log(&self.record.task, Some(lasted));
    }
}

fn reach() -> (Option<Ways>, Option<Orders>) {
    let (to_control, control) = mpsc::channel(8);
    let (to_typed, typed) = mpsc::channel(8);
    (Some(Ways { control: to_control, typed: to_typed }), Some(Orders { control, typed }))
}

/// The line of a task's new state, with how long it was in the one before. What a task is given and what it writes is not
/// in it: of the reason it has our own words, and what stands after their colon is the client's to see.
pub(super) fn log(task: &Task, lasted: Option<Duration>) {
    let Task { task_id, exit_code, signal, .. } = task;
    let (class, state) = (task.runtime.execution_class.name(), task.state.name());
    let reason = task.reason.as_deref().and_then(|reason| reason.split(':').next());
    let duration_ms = lasted.map(|lasted| lasted.as_millis() as u64);
    tracing::info!(task_id, class, state, reason, exit_code, signal, duration_ms, "a task");
}

/// A task as it is accepted: `root` is where its folders will be, `log_root` where its output.
pub(super) fn accepted(id: &str, create: &Create, spec: &Spec, (root, log_root): (&Path, &Path)) -> Task {
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
            log_root: log_root.join(id).join("log").display().to_string(),
            workspace_root: None,
        },
        terminal: spec.terminal,
        diff: None,
        apply: None,
        output: Output::default(),
        usage: protocol::control::Usage::default(),
    }
}

/// Tell of a task of an earlier supervisor as what it is now; whether it ended with that one. `may_run` says that a queued
/// one still can be run.
pub(super) fn inherit(task: &mut Task, may_run: bool) -> bool {
    let (state, reason) = match task.state {
        State::Queued if !may_run => (State::Failed, "the supervisor ended before this task ran"),
        State::Starting | State::Running => {
            (State::Lost, "the supervisor ended while this task ran; what it wrote until then is kept")
        }
        _ => return false,
    };
    (task.state, task.reason) = (state, Some(reason.into()));
    true
}

/// How much output there is.
pub(super) fn written(entry: &Entry) -> Output {
    let (stdout, stderr) = (*entry.stdout.progress().borrow(), *entry.stderr.progress().borrow());
    Output { stdout_bytes: stdout.total, stderr_bytes: stderr.total, cut_bytes: stdout.cut + stderr.cut }
}

/// The same where an earlier supervisor saw this much: what a loss of power has taken of it was written, and is no longer kept.
pub(super) fn written_since(entry: &Entry, before: Output) -> Output {
    let there = written(entry);
    let stdout = before.stdout_bytes.saturating_sub(there.stdout_bytes);
    let stderr = before.stderr_bytes.saturating_sub(there.stderr_bytes);
    Output {
        stdout_bytes: there.stdout_bytes + stdout,
        stderr_bytes: there.stderr_bytes + stderr,
        cut_bytes: there.cut_bytes + stdout + stderr,
    }
}
