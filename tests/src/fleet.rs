//! A fleet: thousands of sandboxes, made of the supervisor's own link and buffer, at real gateways.
//!
//! The story of a run: the gateways start; all sandboxes dial in; nothing happens for a moment, and what an idle session takes is
//! measured; tasks run, and for the hold no session may end and none be called dead; where it was asked for, a gateway is added, or killed, and
//! one drained; at the end each number that a buffer gave out is a record of the gateway's, or in a gap. [`acts`] has each of these.
//!
//! A process may have 20,000 descriptors, so sandboxes live in several: [`agents`] is one of them, [`group`] its other
//! end, [`sandbox`] one of its sandboxes; [`real`] has whole supervisors among them. [`site`] has the gateways, [`door`] is where sandboxes dial when gateways change.

use std::path::Path;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::bench::Line;
use crate::wait::LONG;
use crate::{binaries, interrupt};

mod acts;
pub mod agents;
mod backlog;
mod door;
mod group;
mod looks;
mod plain;
mod probes;
mod real;
pub mod recording;
mod sandbox;
mod site;
mod storm;
mod words;

use group::Group;
use real::Reals;
use site::Site;
use words::{Order, Return, Share};

/// Sandboxes in one process, where they dial at a door of its own and where not: each has nine descriptors at most, for its directories, its
/// buffer's files, its socket and its timer, and two more at a door.
const AGENTS: (usize, usize) = (1_700, 2_000);
/// Beats of the whole fleet in a second.
const BEATS: usize = 1_000;
/// Between two lines that tell how it stands.
const PROGRESS: Duration = Duration::from_secs(5);

/// What is run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Sandboxes.
    pub links: usize,
    /// How many of them are real supervisors.
    pub real: usize,
    /// Gateways; several of them, and a drain, need PostgreSQL.
    pub gateways: usize,
    /// Sessions that may begin in a second, at each gateway.
    pub rate: usize,
    /// Tasks that run in a second, of all sandboxes together.
    pub tasks: f64,
    /// For how long all are held.
    pub hold: Duration,
    /// Whether they dial by TLS; one gateway, which is neither killed nor drained.
    pub tls: bool,
    /// KiB that each simulated sandbox keeps while the gateway is away for a while; none for no outage.
    pub backlog: Option<usize>,
    /// Whether one more gateway joins then.
    pub add: bool,
    /// Whether a gateway is killed then.
    pub kill: bool,
    /// Whether a gateway is lost for good then; of several.
    pub lose: bool,
    /// Whether a gateway is drained then, beside a successor.
    pub drain: bool,
}

impl Default for Plan {
    /// A thousand at one gateway, for a minute.
    fn default() -> Plan {
        Plan {
            links: 1000,
            real: 0,
            gateways: 1,
            rate: 500,
            tasks: 20.0,
            hold: Duration::from_secs(60),
            tls: false,
            backlog: None,
            add: false,
            kill: false,
            lose: false,
            drain: false,
        }
    }
}

impl Plan {
    /// Sandboxes in one process.
    fn agents(&self) -> usize {
        if self.needs_doors() { AGENTS.0 } else { AGENTS.1 }
    }
}

/// Run it with `program`, which is `fleet`; the numbers. None where this machine lacks what it needs.
pub fn run(plan: &Plan, program: &Path) -> Vec<Line> {
    let Some(site) = Site::start(plan) else { return Vec::new() };
    let mut fleet = Fleet::start(plan, site, program);
    let mut lines = vec![fleet.idle()];
    lines.extend(fleet.hold());
    if let Some(kib) = plan.backlog {
        lines.extend(fleet.backlog(kib));
    }
    if plan.add {
        lines.extend(fleet.add());
    }
    if plan.kill {
        lines.extend(fleet.kill());
    }
    if plan.lose {
        lines.extend(fleet.lose());
    }
    if plan.drain {
        lines.extend(fleet.drain());
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
    groups: Vec<Group>,
    reals: Reals,
    site: Site,
    /// KiB that the gateways took without a session.
    empty: f64,
}

impl<'p> Fleet<'p> {
    fn start(plan: &'p Plan, site: Site, program: &Path) -> Fleet<'p> {
        let empty = site.resident();
        let simulated = plan.links - plan.real;
        let share = |first: usize| Share {
            gateways: site.addresses(),
            door: plan.needs_doors(),
            first,
            count: plan.agents().min(simulated - first),
            window_ms: plan.window().as_millis() as u64,
            authority: site.authority().map(Path::to_path_buf),
        };
        let begun = Instant::now();
        // Whole processes first: a hundred of them start for seconds.
        let reals = Reals::start(plan, &site);
        let groups = (0..simulated).step_by(plan.agents()).map(|first| Group::start(program, &share(first))).collect();
        let mut fleet = Fleet { plan, begun, told: begun, groups, reals, site, empty };
        fleet.until_sessions_have_begun(plan.links as u64, || ());
        fleet
    }

    fn order(&mut self, order: &Order) {
        self.groups.iter_mut().for_each(|group| group.order(order));
    }

    fn connected(&self) -> usize {
        self.reals.seen().connected + self.seen(|now| now.connected)
    }

    fn begun_sessions(&self) -> u64 {
        self.reals.seen().begun + self.seen(|now| now.begun)
    }

    fn tasks(&self) -> u64 {
        self.reals.seen().tasks + self.seen(|now| now.tasks)
    }

    /// Of all simulated ones.
    fn seen<T: std::iter::Sum>(&self, of: impl Fn(&words::Now) -> T) -> T {
        self.groups.iter().map(|group| of(&group.heard().now)).sum()
    }

    fn simulated(&self) -> usize {
        self.plan.links - self.plan.real
    }

    fn returns(&self) -> Vec<Return> {
        let of_groups = self.groups.iter().flat_map(|group| group.heard().now.returns.clone());
        of_groups.chain(self.reals.seen().returns.clone()).collect()
    }

    /// So many, ever; and all are connected. Meanwhile it looks at something.
    #[track_caller]
    fn until_sessions_have_begun(&mut self, count: u64, mut look: impl FnMut()) {
        let deadline = Instant::now() + 4 * self.plan.window() + LONG;
        while self.begun_sessions() < count || self.connected() < self.plan.links {
            assert!(Instant::now() < deadline, "{} of {} are connected", self.connected(), self.plan.links);
            self.pause();
            look();
        }
    }

    fn hold_for(&mut self, hold: Duration) {
        let end = Instant::now() + hold;
        while Instant::now() < end {
            self.pause();
        }
    }

    /// A moment, and now and then a line about how it stands.
    fn pause(&mut self) {
        std::thread::sleep(Duration::from_millis(50));
        interrupt::check();
        if self.told.elapsed() >= PROGRESS {
            self.told = Instant::now();
            let (connected, begun, tasks) = (self.connected(), self.begun_sessions(), self.tasks());
            let memory = self.site.resident() / 1024.0;
            let seconds = self.begun.elapsed().as_secs();
            println!(
                "{seconds:>4} s: {connected} connected, {begun} sessions begun, {tasks} tasks, gateways {memory:.0} MiB"
            );
        }
    }
}
