//! A fleet: thousands of sandboxes, made of the supervisor's own link and buffer, at a real gateway.
//!
//! The story of a run: the gateway starts; all sandboxes dial in; nothing happens for a moment, and what an idle session takes is
//! measured; tasks run, and for the hold no session may end and none be called dead; where it was asked for, the gateway is killed; at
//! the end each number that a buffer gave out is a record of the gateway's, or in a gap.
//!
//! A process may have [20,000 descriptors](AGENTS), so sandboxes live in several: [`agents`] is one of them, [`group`] its other
//! end, [`sandbox`] one of its sandboxes.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::bench::{Line, now_ns};
use crate::control_plane::{Gateway, token_of};
use crate::tally::Tally;
use crate::wait::LONG;
use crate::{binaries, processes};

pub mod agents;
mod group;
mod probes;
mod sandbox;
mod storm;
mod words;

use group::Group;
use probes::{Probes, percentile};
use storm::Storm;
use words::{Order, Return, Share};

/// Sandboxes in one process: each has nine descriptors, for its directories, its buffer's files, its socket and its timer.
const AGENTS: usize = 1_800;
/// Beats of the whole fleet in a second.
const BEATS: usize = 1_000;
/// Between two lines that tell how it stands.
const PROGRESS: Duration = Duration::from_secs(5);
/// Between two looks at what the gateway says of the sandboxes.
const LOOK: Duration = Duration::from_secs(10);

/// What is run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Sandboxes.
    pub links: usize,
    /// Sessions that may begin in a second.
    pub rate: usize,
    /// Tasks that run in a second, of all sandboxes together.
    pub tasks: f64,
    /// For how long all are held.
    pub hold: Duration,
    /// Whether the gateway is killed then.
    pub kill: bool,
}

/// Run it with `program`, which is `fleet`; the numbers.
pub fn run(plan: &Plan, program: &Path) -> Vec<Line> {
    let mut fleet = Fleet::start(plan, program);
    let mut lines = vec![fleet.idle()];
    lines.extend(fleet.hold());
    if plan.kill {
        lines.extend(fleet.kill());
    }
    lines.extend(fleet.account());
    lines
}

/// The sandbox of that number.
fn id(number: usize) -> String {
    format!("s-{number:05}")
}

/// For files of sandboxes: memory, where the machine has a file system of it. Each of them would have a disk of its own, and
/// here thousands would share one.
fn place() -> TempDir {
    let memory = tempfile::Builder::new().prefix("fleet-").tempdir_in("/dev/shm");
    memory.unwrap_or_else(|_| binaries::scratch())
}

struct Fleet<'p> {
    plan: &'p Plan,
    begun: Instant,
    told: Instant,
    gateway: Gateway,
    groups: Vec<Group>,
    /// KiB that the gateway took without a session.
    empty: f64,
}

impl<'p> Fleet<'p> {
    fn start(plan: &'p Plan, program: &Path) -> Fleet<'p> {
        let gateway = gateway(plan);
        let empty = resident(&gateway);
        let share = |first: usize| Share {
            gateway: format!("ws://{}", gateway.address),
            first,
            count: AGENTS.min(plan.links - first),
            window_ms: plan.window().as_millis() as u64,
        };
        let begun = Instant::now();
        let groups = (0..plan.links).step_by(AGENTS).map(|first| Group::start(program, &share(first))).collect();
        let mut fleet = Fleet { plan, begun, told: begun, gateway, groups, empty };
        fleet.until_sessions_have_begun(plan.links as u64);
        fleet
    }

    /// What a session takes on which nothing happens, after each sandbox has beaten and told what it is.
    fn idle(&mut self) -> Line {
        self.hold_for(self.plan.beat() + Duration::from_secs(2), |_| {});
        let each = (resident(&self.gateway) - self.empty) / self.plan.links as f64;
        Line::new("memory of the gateway for each idle session, plain", 8.0, each, "KiB")
    }

    /// All of them for a while, at work: no session ends, and none is called dead.
    fn hold(&mut self) -> Vec<Line> {
        let (links, hold) = (self.plan.links, self.plan.hold);
        self.work(self.plan.tasks);
        let begun = self.begun_sessions();
        let probes = Probes::start(&self.gateway);
        let (mut dead, mut looked) = (0, Instant::now());
        self.hold_for(hold, |fleet| {
            if looked.elapsed() >= LOOK {
                looked = Instant::now();
                dead = dead.max(fleet.called_dead());
            }
        });
        dead = dead.max(self.called_dead());
        let times = probes.stop();
        let connected = self.connected();
        let ended = self.begun_sessions() - begun + (links - connected) as u64;
        let beats = links as f64 / self.plan.beat().as_secs_f64();
        let p99 = |times: &[f64]| 1000.0 * percentile(times, 99);
        let during = |what: &str, times: &[f64]| {
            let p50 = 1000.0 * percentile(times, 50);
            format!("p99 of {what} at {beats:.0} beats/s, of {} (p50 {p50:.2} ms)", times.len())
        };
        vec![
            Line::at_least(
                format!("sessions held for {hold:?} by one gateway"),
                links as f64,
                connected as f64,
                "sessions",
            ),
            Line::new("closes of those that nobody asked for", 0.0, ended as f64, "closes"),
            Line::new("sandboxes that the gateway called dead while their links lived", 0.0, dead as f64, "sandboxes"),
            Line::new(during("the answer to a beat", &times.beats), 20.0, p99(&times.beats), "ms"),
            Line::new(during("the ack of a record", &times.records), 20.0, p99(&times.records), "ms"),
        ]
    }

    /// kill -9 of the gateway with all of them connected; it comes back at once.
    fn kill(&mut self) -> Vec<Line> {
        let (links, rate) = (self.plan.links as f64, self.plan.rate as f64);
        println!("the gateway is killed");
        let (begun, killed) = (self.begun_sessions(), now_ns());
        self.gateway.kill();
        self.gateway.start_again();
        self.until_sessions_have_begun(begun + self.plan.links as u64);
        let refused = refused(&self.gateway);
        let storm = Storm::since(killed, self.returns());
        vec![
            Line::at_least("sandboxes that came back after a kill", links, storm.count() as f64, "sandboxes"),
            Line::new(
                "sessions that began in the busiest second after a kill",
                rate,
                storm.busiest_second() as f64,
                "sessions",
            ),
            Line::new("dials that the gateway refused after it", 0.0, refused, "dials"),
            Line::new("until all were back, 1.35 × fleet / rate", 1.35 * links / rate, storm.last_back(), "s"),
            Line::new(
                "for which the longest of them was away, the same",
                1.35 * links / rate,
                storm.longest_away(),
                "s",
            ),
        ]
    }

    /// Produced = delivered + gaps, of each sandbox.
    fn account(mut self) -> Vec<Line> {
        println!("what was produced is held to what the gateway has");
        self.groups.iter_mut().for_each(|group| group.order(&Order::Finish));
        let (mut tally, mut waiting) = (Tally::default(), 0);
        for heard in std::mem::take(&mut self.groups).into_iter().map(Group::finish) {
            for (id, produced) in &heard.produced {
                tally.count(&self.gateway.events(id), produced);
            }
            waiting += heard.waiting.len();
        }
        let Tally { produced, delivered, gaps, lost, twice, invented } = tally;
        let of = format!("of {produced} records, {delivered} delivered and {gaps} in gaps");
        vec![
            Line::new("sandboxes of which the gateway did not take everything", 0.0, waiting as f64, "sandboxes"),
            Line::new(format!("neither stored nor in a gap, {of}"), 0.0, lost as f64, "records"),
            Line::new(format!("stored twice, or never produced, {of}"), 0.0, (twice + invented) as f64, "records"),
        ]
    }

    fn work(&mut self, tasks: f64) {
        let share = tasks / self.groups.len() as f64;
        self.groups.iter_mut().for_each(|group| group.order(&Order::Work(share)));
    }

    fn connected(&self) -> usize {
        self.groups.iter().map(|group| group.heard().now.connected).sum()
    }

    fn begun_sessions(&self) -> u64 {
        self.groups.iter().map(|group| group.heard().now.begun).sum()
    }

    fn returns(&self) -> Vec<Return> {
        self.groups.iter().flat_map(|group| group.heard().now.returns.clone()).collect()
    }

    /// How many of the fleet the gateway calls something else than connected.
    fn called_dead(&self) -> usize {
        let connected = crate::fleet::connected(&self.gateway);
        self.plan.links.saturating_sub(connected)
    }

    /// So many, ever; and all are connected.
    #[track_caller]
    fn until_sessions_have_begun(&mut self, count: u64) {
        let deadline = Instant::now() + 4 * self.plan.window() + LONG;
        while self.begun_sessions() < count || self.connected() < self.plan.links {
            assert!(Instant::now() < deadline, "{} of {} are connected", self.connected(), self.plan.links);
            self.pause();
        }
    }

    fn hold_for(&mut self, hold: Duration, mut look: impl FnMut(&Fleet<'_>)) {
        let end = Instant::now() + hold;
        while Instant::now() < end {
            self.pause();
            look(self);
        }
    }

    /// A moment, and now and then a line about how it stands.
    fn pause(&mut self) {
        std::thread::sleep(Duration::from_millis(50));
        if self.told.elapsed() >= PROGRESS {
            self.told = Instant::now();
            let tasks: u64 = self.groups.iter().map(|group| group.heard().now.tasks).sum();
            let (connected, begun, memory) =
                (self.connected(), self.begun_sessions(), resident(&self.gateway) / 1024.0);
            let seconds = self.begun.elapsed().as_secs();
            println!(
                "{seconds:>4} s: {connected} connected, {begun} sessions begun, {tasks} tasks, gateway {memory:.0} MiB"
            );
        }
    }
}

impl Plan {
    /// P, as the gateway tells it once it knows the whole fleet.
    fn window(&self) -> Duration {
        Duration::from_secs_f64((1.25 * self.links as f64 / self.rate as f64).max(0.25))
    }

    /// T.
    fn beat(&self) -> Duration {
        Duration::from_millis((1000 * self.links / BEATS).max(1000) as u64)
    }
}

fn gateway(plan: &Plan) -> Gateway {
    let builder = Gateway::build()
        .set("beat", &format!("{}ms", plan.beat().as_millis()))
        .set("admission_rate", &plan.rate.to_string())
        .set("log_level", "info");
    let ids = (0..plan.links).map(id).chain(probes::ids());
    let tokens: String = ids.map(|id| format!("{id} {}\n", token_of(&id))).collect();
    std::fs::write(builder.directory().join("sandboxes"), tokens).expect("our own directory");
    builder.start()
}

/// KiB that it has in memory.
fn resident(gateway: &Gateway) -> f64 {
    let text = processes::status(gateway.pid(), "VmRSS").unwrap_or_default();
    text.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(f64::NAN)
}

fn refused(gateway: &Gateway) -> f64 {
    let reasons = ["rate", "token", "headers", "draining", "lease"];
    reasons.iter().map(|reason| gateway.metric(&format!("gateway_dials_refused_total{{reason=\"{reason}\"}}"))).sum()
}

/// How many sandboxes of the fleet the gateway calls connected.
fn connected(gateway: &Gateway) -> usize {
    let (api, mut count, mut cursor) = (gateway.api(), 0, String::new());
    loop {
        let page = api.get(&format!("/v1/sandboxes?status=connected&limit=1000&cursor={cursor}")).json();
        let sandboxes = page["sandboxes"].as_array().map(Vec::as_slice).unwrap_or_default();
        count +=
            sandboxes.iter().filter(|sandbox| sandbox["id"].as_str().is_some_and(|id| id.starts_with("s-"))).count();
        match page["cursor"].as_str() {
            Some(next) => cursor = next.to_owned(),
            None => return count,
        }
    }
}

/// Where `fleet` is when it is a program of this crate that runs.
pub fn program() -> PathBuf {
    std::env::current_exe().expect("/proc is mounted")
}
