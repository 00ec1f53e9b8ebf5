//! One sandbox of a simulation: the supervisor's own buffer, feed, lines and link on a simulated machine; and what it has produced.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use protocol::session::Class;
use serde_json::json;
use supervisor::buffer::{self, Buffer, BufferError, Handle, Limits, window};
use supervisor::link::{self, Feed, Lines, Link, Phase};
use supervisor::machine::Machine;
use supervisor::metrics::Metrics;
use supervisor::state::{StateDir, StateError};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::chance::Chance;
use super::disk;
use super::machine::Simulated;
use super::net::Net;
use super::trace::Trace;
use crate::control_plane::token_of;
use crate::surroundings::{self, Open, Surroundings};
use crate::tally::FOR_GOOD;

mod doubt;
mod work;

use doubt::Doubt;
use work::Work;

/// Small, so that opening it costs little.
const BUFFER: Limits = Limits { size: Limits::LEAST, reserve: 256 * 1024 };
/// Of lines, which a flood exceeds.
const BUDGET: link::lines::Budget = link::lines::Budget { rate: 2 * 1024, burst: 8 * 1024 };
/// What it has produced, and done.
#[derive(Default)]
pub(super) struct Ledger {
    /// In the order in which it was told, by class.
    pub(super) records: Vec<Produced>,
    /// Keys of commands in the order in which they were applied for the first time.
    pub(super) applied: Vec<String>,
}

/// A record that was told.
pub(super) struct Produced {
    pub(super) class: Class,
    pub(super) bytes: Vec<u8>,
    /// Since when it is known to be written.
    pub(super) written: Option<Instant>,
    /// Whoever wrote it was killed before its window was over: only the next life syncs it.
    left: bool,
    /// The disk was full since: it may have gone for a newer one of its class, which a gap tells of.
    pub(super) evictable: bool,
    /// It must arrive, whatever happens from now on.
    pub(super) safe: bool,
}

impl Produced {
    /// One that is about to be told.
    pub(super) fn new(class: Class, bytes: Vec<u8>) -> Produced {
        Produced { class, bytes, written: None, left: false, evictable: false, safe: false }
    }

    /// Whether its window is over.
    fn is_old(&self, now: Instant) -> bool {
        self.written.is_some_and(|at| now - at >= window(self.class))
    }

    /// Whether power cannot take it; where each is `always` synced, whoever told it waited for that.
    fn is_synced(&self, now: Instant, always: bool) -> bool {
        let waited = always && self.written.is_some() && FOR_GOOD.contains(&self.class);
        waited || self.is_old(now) && !self.left
    }
}

type SharedLedger = Arc<Mutex<Ledger>>;

/// The sandbox, over all its lives.
pub(super) struct Sandbox {
    pub(super) id: String,
    pub(super) machine: Arc<Simulated>,
    disk: disk::Simulated,
    place: PathBuf,
    trace: Trace,
    ledger: SharedLedger,
    sync_always: bool,
    boot: u8,
    chance: Chance,
    life: Option<Life>,
    /// Of each life.
    metrics: Vec<Arc<Metrics>>,
    doubt: Arc<Mutex<Doubt>>,
}

/// One process.
struct Life {
    buffer: Handle,
    /// Of each class, the first number of this life.
    first: [i64; 4],
    /// What was told before it.
    before: usize,
    phase: watch::Receiver<Phase>,
    tasks: Vec<JoinHandle<()>>,
    /// What tells.
    worker: JoinHandle<()>,
    work: Work,
    _open: Open,
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sandbox {
    pub(super) fn new(number: usize, seed: u64, place: &Path, net: Net, trace: Trace) -> Sandbox {
        let id = format!("sandbox-{number}");
        let place = place.join(&id);
        std::fs::create_dir(&place).expect("our own directory");
        std::fs::write(place.join("token"), token_of(&id)).expect("our own directory");
        let mut chance = Chance::new(seed, 100 + number as u64);
        let machine = Simulated::new(number, net.clone(), Chance::new(seed, 200 + number as u64));
        Sandbox {
            id,
            machine: Arc::new(machine),
            disk: disk::Simulated::new(chance.bits(), if chance.once_in(2) { 512 } else { 4096 }),
            place,
            trace,
            ledger: SharedLedger::default(),
            sync_always: chance.once_in(2),
            boot: 1,
            chance,
            life: None,
            metrics: Vec::new(),
            doubt: Arc::default(),
        }
    }

    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        lock(&self.ledger)
    }

    /// Begin a life, where there is none.
    pub(super) async fn start(&mut self) {
        if self.life.is_some() {
            return;
        }
        let metrics = Arc::new(Metrics::default());
        self.metrics.push(metrics.clone());
        let machine = Machine::simulated(self.machine.clone());
        let directory = Arc::new(self.state().await);
        let settings = buffer::Config { limits: BUFFER, sync_always: self.sync_always };
        let opened = self.open().await;
        let first = Class::ALL.map(|class| opened.next(class).1);
        // What the life before left was synced now.
        self.ledger().records.iter_mut().for_each(|record| record.left = false);
        let before = self.ledger().records.len();
        let (buffer, part) = buffer::new(opened, &settings, machine.clone(), metrics.clone());
        let mut tasks = vec![tokio::spawn(part.run())];
        let (feed, writer) = Feed::new(buffer.clone(), machine.clone()).await.expect("it is open");
        tasks.push(tokio::spawn(writer.run()));
        let lines = Lines::new(Some(BUDGET), machine.clone());
        lines.open(buffer.clone());
        tasks.push(tokio::spawn(lines.clone().run()));
        let around = Surroundings::of(&self.id, &metrics);
        let inputs = link::Inputs {
            view: around.view,
            routes: self.routes(),
            buffer: buffer.clone(),
            directory,
            feed: feed.clone(),
            endings: around.endings,
            machine,
            metrics: metrics.clone(),
        };
        let link = Link::new(self.config(), around.ends, inputs).expect("its state can be read");
        tasks.push(tokio::spawn(link.run()));
        let phase = around.phase;
        tasks.push(tokio::spawn(note_phases(self.id.clone(), phase.clone(), self.trace.clone())));
        let work = Work {
            feed,
            lines,
            buffer: buffer.clone(),
            metrics,
            machine: self.machine.clone(),
            ledger: self.ledger.clone(),
            doubt: self.doubt.clone(),
        };
        let chance = Chance::new(self.chance.bits(), 0);
        let worker = tokio::spawn(work.clone().go_on(chance));
        self.life = Some(Life { buffer, first, before, phase, tasks, worker, work, _open: around.open });
    }

    /// What the life before holds is let go of when its tasks see that it is over.
    async fn state(&self) -> StateDir {
        loop {
            match StateDir::open(&self.place.join("state")) {
                Ok(directory) => return directory,
                Err(StateError::InUse { .. }) => sleep(Duration::from_millis(1)).await,
                Err(error) => panic!("our own directory: {error}"),
            }
        }
    }

    /// As its Pod would: what cannot be read is tried again.
    async fn open(&self) -> Buffer<disk::Simulated> {
        let open = || Buffer::open(self.disk.clone(), BUFFER, [self.boot; 16]);
        let mut opened = open();
        for _ in 0..10 {
            let Err(error @ BufferError::File { .. }) = &opened else { break };
            self.trace.note(format_args!("{} cannot open its buffer: {error}", self.id));
            sleep(Duration::from_millis(1)).await;
            opened = open();
        }
        opened.unwrap_or_else(|error| panic!("any disk that can be read can be opened: {error}"))
    }

    fn config(&self) -> link::Config {
        let token = self.place.join("token");
        surroundings::config(&self.id, "ws://gateway:1", token, Duration::from_millis(250), BUDGET)
    }

    /// Takes commands as the tasks would: a key that was there before changes nothing.
    fn routes(&self) -> Router {
        let ledger = self.ledger.clone();
        let create = async move |headers: HeaderMap| {
            let key = headers.get("idempotency-key").and_then(|key| key.to_str().ok()).unwrap_or_default().to_owned();
            let mut ledger = lock(&ledger);
            if !ledger.applied.contains(&key) {
                ledger.applied.push(key.clone());
            }
            (StatusCode::CREATED, axum::Json(json!({"task_id": key, "state": "queued"})))
        };
        Router::new().route("/dev-tasks", post(create))
    }

    /// Its process ends without a word.
    pub(super) fn kill(&mut self) {
        if let Some(life) = self.life.take() {
            let now = Instant::now();
            self.ledger().records.iter_mut().for_each(|record| record.left |= !record.is_old(now));
            life.worker.abort();
            life.tasks.iter().for_each(JoinHandle::abort);
        }
    }

    /// Nothing more is told.
    pub(super) fn rest(&self) {
        self.life.iter().for_each(|life| life.worker.abort());
    }

    /// So many times the disk refuses what it is asked.
    pub(super) fn break_disk(&self, faults: disk::Faults) {
        self.doubt_disk();
        self.disk.break_with(faults);
    }

    /// There is next to no room on the disk, so that what is worth less may go for what is worth more.
    pub(super) fn fill_disk(&self) {
        self.doubt_disk();
        for record in &mut self.ledger().records {
            record.evictable = true;
            record.safe &= record.class == Class::Lifecycle;
        }
        self.disk.limit(Some(self.disk.used() + 4096));
    }

    fn doubt_disk(&self) {
        lock(&self.doubt).begun += 1;
        let now = Instant::now();
        self.ledger().records.iter_mut().for_each(|record| record.safe &= record.is_synced(now, self.sync_always));
    }

    /// It refuses no more.
    pub(super) fn repair_disk(&self) {
        self.disk.break_with(disk::Faults::default());
        lock(&self.doubt).over += 1;
    }

    /// There is room again.
    pub(super) fn empty_disk(&self) {
        self.disk.limit(None);
        lock(&self.doubt).over += 1;
    }

    /// Nothing is wrong with the disk any more.
    pub(super) fn heal_disk(&self) {
        self.disk.limit(None);
        self.disk.break_with(disk::Faults::default());
        let mut doubt = lock(&self.doubt);
        doubt.over = doubt.begun;
    }

    /// The disk may refuse things, or the buffer has not said yet that it has what was refused.
    pub(super) fn is_in_doubt(&self) -> bool {
        lock(&self.doubt).is_open()
    }

    /// The machine goes off with everything that no disk has.
    pub(super) fn lose_power(&mut self) {
        let now = Instant::now();
        // Without a sync for each, the last moments may be lost.
        self.ledger().records.iter_mut().for_each(|record| record.safe &= record.is_synced(now, self.sync_always));
        self.kill();
        self.disk.lose_power();
        self.boot = self.boot.wrapping_add(1).max(1);
        if self.chance.once_in(2) {
            // Written, and not synced.
            let _ = std::fs::remove_file(self.place.join("state/link.json"));
        }
    }

    pub(super) fn is_connected(&self) -> bool {
        self.life.as_ref().is_some_and(|life| *life.phase.borrow() == Phase::Connected)
    }

    /// Sessions that it left because a sum of messages differed.
    pub(super) fn missed(&self) -> u64 {
        let of = |metrics: &Arc<Metrics>| metrics.link_ends.get_or_create(&vec![("reason", "missed".into())]).get();
        self.metrics.iter().map(of).sum()
    }

    /// More lines than its budget has room for.
    pub(super) fn flood(&self, lines: u64) {
        if let Some(life) = &self.life {
            (0..lines).for_each(|_| life.work.line(60));
        }
    }

    /// One more of everything, so that there is something that the gateway has to acknowledge.
    pub(super) async fn last_word(&self) {
        if let Some(life) = &self.life {
            life.work.tell_for_good(Class::Lifecycle).await;
            life.work.tell_for_good(Class::Results).await;
            life.work.sample();
            life.work.line(10);
        }
    }

    /// The epoch and the last numbers of its buffer, once the gateway has acknowledged all of them.
    pub(super) async fn produced(&self) -> Option<crate::tally::Produced> {
        let life = self.life.as_ref()?;
        let extents = life.buffer.extents().await.ok()?;
        crate::tally::Produced::of_extents(life.buffer.epoch().into(), &extents)
    }

    /// The last number of each class that has any, where each record that was told in this life has one and nothing else has.
    pub(super) fn last_numbers(&self) -> Option<BTreeMap<Class, i64>> {
        let life = self.life.as_ref()?;
        let mut next = life.first;
        self.ledger().records[life.before..].iter().for_each(|record| next[record.class as usize] += 1);
        let last = Class::ALL.into_iter().map(|class| (class, next[class as usize] - 1));
        Some(last.filter(|(_, last)| *last > 0).collect())
    }

    /// For people.
    pub(super) async fn extents(&self) -> String {
        match &self.life {
            Some(life) => format!("{:?}, {:?}", *life.phase.borrow(), life.buffer.extents().await),
            None => "not alive".into(),
        }
    }
}

async fn note_phases(id: String, mut phase: watch::Receiver<Phase>, trace: Trace) {
    while phase.changed().await.is_ok() {
        let now = *phase.borrow_and_update();
        trace.note(format_args!("{id} is {}", now.name()));
    }
}
