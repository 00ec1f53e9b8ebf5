//! What is sent: records of what became of supervisor, agent and tasks, results, and samples, on their way to the buffer.
//!
//! Promises: records are numbered in the order in which they are told; a result is in the buffer before a client sees that
//! its task has ended; nobody waits for the gateway, and without a link nothing is written at all.
//!
//! Invariant of a task's end, over any kill: who tells it takes a [`Turn`], notes the turn's [`Numbers`] in the journal, and
//! then tells. Nobody else is given a number meanwhile, nor by the next life before it has told what was noted. So that life
//! knows of each of the two records whether it was written: it was if, and only if, its number is on the disk. One that was
//! not is told then, once.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use protocol::control::Exit;
use protocol::session::{Class, Record};
use protocol::task::Task;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval};

use super::sample;
use crate::agent::Status;
use crate::buffer::{BufferError, Handle};
use crate::exit::reason;
use crate::machine::Machine;
use crate::metrics::Metrics;

/// Records that wait for the buffer; who tells one more waits too.
const QUEUE: usize = 256;

/// Where parts tell what happened. Without a link it takes everything and keeps nothing.
#[derive(Clone, Default)]
pub struct Feed {
    items: Option<mpsc::Sender<Item>>,
    machine: Machine,
    before: Option<Arc<Numbers>>,
}

enum Item {
    Record { class: Class, record: Record, written: Option<oneshot::Sender<()>> },
    Turn(oneshot::Sender<Turn>),
}

/// While it is held, only what is told to its own feed is written.
pub struct Turn {
    /// Of the next records.
    pub numbers: Numbers,
    feed: Feed,
}

/// What the next lifecycle record and the next result are numbered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numbers {
    epoch: String,
    lifecycle: i64,
    results: i64,
}

/// Writes what was told, one after the other.
pub struct Writer {
    items: mpsc::Receiver<Item>,
    buffer: Handle,
    machine: Machine,
}

impl Numbers {
    /// Those behind the last that are on the disk, and those that come next.
    async fn of(buffer: &Handle) -> Result<(Numbers, Numbers), BufferError> {
        let all = buffer.next().await?;
        let of = |class| all.get(&class).copied().unwrap_or((1, 1));
        let ((lifecycle, next_lifecycle), (results, next_results)) = (of(Class::Lifecycle), of(Class::Results));
        let numbers = |lifecycle, results| Numbers { epoch: buffer.epoch().into(), lifecycle, results };
        Ok((numbers(lifecycle, results), numbers(next_lifecycle, next_results)))
    }

    /// What was written of the two records that were to get these numbers, where `now` are those behind the last on the disk. What
    /// another buffer had is lost with it, and not told again.
    pub fn written(&self, now: &Numbers) -> Written {
        let other = self.epoch != now.epoch;
        Written { state: other || self.lifecycle < now.lifecycle, result: other || self.results < now.results }
    }

    /// These, but for what was `written` with `earlier` ones.
    pub fn after(mut self, earlier: &Numbers, written: Written) -> Numbers {
        if written.state {
            self.lifecycle = earlier.lifecycle;
        }
        if written.result {
            self.results = earlier.results;
        }
        self
    }
}

/// Which records of a task's end are in the buffer, or have been.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Its last state.
    pub state: bool,
    /// What came of it.
    pub result: bool,
}

impl Written {
    /// Both.
    pub const ALL: Written = Written { state: true, result: true };
}

impl Turn {
    /// A task has ended: its last state, then what came of it, each unless it is `written`. They are on return.
    pub async fn end(self, task: &Task, written: Written) {
        if !written.state {
            self.feed.task(task).await;
        }
        if !written.result {
            let result = serde_json::to_value(task).unwrap_or_default();
            self.feed.tell_for_good(Class::Results, "task.result", result).await;
        }
    }
}

impl Feed {
    /// A feed into `buffer`, to which nobody else appends these classes, and the part to run.
    pub async fn new(buffer: Handle, machine: Machine) -> Result<(Feed, Writer), BufferError> {
        let (sender, items) = mpsc::channel(QUEUE);
        let before = Some(Arc::new(Numbers::of(&buffer).await?.0));
        Ok((Feed { items: Some(sender), machine: machine.clone(), before }, Writer { items, buffer, machine }))
    }

    /// Where the buffer stood when this life began; nothing without a link.
    pub fn before(&self) -> Option<Arc<Numbers>> {
        self.before.clone()
    }

    /// The next turn; nothing without a link, or at the end of everything.
    pub async fn turn(&self) -> Option<Turn> {
        let (sender, turn) = oneshot::channel();
        self.items.as_ref()?.send(Item::Turn(sender)).await.ok()?;
        turn.await.ok()
    }

    /// Something happened.
    pub async fn tell(&self, kind: impl Into<String>, body: Value) {
        self.send(Class::Lifecycle, kind.into(), body, None).await;
    }

    /// The same; it is written on return.
    pub async fn tell_for_good(&self, class: Class, kind: impl Into<String>, body: Value) {
        let (written, done) = oneshot::channel();
        self.send(class, kind.into(), body, Some(written)).await;
        if self.items.is_some() {
            let _ = done.await;
        }
    }

    /// A task is in another state.
    pub async fn task(&self, task: &Task) {
        if self.items.is_none() {
            return;
        }
        let body = json!({
            "task_id": task.task_id,
            "backend_run_id": task.runtime.backend_run_id,
            "execution_class": task.runtime.execution_class,
            "exit_code": task.exit_code,
            "signal": task.signal,
            "reason": task.reason,
        });
        self.tell(format!("task.{}", task.state.name()), body).await;
    }

    async fn send(&self, class: Class, kind: String, body: Value, written: Option<oneshot::Sender<()>>) {
        let Some(sender) = &self.items else { return };
        let record = record(&self.machine, kind, body);
        let _ = sender.send(Item::Record { class, record, written }).await;
    }

    /// Tell every change of the agent; for as long as the supervisor runs.
    pub async fn follow(self, mut status: watch::Receiver<Status>) {
        let mut told = None;
        loop {
            let now = status.borrow_and_update().clone();
            let known = (now.phase, now.ready, now.restarts);
            if told.is_none_or(|(phase, _, restarts)| (phase, restarts) != (now.phase, now.restarts)) {
                self.tell(format!("agent.{}", now.phase.name()), agent(&now)).await;
            }
            if told.map_or(now.ready, |(_, ready, _)| ready != now.ready) {
                let kind = if now.ready { "agent.ready" } else { "agent.unready" };
                self.tell(kind, json!({ "restarts": now.restarts })).await;
            }
            told = Some(known);
            if status.changed().await.is_err() {
                return;
            }
        }
    }

    /// Take a sample every so often; for as long as the supervisor runs.
    pub async fn sample(self, every: Duration, buffer: Handle, workspace: PathBuf, metrics: Arc<Metrics>) {
        let mut activity = sample::Activity::new(self.machine.now());
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let idle = activity.idle(self.machine.now(), sample::work(&metrics));
            let workspace = workspace.clone();
            let Ok(body) = tokio::task::spawn_blocking(move || sample::take(&workspace, idle)).await else { continue };
            let record = record(&self.machine, "sample".into(), body);
            buffer.offer(Class::Metrics, serde_json::to_vec(&record).unwrap_or_default());
        }
    }
}

/// Of this moment.
pub(super) fn record(machine: &Machine, kind: String, body: Value) -> Record {
    Record { wall_ms: machine.wall_ms(), boot_ms: machine.boot_ms(), kind, body }
}

fn agent(status: &Status) -> Value {
    let exit = status.last_exit.filter(|_| status.over);
    let signal = match exit {
        Some(Exit::Signal(signal)) => Some(signal),
        _ => None,
    };
    json!({
        "restarts": status.restarts,
        "exit_code": exit.map(Exit::code),
        "signal": signal,
        "oom": status.oom,
        "reason": status.reason,
    })
}

impl Writer {
    /// Until nobody tells anything any more.
    pub async fn run(mut self) {
        while let Some(item) = self.items.recv().await {
            match item {
                Item::Record { class, record, written } => self.write(class, record, written).await,
                Item::Turn(holder) => self.turn(holder).await,
            }
        }
    }

    /// Write for nobody else until the holder lets go.
    async fn turn(&self, holder: oneshot::Sender<Turn>) {
        let Ok((_, numbers)) = Numbers::of(&self.buffer).await else { return };
        let (sender, mut items) = mpsc::channel(1);
        let feed = Feed { items: Some(sender), machine: self.machine.clone(), before: None };
        if holder.send(Turn { numbers, feed }).is_ok() {
            while let Some(Item::Record { class, record, written }) = items.recv().await {
                self.write(class, record, written).await;
            }
        }
    }

    async fn write(&self, class: Class, record: Record, written: Option<oneshot::Sender<()>>) {
        let bytes = serde_json::to_vec(&record).unwrap_or_default();
        if let Err(error) = self.buffer.append(class, bytes).await {
            // Its number is a gap; the buffer's own metrics and health tell of the disk.
            tracing::warn!(kind = record.kind, error = %reason(&error), "a record could not be kept");
        }
        if let Some(written) = written {
            let _ = written.send(());
        }
    }
}
