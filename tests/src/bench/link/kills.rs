//! kill -9 of both ends of the link under load, at any instant: each record that a supervisor produced is in the gateway's
//! store once and unaltered, or in a gap, and each task that a client saw created has one end there. The same with several gateways on
//! one PostgreSQL, which are also stopped, drained, and cut off.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::super::Line;
use crate::balancer::Balancer;
use crate::control_plane::{Gateway, token_of};
use crate::output::Output;
use crate::postgres::Postgres;
use crate::supervisor::{Supervisor, log_lines};
use crate::tally::{Produced, Tally};
use crate::tasks::Api;
use crate::wait::wait_until;
use crate::{binaries, processes};

const SANDBOXES: [&str; 2] = ["a", "b"];
/// Of each sandbox.
const CLIENTS: usize = 2;
const STATES: [&str; 3] = ["queued", "starting", "running"];

/// So many kills of supervisors, and as many of the gateway.
pub fn measure(kills: usize) -> Vec<Line> {
    let mut gateway = Gateway::start();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut sandboxes = SANDBOXES.map(|id| Sandbox::start(id, gateway.address));
    for round in 0..2 * kills {
        std::thread::sleep(random.up_to(200));
        if round % 2 == 0 {
            gateway.kill();
            // Some outages are long enough that records pile up.
            std::thread::sleep(random.up_to(150));
            gateway.start_again();
        } else {
            sandboxes[round / 2 % SANDBOXES.len()].kill_and_start_again();
        }
    }
    told(&mut sandboxes, &gateway, &format!("{kills} kill -9 of supervisors and {kills} of the gateway"))
}

/// So many faults of one of three gateways, with kill -9 of supervisors between them.
pub fn measure_several(faults: usize) -> Vec<Line> {
    let Some(server) = Postgres::start() else { return Vec::new() };
    let one = || Gateway::build().among_several(&server.url()).start();
    let mut gateways = [one(), one(), one()];
    let front = Balancer::before(&gateways.each_ref().map(|gateway| gateway.address));
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let mut sandboxes = SANDBOXES.map(|id| Sandbox::start(id, front.address));
    for round in 0..faults {
        let gateway = &mut gateways[round % 3];
        std::thread::sleep(random.up_to(1500));
        match round % 4 {
            0 => gateway.kill(),
            1 => {
                // Longer than its lease: its sessions have moved when it goes on.
                gateway.signal(Signal::SIGSTOP);
                std::thread::sleep(Duration::from_secs(12));
                gateway.signal(Signal::SIGCONT);
                continue;
            }
            2 => {
                gateway.signal(Signal::SIGTERM);
                gateway.wait();
            }
            _ => {
                sandboxes[round / 4 % SANDBOXES.len()].kill_and_start_again();
                continue;
            }
        }
        std::thread::sleep(random.up_to(300));
        gateway.start_again();
    }
    told(&mut sandboxes, &gateways[0], &format!("{faults} faults of three gateways and of supervisors"))
}

/// What became of all that was produced, and of all tasks.
fn told(sandboxes: &mut [Sandbox], gateway: &Gateway, faults: &str) -> Vec<Line> {
    let mut seen = Seen::default();
    for sandbox in sandboxes {
        sandbox.end_load();
        seen.check(sandbox, gateway);
    }
    let of = format!("of {} records in {faults}", seen.tally.produced);
    let tasks = format!("of {} tasks that a client saw created", seen.tasks);
    vec![
        Line::new(format!("neither stored nor in a gap, {of}"), 0.0, seen.tally.lost as f64, "records"),
        Line::new(format!("stored twice, {of}"), 0.0, seen.tally.twice as f64, "records"),
        Line::new(format!("stored and never produced, beside those {of}"), 0.0, seen.tally.invented as f64, "records"),
        // A write that was broken off inside a page leaves a doubt, and then numbers are skipped.
        Line::new(format!("in gaps {of}"), 65_536.0, seen.tally.gaps as f64, "numbers"),
        Line::new(format!("without their one last state and one result, {tasks}"), 0.0, seen.ends as f64, "tasks"),
        Line::new(format!("told to the gateway otherwise than here, {tasks}"), 0.0, seen.altered as f64, "tasks"),
    ]
}

/// The same instants each time, as far as a machine allows.
struct Random(u64);

impl Random {
    fn up_to(&mut self, most_ms: u64) -> Duration {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        Duration::from_millis(self.0 % most_ms)
    }
}

/// One sandbox: its state outlives its supervisors.
struct Sandbox {
    id: &'static str,
    gateway: SocketAddr,
    place: TempDir,
    supervisor: Supervisor,
    lives: usize,
    load: Load,
    /// Tasks that a client saw created.
    told: BTreeSet<String>,
}

/// Clients of one life of a supervisor.
struct Load {
    over: Arc<AtomicBool>,
    clients: Vec<std::thread::JoinHandle<Vec<String>>>,
}

impl Load {
    fn begin(life: &str, supervisor: &Supervisor) -> Load {
        let over = Arc::new(AtomicBool::new(false));
        let client = |client: usize| {
            let (life, log, over) = (format!("{life}-{client}"), supervisor.stderr.clone(), over.clone());
            std::thread::spawn(move || create(&log, &life, &over))
        };
        Load { clients: (0..CLIENTS).map(client).collect(), over }
    }

    /// What the clients were told.
    fn end(&mut self) -> impl Iterator<Item = String> {
        self.over.store(true, Ordering::Relaxed);
        self.clients.drain(..).flat_map(|client| client.join().expect("a client"))
    }
}

/// Create tasks until it is over, or until the supervisor is killed; the ids that were told.
fn create(log: &Output, life: &str, over: &AtomicBool) -> Vec<String> {
    let mut told = Vec::new();
    let Some(address) = address(log, over) else { return told };
    let api = Api::at(address, crate::scene::CANARY);
    for number in 0.. {
        let id = format!("{life}-{number:04}");
        let body = json!({"task_id": id, "argv": [if number % 5 == 4 { "false" } else { "true" }]}).to_string();
        match api.try_call("POST", "/dev-tasks", &[], body.as_bytes()) {
            Ok(answer) if answer.status() == 201 => told.push(id),
            Ok(answer) if answer.status() == 429 => std::thread::sleep(Duration::from_millis(5)),
            _ => break,
        }
        if over.load(Ordering::Relaxed) {
            break;
        }
        // So that an instant is seldom one in which nothing but launching goes on, and the journal stays small.
        std::thread::sleep(Duration::from_millis(number % 3 * 40));
    }
    told
}

/// Where a supervisor listens that may be killed before it does.
fn address(log: &Output, over: &AtomicBool) -> Option<std::net::SocketAddr> {
    loop {
        let lines = log_lines(&log.text());
        if let Some(address) = lines.iter().find_map(|line| line["address"].as_str()?.parse().ok()) {
            return Some(address);
        }
        if log.closed() || over.load(Ordering::Relaxed) {
            return None;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

impl Sandbox {
    fn start(id: &'static str, gateway: SocketAddr) -> Sandbox {
        let place = binaries::scratch();
        for name in ["state", "workspace"] {
            std::fs::create_dir(place.path().join(name)).expect("our own directory");
        }
        std::fs::write(place.path().join("token"), token_of(id)).expect("our own directory");
        let supervisor = supervisor(id, &place, gateway);
        let load = Load::begin(&format!("{id}-0"), &supervisor);
        Sandbox { id, gateway, place, supervisor, lives: 1, load, told: BTreeSet::new() }
    }

    fn kill_and_start_again(&mut self) {
        let trees = processes::descendants(self.supervisor.pid());
        self.supervisor.signal(Signal::SIGKILL);
        self.supervisor.wait_exit();
        self.end_load();
        wait_until("the end of the trees", || !trees.iter().any(|&pid| processes::alive(pid)));
        self.supervisor = supervisor(self.id, &self.place, self.gateway);
        self.load = Load::begin(&format!("{}-{}", self.id, self.lives), &self.supervisor);
        self.lives += 1;
    }

    fn end_load(&mut self) {
        self.told.extend(self.load.end());
    }

    /// All tasks as the supervisor tells of them once none is left to run.
    fn tasks(&self) -> BTreeMap<String, Value> {
        let api = Api::of(&self.supervisor);
        wait_until("the queue becomes empty", || STATES.iter().all(|s| api.list(&format!("state={s}")).is_empty()));
        let by_id = |task: Value| (task["task_id"].as_str().unwrap_or_default().to_string(), task);
        api.list("limit=1000").into_iter().map(by_id).collect()
    }

    /// Stop it; what it produced. Nothing of it waits any more.
    fn produced(&mut self) -> Produced {
        for _ in 0..10 {
            self.supervisor.signal(Signal::SIGTERM);
            self.supervisor.wait_exit();
            if let Some(produced) = Produced::of_state(&self.place.path().join("state")) {
                return produced;
            }
            // A stop waits for an instant only: what is left goes with the next life.
            self.supervisor = supervisor(self.id, &self.place, self.gateway);
            self.supervisor.wait_log("the link is connected");
        }
        panic!("{} never delivers everything: {}", self.id, self.supervisor.stderr.text());
    }
}

fn supervisor(id: &str, place: &TempDir, gateway: SocketAddr) -> Supervisor {
    let at = |name: &str| place.path().join(name);
    Supervisor::new()
        .token()
        .set("task-grace", "100ms")
        .set("task-keep-count", "100000")
        .set("state-dir", at("state"))
        .set("workspace", at("workspace"))
        .set("gateway-url", format!("ws://{gateway}"))
        .set("link-token-file", at("token"))
        .set("link-window", "20ms")
        .set("agent-id", id)
        .start()
}

/// What was found, counted.
#[derive(Default)]
struct Seen {
    tally: Tally,
    tasks: usize,
    ends: usize,
    altered: usize,
}

impl Seen {
    /// Hold what the gateway has of a sandbox to what the sandbox and its clients know.
    fn check(&mut self, sandbox: &mut Sandbox, gateway: &Gateway) {
        let tasks = sandbox.tasks();
        let produced = sandbox.produced();
        let events = gateway.events(sandbox.id);
        self.tally.count(&events, &produced);
        let missing = sandbox.told.iter().filter(|id| !tasks.contains_key(*id)).count();
        self.ends += missing;
        self.tasks += sandbox.told.len();
        let mut by_task: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
        for record in events.iter().map(|event| &event["record"]) {
            by_task.entry(record["body"]["task_id"].as_str().unwrap_or_default()).or_default().push(record);
        }
        for (id, task) in &tasks {
            let told = |kind: &dyn Fn(&str) -> bool| -> Vec<&Value> {
                let records = by_task.get(id.as_str()).into_iter().flatten();
                records.filter(|record| kind(record["kind"].as_str().unwrap_or_default())).copied().collect()
            };
            let word = task["state"].as_str().unwrap_or_default();
            let open = ["task.starting", "task.running", "task.result", "line"];
            let last = told(&|kind| !open.contains(&kind));
            let results = told(&|kind| kind == "task.result");
            if last.len() != 1 || results.len() != 1 {
                self.ends += 1;
                println!("{id}, told here as {task}, has {} last states and {} results", last.len(), results.len());
            } else if last[0]["kind"] != format!("task.{word}") || results[0]["body"] != *task {
                self.altered += 1;
                println!("{id}, told here as {task}, is {} and {}", last[0], results[0]);
            }
        }
    }
}
