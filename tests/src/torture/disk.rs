//! A disk that does one call not as it should, while it is used: the call is refused, short or late, at any of the first calls of its kind,
//! once or some times in a row. Of a supervisor's state directory, and of the gateway's database.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use protocol::session::Class;

use super::account::{Account, Cost};
use super::chance::Chance;
use super::forgetful::{Call, Damage, Fault, Forgetful};
use super::load::{Sandbox, Settings};
use crate::bench::Line;
use crate::control_plane::Gateway;
use crate::supervisor::{End, Supervisor};
use crate::wait::{LONG, within};

/// What a database that is open asks of its disk.
const DATABASE: [Call; 2] = [Call::Write, Call::Sync];
/// Runs beside each other.
const TOGETHER: usize = 2;
/// Calls of a kind that happens often, before the fault.
const OFTEN: usize = 30;
/// The same of any other.
const SELDOM: usize = 6;
/// Of the planned faults, this part comes up at least: a gateway asks its disk for both kinds again and again, a supervisor seldom changes
/// a length or syncs a folder.
const COME_UP: [f64; 2] = [0.6, 0.9];
/// Of a hundred tasks so many have a result at the gateway in the end: eight refusals may be of half the records of a short life.
const DELIVERED: f64 = 50.0;
/// For so long a call is waited for that may never come.
const MET: Duration = Duration::from_millis(1500);
/// A start may be refused where the state directory is no use (configuration, a full disk): docs/features/run.md.
const REFUSED: [End; 2] = [End::Code(75), End::Code(78)];

/// So many faults of a supervisor's disk, and a third as many of its gateway's.
pub fn measure(faults: usize) -> Vec<Line> {
    let mut chance = Chance::seeded(0x6a09_e667_f3bc_c909);
    let Some(_) = Forgetful::mount() else { return Vec::new() };
    let supervisors = run(faults, &Call::ALL, Cost::Refused, &mut chance, of_supervisor);
    // Its sandboxes keep what it does not take.
    let gateways = run(faults.div_ceil(3), &DATABASE, Cost::Nothing, &mut chance, of_gateway);
    let lines = |found: &Found, of: &str, part: f64, doubts: usize| {
        let faults = format!("{} faults of a {of}'s disk that came up", found.met);
        let mut lines = found.account.lines(&faults);
        lines.push(found.account.gaps(&faults, doubts));
        lines.push(found.account.delivered(&faults, DELIVERED));
        let planned = format!("faults of a {of}'s disk that came up, of {} that were planned", found.runs);
        lines.push(Line::at_least(planned, (part * found.runs as f64).floor(), found.met as f64, "faults"));
        lines.push(Line::new(format!("exits of a {of} in {faults}"), 0.0, found.exits as f64, "exits"));
        lines.push(Line::new(format!("{of}s that do not work after {faults}"), 0.0, found.stuck as f64, "runs"));
        lines
    };
    let [of_supervisors, of_gateways] = COME_UP;
    // Each is killed, and where the disk will not sync what a start finds, or give it back, each class is in doubt.
    let doubts = supervisors.runs * Class::ALL.len();
    [lines(&supervisors, "supervisor", of_supervisors, doubts), lines(&gateways, "gateway", of_gateways, 0)].concat()
}

/// What faults did, counted.
#[derive(Default)]
struct Found {
    account: Account,
    runs: usize,
    met: usize,
    exits: usize,
    stuck: usize,
}

fn run(faults: usize, calls: &[Call], cost: Cost, chance: &mut Chance, one: fn(usize, Fault, &mut Found)) -> Found {
    let draws: Vec<Fault> = (0..faults).map(|_| draw(calls, chance)).collect();
    let none = || Found { account: Account::of(cost), ..Found::default() };
    let (next, all) = (AtomicUsize::new(0), Mutex::new(none()));
    std::thread::scope(|scope| {
        for _ in 0..TOGETHER {
            scope.spawn(|| {
                while let Some((number, fault)) = {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    draws.get(number).map(|fault| (number, *fault))
                } {
                    let mut found = Found { runs: 1, ..none() };
                    one(number, fault, &mut found);
                    let mut all = all.lock().expect("nobody panics with it");
                    if found.exits + found.stuck > 0 || found.account.is_wrong() {
                        println!("after {fault:?}");
                    }
                    all.add(found);
                    if all.runs % 50 == 0 {
                        println!("{} of {faults} faults", all.runs);
                    }
                }
            });
        }
    });
    all.into_inner().expect("nobody panics with it")
}

fn draw(calls: &[Call], chance: &mut Chance) -> Fault {
    let call = calls[chance.below(calls.len())];
    let most = if matches!(call, Call::Open | Call::Write | Call::Sync) { OFTEN } else { SELDOM };
    let damage = Damage::ALL[chance.below(Damage::ALL.len())];
    Fault { call, number: chance.below(most), times: [1, 1, 8][chance.below(3)], damage }
}

impl Found {
    fn add(&mut self, other: Found) {
        self.account.add(&other.account);
        self.runs += other.runs;
        self.met += other.met;
        self.exits += other.exits;
        self.stuck += other.stuck;
    }
}

/// From its first start on; after it the supervisor is killed, and what it left is held to account.
fn of_supervisor(number: usize, fault: Fault, found: &mut Found) {
    let gateway = Gateway::start();
    let disk = Forgetful::mount().expect("there was one before");
    disk.expect(fault);
    let sync = if number.is_multiple_of(2) { "always" } else { "group" };
    let settings =
        Settings::default().set("state-dir", disk.path().join("state")).set("task-sync", sync).set("buffer-sync", sync);
    let mut sandbox = Sandbox::start_with("a", &format!("ws://{}", gateway.address), settings);
    let mut revive = |sandbox: &mut Sandbox| {
        if sandbox.supervisor.has_ended() {
            let refused = REFUSED.contains(&sandbox.supervisor.wait_exit()) && !has_started(&sandbox.supervisor);
            found.exits += usize::from(!refused);
            sandbox.kill_and_start_again();
        }
    };
    within(MET, || {
        revive(&mut sandbox);
        (disk.met() >= fault.times).then_some(())
    });
    let works = within(LONG, || {
        revive(&mut sandbox);
        sandbox.runs_a_task().then_some(())
    });
    found.met += usize::from(disk.met() > 0);
    found.stuck += usize::from(works.is_none());
    disk.heal();
    sandbox.kill_and_start_again();
    found.account.settle(&mut [sandbox], &gateway);
}

/// Whether it has taken a task. It listens before it opens its state directory, so an address says nothing.
fn has_started(supervisor: &Supervisor) -> bool {
    supervisor.log().iter().any(|line| line["message"] == "a task" && line["state"] == "queued")
}

/// While two sandboxes use it; after it the gateway is killed.
fn of_gateway(_: usize, fault: Fault, found: &mut Found) {
    let disk = Forgetful::mount().expect("there was one before");
    let database = format!("sqlite:{}", disk.path().join("gateway.db").display());
    let mut gateway = Gateway::build().set("database_url", &database).start();
    let mut sandboxes = ["a", "b"].map(|id| Sandbox::start(id, gateway.address));
    disk.expect(fault);
    within(MET, || {
        if gateway.has_ended() {
            found.exits += 1;
            gateway.start_again();
        }
        (disk.met() >= fault.times).then_some(())
    });
    found.met += usize::from(disk.met() > 0);
    disk.heal();
    gateway.kill();
    gateway.start_again();
    found.stuck += sandboxes.iter().filter(|sandbox| !sandbox.works()).count();
    found.account.settle(&mut sandboxes, &gateway);
    // Before the disk that it uses.
    drop(gateway);
}
