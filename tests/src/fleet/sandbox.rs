//! One sandbox of the fleet: the supervisor's own buffer, feed, lines and link; its agent and tasks are a stand-in that tells
//! what real ones tell.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use protocol::session::{Class, Record};
use serde_json::{Value, json};
use supervisor::buffer::{self, BufferError, Handle, Limits};
use supervisor::link::{self, Feed, Lines, Link, Phase};
use supervisor::machine::Machine;
use supervisor::metrics::Metrics;
use supervisor::state::StateDir;
use tokio::sync::watch;

use crate::control_plane::token_of;
use crate::surroundings::{self, Open, Surroundings};
use crate::tally::Produced;

/// As many segments as a real one has, of the least size: thousands lie in memory.
const BUFFER: Limits = Limits { size: Limits::LEAST, reserve: 256 * 1024 };
/// Of lines, which no stand-in exceeds.
const BUDGET: link::lines::Budget = link::lines::Budget { rate: 64 * 1024, burst: 256 * 1024 };
/// Of a backlog, bytes.
const RECORD: usize = 2048;
/// What a task writes.
const LINES: usize = 3;

/// One sandbox; its link goes on for as long as the runtime does.
pub(super) struct Sandbox {
    id: String,
    buffer: Handle,
    feed: Feed,
    lines: Lines,
    phase: watch::Receiver<Phase>,
    _open: Open,
}

impl Sandbox {
    /// Begin to dial `gateway`, at some moment of `window`. State and token lie in `place`.
    pub(super) async fn start(
        id: &str,
        gateway: &str,
        window: Duration,
        authority: Option<&Path>,
        place: &Path,
        metrics: &Arc<Metrics>,
    ) -> Sandbox {
        let place = place.join(id);
        std::fs::create_dir(&place).expect("our own directory");
        let token = place.join("token");
        std::fs::write(&token, token_of(id)).expect("our own directory");
        let directory = Arc::new(StateDir::open(&place.join("state")).expect("our own directory"));
        let settings = buffer::Config { limits: BUFFER, sync_always: false };
        let opened = buffer::open(&directory, &settings).expect("our own directory");
        let (buffer, part) = buffer::new(opened, &settings, Machine::default(), metrics.clone());
        tokio::spawn(part.run());
        let (feed, writer) = Feed::new(buffer.clone(), Machine::default()).await.expect("it is open");
        tokio::spawn(writer.run());
        let lines = Lines::new(Some(BUDGET), Machine::default());
        lines.open(buffer.clone());
        tokio::spawn(lines.clone().run());

        let around = Surroundings::of(id, metrics);
        let tls = peer::tls::Config { ca_file: authority.map(Path::to_path_buf), identity: None };
        let config = link::Config { tls, ..surroundings::config(id, gateway, token, window, BUDGET) };
        let inputs = link::Inputs {
            view: around.view,
            routes: Router::new(),
            buffer: buffer.clone(),
            directory,
            feed: feed.clone(),
            endings: around.endings,
            machine: Machine::default(),
            metrics: metrics.clone(),
        };
        tokio::spawn(Link::new(config, around.ends, inputs).run());
        Sandbox { id: id.into(), buffer, feed, lines, phase: around.phase, _open: around.open }
    }

    /// Whose.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// What its link does.
    pub(super) fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.clone()
    }

    /// A task from its start to its result, in every class of records. All of them are in the buffer on return, or are gaps.
    pub(super) async fn run_a_task(&self, number: u64) {
        let id = format!("task-{number}");
        for state in ["starting", "running"] {
            self.feed.tell(format!("task.{state}"), self.state(&id, Value::Null)).await;
        }
        let mut stdout = self.lines.of(Some(&id), "stdout");
        for line in 0..LINES {
            stdout.take(format!("{id} has come to step {line} of what it was told to do\n").as_bytes());
        }
        let sample = json!({"cpu_us": number * 1000, "memory_bytes": 64 << 20, "processes": 7, "idle_s": 0});
        let sample = Record { wall_ms: 0, boot_ms: 0, kind: "sample".into(), body: sample };
        self.buffer.offer(Class::Metrics, serde_json::to_vec(&sample).unwrap_or_default());
        self.feed.tell("task.succeeded", self.state(&id, json!(0))).await;
        let result =
            json!({"task_id": id, "state": "succeeded", "exit_code": 0, "argv": ["true"], "agent_id": self.id});
        self.feed.tell_for_good(Class::Results, "task.result", result).await;
    }

    fn state(&self, id: &str, exit_code: Value) -> Value {
        let run = format!("{}-{id}", self.id);
        json!({"task_id": id, "backend_run_id": run, "execution_class": "agent", "exit_code": exit_code, "signal": null})
    }

    /// Keep so many KiB, as lines that a task wrote.
    pub(super) async fn fill(&self, kib: usize) -> Result<(), BufferError> {
        let text = "x".repeat(RECORD - 100);
        for number in 0..kib * 1024 / RECORD {
            let body = json!({"stream": "stdout", "task_id": format!("outage-{number}"), "line": text});
            let record = Record { wall_ms: 0, boot_ms: 0, kind: "line".into(), body };
            self.buffer.append(Class::Logs, serde_json::to_vec(&record).unwrap_or_default()).await?;
        }
        Ok(())
    }

    /// What its buffer has given out; `None` where the gateway does not have all of it.
    pub(super) async fn produced(&self) -> Result<Option<Produced>, BufferError> {
        let extents = self.buffer.extents().await?;
        Ok(Produced::of_extents(self.buffer.epoch().into(), &extents))
    }
}
