//! What is sent: records of what became of supervisor, agent and tasks, results, and samples, on their way to the buffer.
//!
//! Promises: records are numbered in the order in which they are told; a result is in the buffer before a client sees that
//! its task has ended; nobody waits for the gateway, and without a link nothing is written at all.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use protocol::control::Exit;
use protocol::session::{Class, Record};
use protocol::task::Task;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval};

use super::{clock, sample};
use crate::agent::Status;
use crate::buffer::Handle;
use crate::exit::reason;
use crate::metrics::Metrics;

/// Records that wait for the buffer; who tells one more waits too.
const QUEUE: usize = 256;
/// Between two samples.
const SAMPLES: Duration = Duration::from_secs(60);

/// Where parts tell what happened. Without a link it takes everything and keeps nothing.
#[derive(Clone, Default)]
pub struct Feed(Option<mpsc::Sender<Item>>);

struct Item {
    class: Class,
    record: Record,
    written: Option<oneshot::Sender<()>>,
}

/// Writes what was told, one after the other.
pub struct Writer {
    items: mpsc::Receiver<Item>,
    buffer: Handle,
}

impl Feed {
    /// A feed into `buffer`, and the part to run.
    pub fn new(buffer: Handle) -> (Feed, Writer) {
        let (sender, items) = mpsc::channel(QUEUE);
        (Feed(Some(sender)), Writer { items, buffer })
    }

    /// Something happened.
    pub async fn tell(&self, kind: impl Into<String>, body: Value) {
        self.send(Class::Lifecycle, kind.into(), body, None).await;
    }

    /// The same; it is written on return.
    pub async fn tell_for_good(&self, class: Class, kind: impl Into<String>, body: Value) {
        let (written, done) = oneshot::channel();
        self.send(class, kind.into(), body, Some(written)).await;
        if self.0.is_some() {
            let _ = done.await;
        }
    }

    /// A task is in another state. Its result is written on return.
    pub async fn task(&self, task: &Task) {
        if self.0.is_none() {
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
        if task.state.is_final() {
            let result = serde_json::to_value(task).unwrap_or_default();
            self.tell_for_good(Class::Results, "task.result", result).await;
        }
    }

    async fn send(&self, class: Class, kind: String, body: Value, written: Option<oneshot::Sender<()>>) {
        let Some(sender) = &self.0 else { return };
        let record = record(kind, body);
        let _ = sender.send(Item { class, record, written }).await;
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

    /// Take a sample now and then; for as long as the supervisor runs.
    pub async fn sample(self, buffer: Handle, workspace: PathBuf, metrics: Arc<Metrics>) {
        let mut activity = sample::Activity::new(clock::now());
        let mut ticks = interval(SAMPLES);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let idle = activity.idle(clock::now(), sample::work(&metrics));
            let workspace = workspace.clone();
            let Ok(body) = tokio::task::spawn_blocking(move || sample::take(&workspace, idle)).await else { continue };
            let record = record("sample".into(), body);
            buffer.offer(Class::Metrics, serde_json::to_vec(&record).unwrap_or_default());
        }
    }
}

/// Of this moment.
fn record(kind: String, body: Value) -> Record {
    Record { wall_ms: clock::wall_ms(), boot_ms: clock::boot_ms(), kind, body }
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
        while let Some(Item { class, record, written }) = self.items.recv().await {
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
}
