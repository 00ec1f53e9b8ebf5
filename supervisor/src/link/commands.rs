//! Commands of the gateway: applied once, one after the other, also over a crash and over sessions.
//!
//! Promises:
//!
//! - What became of a command is on the disk before the gateway is told, and is told again until the gateway has it.
//! - A crash between the two applies the command once more when it comes again, which changes nothing: the key of a task is
//!   the command's number, and a cancelled task stays cancelled.
//! - The end of the sandbox is the other way round, recorded before it begins: it must not come again after a restart.
//! - A refusal is an outcome like any other. Nothing is tried again by itself.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use axum::Router;
use axum::http::StatusCode;
use protocol::session::{COMMANDS, Command, Outcome};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use super::Ending;
use crate::http;
use crate::machine::Machine;
use crate::metrics::Metrics;
use crate::state::{Durability, StateDir, StateError};

const FILE: &str = "commands.json";
const LIMIT: u64 = 256 * 1024;
/// Outcomes that are kept for a gateway that does not acknowledge them.
const KEPT: usize = 64;
/// The longest reason, characters: outcomes of many commands go into one frame.
const REASON: usize = 512;

/// How far we are; what is on the disk.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// The newest command that was applied or refused.
    pub(crate) applied: i64,
    /// What became of those that the gateway has not acknowledged, oldest first.
    #[serde(default)]
    pub(crate) outcomes: VecDeque<Outcome>,
}

/// The session's side.
#[derive(Clone)]
pub(super) struct Inbox {
    items: mpsc::Sender<Item>,
    report: watch::Receiver<Report>,
    /// The newest that was taken: one that comes again in the next session waits already, or is done.
    taken: Arc<AtomicI64>,
}

enum Item {
    Command(Command),
    /// The gateway has the outcomes up to this one.
    Stored(i64),
}

/// The part.
pub(super) struct Commands {
    items: mpsc::Receiver<Item>,
    report: watch::Sender<Report>,
    /// Answer for tasks.
    routes: Router,
    /// Of the buffer: numbers of commands are used twice only by a supervisor that has lost all it knew.
    epoch: String,
    endings: mpsc::Sender<Ending>,
    directory: Arc<StateDir>,
    machine: Machine,
    metrics: Arc<Metrics>,
}

impl Inbox {
    /// Take a command; false where more are under way than may be.
    pub(super) fn take(&self, command: Command) -> bool {
        let n = command.n;
        if n <= self.taken.load(Ordering::Relaxed) {
            return true;
        }
        let taken = self.items.try_send(Item::Command(command)).is_ok();
        if taken {
            self.taken.store(n, Ordering::Relaxed);
        }
        taken
    }

    /// The gateway has stored what became of commands up to `n`.
    pub(super) fn stored(&self, n: i64) {
        // Without a place it is told once more in the next session, and acknowledged there.
        let _ = self.items.try_send(Item::Stored(n));
    }

    /// The newest command that was applied or refused.
    pub(super) fn applied(&self) -> i64 {
        self.report.borrow().applied
    }

    /// What became of those behind `told_of`, up to `commanded`; from here on it is no change any more.
    pub(super) fn outcomes(&mut self, told_of: i64, commanded: i64) -> Vec<Outcome> {
        let report = self.report.borrow_and_update();
        report.outcomes.iter().filter(|outcome| outcome.n > told_of && outcome.n <= commanded).cloned().collect()
    }

    /// Until that has changed.
    pub(super) async fn changed(&mut self) {
        if self.report.changed().await.is_err() {
            // The supervisor ends.
            std::future::pending::<()>().await;
        }
    }
}

/// What [`Commands`] works with.
pub(super) struct Inputs {
    pub(super) routes: Router,
    pub(super) epoch: String,
    pub(super) endings: mpsc::Sender<Ending>,
    pub(super) directory: Arc<StateDir>,
    pub(super) machine: Machine,
    pub(super) metrics: Arc<Metrics>,
}

/// Goes on from what is on the disk, for which it blocks a moment.
pub(super) fn new(inputs: Inputs) -> Result<(Inbox, Commands), StateError> {
    let Inputs { routes, epoch, endings, directory, machine, metrics } = inputs;
    // Where the report is damaged, the gateway still has the outcomes that it was told. Without a report that only cannot be read now, a
    // `stop` that has been applied would be applied again.
    let kept: Option<Report> = directory.recall(FILE, LIMIT)?;
    let (report, reader) = watch::channel(kept.unwrap_or_default());
    let (sender, items) = mpsc::channel(2 * COMMANDS);
    let taken = Arc::new(AtomicI64::new(reader.borrow().applied));
    let inbox = Inbox { items: sender, report: reader, taken };
    Ok((inbox, Commands { items, report, routes, epoch, endings, directory, machine, metrics }))
}

impl Commands {
    /// Until all sessions are over for good.
    pub(super) async fn run(mut self) {
        while let Some(item) = self.items.recv().await {
            match item {
                // To the disk with the next outcome: until then it is told once too often at worst.
                Item::Stored(n) => self.report.send_modify(|report| report.outcomes.retain(|outcome| outcome.n > n)),
                Item::Command(command) => self.obey(command).await,
            }
        }
    }

    async fn obey(&mut self, command: Command) {
        let n = command.n;
        let (verb, outcome, ending) = match command.verb.as_str() {
            "task.create" => ("task.create", self.create(n, &command.body).await, None),
            "task.cancel" => ("task.cancel", self.cancel(&command.body).await, None),
            "drain" => ("drain", without_arguments(&command.body), Some(true)),
            "stop" => ("stop", without_arguments(&command.body), Some(false)),
            _ => ("other", Err("unsupported".into()), None),
        };
        let ending = ending.filter(|_| outcome.is_ok());
        let outcome = match outcome {
            Ok(body) => Outcome { n, ok: true, reason: String::new(), body },
            Err(reason) => Outcome { n, ok: false, reason: reason.chars().take(REASON).collect(), body: Value::Null },
        };
        tracing::info!(n, verb = command.verb, ok = outcome.ok, reason = outcome.reason, "a command of the gateway");
        let word = if outcome.ok { "applied" } else { "refused" };
        self.metrics.link_commands.get_or_create(&vec![("do", verb.into()), ("outcome", word.into())]).inc();
        self.keep(outcome).await;
        if let Some(after_tasks) = ending {
            let reason = format!("command {n} of the gateway");
            // Nobody takes it any more where the sandbox ends already.
            let _ = self.endings.send(Ending { after_tasks, reason }).await;
        }
    }

    /// To the disk, and then to whoever tells the gateway.
    async fn keep(&mut self, outcome: Outcome) {
        let mut report = self.report.borrow().clone();
        report.applied = outcome.n;
        report.outcomes.push_back(outcome);
        while report.outcomes.len() > KEPT {
            report.outcomes.pop_front();
        }
        let (bytes, directory) = (serde_json::to_vec(&report).unwrap_or_default(), self.directory.clone());
        let written = self.machine.block(move || directory.write(FILE, &bytes, Durability::PowerLoss)).await;
        if let Ok(Err(error)) = written {
            tracing::warn!(%error, "the outcome of a command could not be kept; after a crash the gateway may not learn it");
        }
        self.report.send_replace(report);
    }

    async fn create(&self, n: i64, body: &Value) -> Result<Value, String> {
        let key = format!("command-{}-{n}", self.epoch);
        told(self.post("/dev-tasks".into(), Some(key), body.to_string()).await)
    }

    async fn cancel(&self, body: &Value) -> Result<Value, String> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Cancel {
            task_id: String,
        }
        let Cancel { task_id } = Cancel::deserialize(body).map_err(|error| error.to_string())?;
        // As `POST /dev-tasks` takes them, so that it is one part of a path.
        if crate::tasks::request::check_id(Some(&task_id)).is_err() {
            return Err("task_id: there is no such task".into());
        }
        told(self.post(format!("/dev-tasks/{task_id}/cancel"), None, String::new()).await)
    }

    /// As a client would; a panic in there is counted by the hook, and refuses this command alone.
    async fn post(&self, path: String, key: Option<String>, body: String) -> (StatusCode, Value) {
        let called = tokio::spawn(http::post(self.routes.clone(), path, key, body));
        called.await.unwrap_or((StatusCode::INTERNAL_SERVER_ERROR, Value::Null))
    }
}

/// What the gateway is told of an answer: the task, or why there is none.
fn told((status, body): (StatusCode, Value)) -> Result<Value, String> {
    if status.is_success() {
        return Ok(json!({ "task_id": body["task_id"], "state": body["state"] }));
    }
    Err(body["detail"].as_str().map_or_else(|| status.to_string(), str::to_owned))
}

fn without_arguments(body: &Value) -> Result<Value, String> {
    match body {
        Value::Null => Ok(Value::Null),
        Value::Object(fields) if fields.is_empty() => Ok(Value::Null),
        _ => Err("this command takes no arguments".into()),
    }
}
