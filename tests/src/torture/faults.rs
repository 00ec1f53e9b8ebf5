//! What a network, a scheduler and a neighbour do, one after the other under load: packets are lost, nothing passes, connections end in the midst, everything
//! is slow; either end stands still; either end's disk is full. Each lasts for a while, and then everything works again.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::mount::{MsFlags, mount, umount};
use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use protocol::session::Class;
use tempfile::TempDir;

use super::account::{Account, Cost};
use super::chance::Chance;
use super::load::{Sandbox, Settings, broken};
use super::wire::Wire;
use crate::balancer::Balancer;
use crate::bench::Line;
use crate::binaries;
use crate::control_plane::Gateway;
use crate::wait::LONG;

/// Each has a supervisor.
const SANDBOXES: [&str; 2] = ["a", "b"];
/// Of each end's disk: more than a long run keeps of its own.
const DISK: &str = "size=256m,mode=0777";
/// Of a hundred tasks so many have a result at the gateway in the end: of each sandbox the buffer has room for less than the longest outage.
const DELIVERED: f64 = 50.0;
/// As long as most of them last, and as one of ten may.
const SHORT_MS: u64 = 4_000;
const LONG_MS: u64 = 40_000;

/// What goes wrong for a while.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// Nothing passes, and nobody is told.
    Blackhole,
    /// Connections end, again and again.
    Resets,
    /// Each KiB takes its time.
    Slow,
    /// The kernel drops every fourth packet, by chance.
    Loss,
    /// The kernel drops all of them: who dials hears nothing, either.
    Silence,
    /// The gateway's process does not run.
    GatewayStands,
    /// A supervisor's does not.
    SupervisorStands,
    /// Others have filled the disk of the gateway's database.
    GatewayFull,
    /// The same of a state directory.
    SupervisorFull,
}

/// All of them; the first two where packets can be lost.
pub const ALL: usize = FAULTS.len();
const FAULTS: [Fault; 9] = [
    Fault::Loss,
    Fault::Silence,
    Fault::Blackhole,
    Fault::Resets,
    Fault::Slow,
    Fault::GatewayStands,
    Fault::SupervisorStands,
    Fault::GatewayFull,
    Fault::SupervisorFull,
];

/// So many of them. `long` are those that last up to 40 s.
pub fn measure(faults: usize, long: bool) -> Vec<Line> {
    // The network namespace is this thread's.
    std::thread::spawn(move || suffer(faults, long)).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn suffer(faults: usize, long: bool) -> Vec<Line> {
    let mut chance = Chance::seeded(0xa54f_f53a_5f1d_36f1);
    let Some(mut site) = Site::start() else { return Vec::new() };
    let mut stuck = 0;
    for round in 0..faults {
        chance.pause(500);
        let fault = site.possible()[round % site.possible().len()];
        let most = if long && round % 10 == 9 { LONG_MS } else { SHORT_MS };
        let lasts = Duration::from_millis(if long { 1000 } else { 200 }) + chance.millis(most);
        println!("{fault:?} for {} ms", lasts.as_millis());
        site.suffer(fault, lasts, round % SANDBOXES.len());
        if let Some(what) = site.broken() {
            println!("after {fault:?}: {what}");
            stuck += 1;
        }
    }
    let faults = format!("{faults} faults of network, disk and scheduler");
    let mut account = Account::of(Cost::Room);
    account.settle(&mut site.sandboxes, &site.gateway);
    let mut lines = account.lines(&faults);
    // Nobody is killed. But where a full disk took a part of the last record of a class, the next start is in doubt.
    lines.push(account.gaps(&faults, SANDBOXES.len() * Class::ALL.len()));
    lines.push(account.delivered(&faults, DELIVERED));
    // Without the means for all of them it is another run.
    lines.push(Line::at_least("kinds of them", ALL as f64, site.possible().len() as f64, "kinds"));
    lines.push(Line::new(format!("of {faults}, those after which not all works again"), 0.0, stuck as f64, "faults"));
    lines
}

struct Site {
    /// Where packets can be lost.
    wire: Option<Wire>,
    gateway: Gateway,
    front: Balancer,
    sandboxes: [Sandbox; 2],
    disks: [Disk; 3],
}

impl Site {
    /// `None` where nobody may mount a disk, which is printed.
    fn start() -> Option<Site> {
        let wire = Wire::enter();
        let disks = [Disk::mount()?, Disk::mount()?, Disk::mount()?];
        let database = format!("sqlite:{}", disks[2].path().join("gateway.db").display());
        let gateway = Gateway::build().set("database_url", &database).set("events_keep_count", "10000000").start();
        let front = Balancer::before(&[gateway.address]);
        let mut states = disks.iter().map(|disk| disk.path().join("state"));
        let sandboxes = SANDBOXES.map(|id| {
            let settings = Settings::default().set("state-dir", states.next().unwrap_or_default());
            Sandbox::start_with(
                id,
                &format!("ws://{}", front.address),
                settings.set("buffer-size", "4MiB").set("buffer-reserve", "1MiB"),
            )
        });
        Some(Site { wire, gateway, front, sandboxes, disks })
    }

    fn possible(&self) -> &'static [Fault] {
        if self.wire.is_some() { &FAULTS } else { &FAULTS[2..] }
    }

    fn suffer(&mut self, fault: Fault, lasts: Duration, which: usize) {
        let wait = || std::thread::sleep(lasts);
        match fault {
            Fault::Blackhole => {
                self.front.cut();
                wait();
            }
            Fault::Resets => {
                for _ in 0..10 {
                    self.front.reset();
                    std::thread::sleep(lasts / 10);
                }
            }
            Fault::Slow => {
                self.front.slow_down(Duration::from_millis(50));
                wait();
            }
            Fault::Loss => self.lose(25, wait),
            Fault::Silence => self.lose(100, wait),
            Fault::GatewayStands => stand(self.gateway.pid(), wait),
            Fault::SupervisorStands => stand(self.sandboxes[which].supervisor.pid(), wait),
            Fault::GatewayFull => self.disks[2].fill(wait),
            Fault::SupervisorFull => self.disks[which].fill(wait),
        }
        self.front.mend();
    }

    fn lose(&self, percent: u8, wait: impl Fn()) {
        let dropping = self.wire.as_ref().map(|wire| wire.drop_packets(self.front.address.port(), percent));
        wait();
        drop(dropping);
    }

    /// What does not work. Whoever is cut off again and again waits for up to a minute (docs/features/link.md).
    fn broken(&self) -> Option<String> {
        broken(&self.sandboxes, &self.gateway, 2 * LONG)
    }
}

fn stand(pid: nix::unistd::Pid, wait: impl Fn()) {
    kill(pid, Signal::SIGSTOP).expect("our own child");
    wait();
    kill(pid, Signal::SIGCONT).expect("our own child");
}

/// A small one, in memory, until this value goes.
struct Disk(TempDir);

impl Disk {
    fn mount() -> Option<Disk> {
        let place = binaries::scratch();
        let mounted = mount(Some("tmpfs"), place.path(), Some("tmpfs"), MsFlags::MS_NOSUID, Some(DISK));
        mounted.inspect_err(|error| eprintln!("skipped: no small disk can be mounted here: {error}")).ok()?;
        Some(Disk(place))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Full, for as long as that takes.
    fn fill(&self, wait: impl Fn()) {
        let ballast: PathBuf = self.path().join("ballast");
        let filled = File::create(&ballast).and_then(|mut file| std::io::copy(&mut std::io::repeat(0), &mut file));
        filled.expect_err("it is small");
        wait();
        // Emptied first: a process that another test forks just now may still hold it, and its room with it.
        File::create(&ballast).and_then(|_| fs::remove_file(&ballast)).expect("made above");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = umount(self.path());
    }
}
