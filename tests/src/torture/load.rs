//! A sandbox under load: its supervisor may die and come back, its state stays; clients create tasks, and note what they were told.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::control_plane::{Gateway, token_of};
use crate::supervisor::Supervisor;
use crate::tally::Produced;
use crate::tasks::Api;
use crate::wait::{LONG, wait_until, within};
use crate::{binaries, processes};

mod clients;

use clients::Load;
pub use clients::Told;
pub(super) use clients::archive;

const STATES: [&str; 3] = ["queued", "starting", "running"];
/// How often a supervisor that is asked to stop may leave something that waits for the gateway.
const STOPS: usize = 10;

/// How a sandbox differs from the usual one.
#[derive(Clone, Debug, Default)]
pub struct Settings(Vec<(String, OsString)>, Option<PathBuf>);

impl Settings {
    /// A setting of its supervisor, by its flag.
    pub fn set(mut self, flag: &str, value: impl Into<OsString>) -> Settings {
        self.0.push((flag.into(), value.into()));
        self
    }

    /// This program is started in the supervisor's place; it has to become it.
    pub fn program(mut self, path: PathBuf) -> Settings {
        self.1 = Some(path);
        self
    }
}

/// One sandbox.
pub struct Sandbox {
    /// As the gateway knows it.
    pub id: &'static str,
    /// Its supervisor.
    pub supervisor: Supervisor,
    /// What clients were told of all lives, by task.
    pub told: BTreeMap<String, Told>,
    /// Tasks of all lives that a client was refused because the disk did not take them (507). None of these ids was tried again.
    pub refused: BTreeSet<String>,
    gateway: String,
    settings: Settings,
    place: TempDir,
    lives: usize,
    load: Load,
}

impl Sandbox {
    /// With a plain link to the gateway at this address.
    pub fn start(id: &'static str, gateway: SocketAddr) -> Sandbox {
        Sandbox::start_with(id, &format!("ws://{gateway}"), Settings::default())
    }

    /// With anything else.
    pub fn start_with(id: &'static str, gateway: &str, settings: Settings) -> Sandbox {
        let place = binaries::scratch();
        for name in ["state", "workspace"] {
            std::fs::create_dir(place.path().join(name)).expect("our own directory");
        }
        std::fs::write(place.path().join("token"), token_of(id)).expect("our own directory");
        let supervisor = supervisor(id, gateway, &place, &settings);
        let load = Load::begin(&format!("{id}-0"), &supervisor);
        let (gateway, told, refused) = (gateway.to_owned(), BTreeMap::new(), BTreeSet::new());
        Sandbox { id, supervisor, told, refused, gateway, settings, place, lives: 1, load }
    }

    /// The file with the token that its supervisor shows.
    pub fn token_file(&self) -> PathBuf {
        self.place.path().join("token")
    }

    /// Where its state lies.
    pub fn state(&self) -> PathBuf {
        let set = self.settings.0.iter().find(|(flag, _)| flag == "state-dir");
        set.map_or_else(|| self.place.path().join("state"), |(_, path)| path.into())
    }

    /// kill -9 of the supervisor, and when; nobody of its trees is left on return.
    pub fn kill(&mut self) -> Instant {
        let trees = processes::descendants(self.supervisor.pid());
        let at = Instant::now();
        if !self.supervisor.has_ended() {
            self.supervisor.signal(Signal::SIGKILL);
        }
        self.supervisor.wait_exit();
        self.end_load();
        wait_until("the end of the trees", || !trees.iter().any(|&pid| processes::alive(pid)));
        at
    }

    /// Another supervisor with the same state, under load.
    pub fn start_again(&mut self) {
        self.supervisor = supervisor(self.id, &self.gateway, &self.place, &self.settings);
        self.load = Load::begin(&format!("{}-{}", self.id, self.lives), &self.supervisor);
        self.lives += 1;
    }

    /// Both.
    pub fn kill_and_start_again(&mut self) {
        self.kill();
        self.start_again();
    }

    /// Nobody creates tasks any more.
    pub fn end_load(&mut self) {
        for heard in self.load.end() {
            self.told.extend(heard.told);
            self.refused.extend(heard.refused);
        }
    }

    /// All tasks as the supervisor tells of them once none is left to run.
    pub fn tasks(&self) -> BTreeMap<String, Value> {
        wait_until("the queue becomes empty", || self.left().is_empty());
        let by_id = |task: Value| (task["task_id"].as_str().unwrap_or_default().to_string(), task);
        Api::of(&self.supervisor).list("limit=1000").into_iter().map(by_id).collect()
    }

    /// Tasks that have not ended.
    pub fn left(&self) -> Vec<Value> {
        let api = Api::of(&self.supervisor);
        STATES.iter().flat_map(|state| api.list(&format!("state={state}"))).collect()
    }

    /// Stop it; what it produced. Nothing of it waits any more.
    pub fn produced(&mut self) -> Produced {
        for _ in 0..STOPS {
            self.supervisor.signal(Signal::SIGTERM);
            self.supervisor.wait_exit();
            if let Some(produced) = Produced::of_state(&self.state()) {
                return produced;
            }
            // A stop waits for an instant only: what is left goes with the next life.
            self.supervisor = supervisor(self.id, &self.gateway, &self.place, &self.settings);
            self.supervisor.wait_log("the link is connected");
        }
        panic!("{} never delivers everything: {}", self.id, self.supervisor.stderr.text());
    }

    /// Wait until a task that is created now is told to have ended well; whether that came within the time that tests wait.
    pub fn works(&self) -> bool {
        within(LONG, || self.runs_a_task().then_some(())).is_some()
    }

    /// Whether a task that is created now is told to have ended well.
    pub fn runs_a_task(&self) -> bool {
        self.run_a_task("10s")["state"] == "succeeded"
    }

    /// A task that is created now, as it is told when it has ended or after so long; null where nothing is told.
    pub fn run_a_task(&self, wait: &str) -> Value {
        let log = self.supervisor.log();
        let address = log.iter().find_map(|line| line["address"].as_str()?.parse().ok());
        let Some(address) = address else { return Value::Null };
        let (path, body) = (format!("/dev-tasks?wait={wait}"), json!({"argv": ["true"]}).to_string());
        let answer = Api::at(address, crate::scene::CANARY).try_call("POST", &path, &[], body.as_bytes());
        answer.map_or(Value::Null, |answer| answer.json())
    }
}

/// What does not work: each of these runs a task, and within `patience` all are at the gateway.
pub fn broken(sandboxes: &[Sandbox], gateway: &Gateway, patience: Duration) -> Option<String> {
    if let Some(sandbox) = sandboxes.iter().find(|sandbox| !sandbox.works()) {
        return Some(format!("sandbox {} runs no task, but is told {}", sandbox.id, sandbox.run_a_task("1s")));
    }
    let sessions = || gateway.metric("gateway_sessions");
    let all = within(patience, || (sessions() == sandboxes.len() as f64).then_some(()));
    all.is_none().then(|| {
        let said = gateway.stderr.text();
        let last: Vec<&str> = said.lines().rev().take(5).collect();
        format!("the gateway has {} sessions; its last words, backwards: {last:?}", sessions())
    })
}

fn supervisor(id: &str, gateway: &str, place: &TempDir, settings: &Settings) -> Supervisor {
    let at = |name: &str| place.path().join(name);
    let mut builder = Supervisor::new()
        .token()
        .set("task-grace", "100ms")
        .set("task-keep-count", "100000")
        .set("state-dir", at("state"))
        .set("workspace", at("workspace"))
        .set("gateway-url", gateway)
        .set("link-token-file", at("token"))
        .set("link-window", "20ms")
        .set("link-samples", "100ms")
        .set("agent-id", id);
    for (flag, value) in &settings.0 {
        builder = builder.set(flag, value);
    }
    match &settings.1 {
        Some(program) => builder.program(program.clone()).start(),
        None => builder.start(),
    }
}
