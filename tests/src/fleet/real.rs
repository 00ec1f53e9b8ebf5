//! Real supervisors among the simulated sandboxes: the whole program with an agent, which runs a task now and then.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::site::Site;
use super::words::{Now, Return};
use super::{Plan, id, recording};
use crate::balancer::Balancer;
use crate::bench::now_ns;
use crate::control_plane::token_of;
use crate::supervisor::Supervisor;
use crate::tally::Produced;
use crate::tasks::Api;
use crate::{binaries, http, scene};

/// Between two looks at each of them: while gateways come and go, and else, where each look would be a part of the load.
const LOOK: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(3));
/// Between two tasks, of all of them together, which run one after the other.
const TASK: Duration = Duration::from_millis(500);
/// Stops of one that has something left to deliver.
const STOPS: usize = 10;

/// They end with this value.
pub(super) struct Reals {
    all: Vec<Real>,
    /// Where they dial when gateways come and go.
    door: Option<Balancer>,
    seen: Arc<Mutex<Now>>,
    closely: Arc<AtomicBool>,
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

struct Real {
    id: String,
    way: Way,
    supervisor: Supervisor,
    place: TempDir,
}

/// How one comes to its gateway.
#[derive(Clone)]
struct Way {
    gateway: SocketAddr,
    window: Duration,
    /// Whom it believes, where it dials by TLS.
    authority: Option<PathBuf>,
}

/// What was seen of one at the last look.
struct Look {
    address: SocketAddr,
    begun: u64,
    connected_ns: u64,
}

impl Reals {
    /// Those of `plan`, at these gateways.
    pub(super) fn start(plan: &Plan, site: &Site) -> Reals {
        let gateways = &site.addresses()[..];
        let door = (plan.needs_doors() && plan.real > 0).then(|| Balancer::before(gateways));
        let gateway = door.as_ref().map_or(gateways[0], |door| door.address);
        let numbers = plan.links - plan.real..plan.links;
        let way = Way { gateway, window: plan.window(), authority: site.authority().map(Path::to_path_buf) };
        let all: Vec<Real> = numbers.map(|number| Real::start(id(number), way.clone())).collect();
        let closely = Arc::new(AtomicBool::new(true));
        let mut reals = Reals { all, door, seen: Arc::default(), closely, over: Arc::default(), threads: Vec::new() };
        let looks: Vec<Look> =
            reals.addresses().map(|address| Look { address, begun: 0, connected_ns: now_ns() }).collect();
        let (seen, closely, over) = (reals.seen.clone(), reals.closely.clone(), reals.over.clone());
        reals.threads.push(std::thread::spawn(move || watch(looks, &seen, &closely, &over)));
        reals
    }

    fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.all.iter().map(|real| real.supervisor.address())
    }

    /// Whether something happens now that has to be seen at once.
    pub(super) fn look_closely(&self, closely: bool) {
        self.closely.store(closely, Ordering::Relaxed);
    }

    /// Tasks from now on.
    pub(super) fn work(&mut self) {
        let apis: Vec<Api> = self.addresses().map(|address| Api::at(address, scene::CANARY)).collect();
        let (seen, over) = (self.seen.clone(), self.over.clone());
        self.threads.push(std::thread::spawn(move || run_tasks(&apis, &seen, &over)));
    }

    /// New sessions begin at these from now on.
    pub(super) fn now_before(&self, gateways: &[SocketAddr]) {
        if let Some(door) = &self.door {
            door.now_before(gateways);
        }
    }

    /// What is known of them; `returns` are all that there were, each later than it was by a look at most.
    pub(super) fn seen(&self) -> MutexGuard<'_, Now> {
        lock(&self.seen)
    }

    /// Stop them; what each has produced, or `None` where the gateway never takes it.
    pub(super) fn finish(mut self) -> Vec<(String, Option<Produced>)> {
        self.over.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| thread.join().expect("a supervisor that answers"));
        self.all.drain(..).map(Real::finish).collect()
    }
}

impl Drop for Reals {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        // They would miss the supervisors that end with this.
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

fn lock(seen: &Mutex<Now>) -> MutexGuard<'_, Now> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

fn watch(mut looks: Vec<Look>, seen: &Mutex<Now>, closely: &AtomicBool, over: &AtomicBool) {
    while !over.load(Ordering::Relaxed) {
        let mut connected = 0;
        for look in &mut looks {
            let Ok(answer) = http::get(look.address, "/metrics") else { continue };
            let value = |name| http::metric(&answer.body, name).unwrap_or(0.0) as u64;
            let (begun, at_ns) = (value("supervisor_link_dials_total{outcome=\"connected\"}"), now_ns());
            if begun > look.begun {
                let mut seen = lock(seen);
                seen.begun += begun - look.begun;
                seen.returns.push(Return { at_ns, away_ns: at_ns - look.connected_ns });
                look.begun = begun;
            }
            if value("supervisor_link_state{state=\"connected\"}") == 1 {
                connected += 1;
                look.connected_ns = at_ns;
            }
        }
        lock(seen).connected = connected;
        let until = Instant::now() + LOOK.1;
        sleep(LOOK.0);
        while !closely.load(Ordering::Relaxed) && !over.load(Ordering::Relaxed) && Instant::now() < until {
            sleep(LOOK.0);
        }
    }
}

/// One after the other of one after the other, each to its end: the tasks that were recorded, each supervisor another one each time.
fn run_tasks(apis: &[Api], seen: &Mutex<Now>, over: &AtomicBool) {
    let tasks = recording::tasks();
    for (number, api) in apis.iter().cycle().enumerate() {
        if over.load(Ordering::Relaxed) {
            return;
        }
        let mut create = tasks[(number % apis.len() + number / apis.len()) % tasks.len()].1.clone();
        create["task_id"] = format!("real-{number}").into();
        api.run(create);
        lock(seen).tasks += 1;
        sleep(TASK);
    }
}

impl Real {
    fn start(id: String, way: Way) -> Real {
        let place = binaries::scratch();
        for name in ["state", "workspace"] {
            std::fs::create_dir(place.path().join(name)).expect("our own directory");
        }
        std::fs::write(place.path().join("token"), token_of(&id)).expect("our own directory");
        let supervisor = supervisor(&id, &place, &way);
        Real { id, way, place, supervisor }
    }

    fn finish(mut self) -> (String, Option<Produced>) {
        for _ in 0..STOPS {
            self.supervisor.signal(Signal::SIGTERM);
            self.supervisor.wait_exit();
            if let Some(produced) = Produced::of_state(&self.place.path().join("state")) {
                return (self.id, Some(produced));
            }
            // A stop waits for an instant only: what is left goes with the next life.
            self.supervisor = supervisor(&self.id, &self.place, &self.way);
            self.supervisor.wait_log("the link is connected");
        }
        (self.id, None)
    }
}

fn supervisor(id: &str, place: &TempDir, way: &Way) -> Supervisor {
    let at = |name: &str| place.path().join(name);
    let (scheme, builder) = match &way.authority {
        Some(file) => ("wss", Supervisor::new().set("link-ca-file", file)),
        None => ("ws", Supervisor::new()),
    };
    builder
        .token()
        .set("state-dir", at("state"))
        .set("workspace", at("workspace"))
        .set("gateway-url", format!("{scheme}://{}", way.gateway))
        .set("link-token-file", at("token"))
        .set("link-window", format!("{}ms", way.window.as_millis()))
        .set("agent-id", id)
        .agent(["sleep", "100000"])
        .start()
}
