//! One sandbox of the fleet: the supervisor's own buffer, feed, lines and link; its agent and tasks are a stand-in that tells
//! what real ones have told ([`super::recording`]).

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

use super::recording::{Event, RECORDINGS};
use crate::control_plane::token_of;
use crate::surroundings::{self, Open, Surroundings};
use crate::tally::Produced;

/// As many segments as a real one has, of the least size: thousands lie in memory.
const BUFFER: Limits = Limits { size: Limits::LEAST, reserve: 256 * 1024 };
/// Of lines, which no stand-in exceeds.
const BUDGET: link::lines::Budget = link::lines::Budget { rate: 64 * 1024, burst: 256 * 1024 };
/// Of a backlog, bytes.
const RECORD: usize = 2048;
/// Of a task.
const STREAMS: [&str; 2] = ["stdout", "stderr"];

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
        tokio::spawn(Link::new(config, around.ends, inputs).expect("a new state directory").run());
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

    /// A task that was recorded, from its first state to its result, as if it were this sandbox's. All records of it are in the buffer on
    /// return, or are gaps.
    pub(super) async fn run_a_task(&self, number: u64) {
        let id = format!("task-{number}");
        let recording = &RECORDINGS[number as usize % RECORDINGS.len()];
        let mut copiers = STREAMS.map(|stream| (stream, self.lines.of(Some(&id), stream)));
        for Event { class, kind, body } in recording.of(&self.id, &id) {
            match class {
                Class::Lifecycle => self.feed.tell(kind, body).await,
                Class::Results => self.feed.tell_for_good(class, kind, body).await,
                Class::Metrics => self.buffer.offer(class, bytes(kind, body)),
                Class::Logs => {
                    let copier = copiers.iter_mut().find(|(stream, _)| body["stream"] == *stream);
                    let (_, copier) = copier.expect("a stream that tasks have");
                    copier.take(format!("{}\n", body["text"].as_str().unwrap_or_default()).as_bytes());
                }
            }
        }
    }

    /// Keep so many KiB, as lines that a task wrote.
    pub(super) async fn fill(&self, kib: usize) -> Result<(), BufferError> {
        let text = "x".repeat(RECORD - 150);
        for number in 0..kib * 1024 / RECORD {
            let id = format!("outage-{number}");
            let body = json!({"source": "task", "stream": "stdout", "text": text, "task_id": id});
            self.buffer.append(Class::Logs, bytes("line".into(), body)).await?;
        }
        Ok(())
    }

    /// What its buffer has given out; `None` where the gateway does not have all of it.
    pub(super) async fn produced(&self) -> Result<Option<Produced>, BufferError> {
        let extents = self.buffer.extents().await?;
        Ok(Produced::of_extents(self.buffer.epoch().into(), &extents))
    }
}

fn bytes(kind: String, body: Value) -> Vec<u8> {
    serde_json::to_vec(&Record { wall_ms: 0, boot_ms: 0, kind, body }).unwrap_or_default()
}
