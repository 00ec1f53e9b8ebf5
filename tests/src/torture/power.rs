//! Power cuts under load: state directories and the gateway's database lie on a file system that [forgets](super::forgetful) what was
//! not synced. A cut is kill -9 of one end and the loss of that; then it starts again, as after a reboot.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use protocol::session::Class;

use super::account::{Account, Cost};
use super::chance::Chance;
use super::forgetful::Forgetful;
use super::load::{Sandbox, Settings};
use crate::bench::Line;
use crate::binaries;
use crate::control_plane::Gateway;
use crate::tasks::Api;
use crate::wait::wait_for;

/// Each has a supervisor.
const SANDBOXES: [&str; 2] = ["a", "b"];
/// Cuts before all is counted, and begun anew.
const TOGETHER: usize = 100;
/// Of so many cuts one takes something at least: power that takes nothing shows nothing.
const TAKES: usize = 10;
/// Of a hundred tasks that a client saw created so many have a result in the end, also where they do not wait for the disk: a result that the gateway
/// did not get is told once more.
const DELIVERED: f64 = 90.0;
/// Within so long everything is on the disk where nothing waits for it.
const GROUP: Duration = Duration::from_millis(50);

/// So many cuts of supervisors where answers wait for the disk, and of their gateway; and a quarter as many of supervisors where
/// they do not.
pub fn measure(cuts: usize) -> Vec<Line> {
    let mut chance = Chance::seeded(0xd1b5_4a32_d192_ed03);
    let mut lines = Vec::new();
    for (sync, cuts) in [("always", cuts), ("group", cuts.div_ceil(4))] {
        let cost = Cost::Unsynced { always: sync == "always" };
        let mut found = Found { account: Account::of(cost), ..Found::default() };
        while found.cuts < cuts {
            let Some(world) = World::start(sync) else { return Vec::new() };
            world.suffer(TOGETHER.min(cuts - found.cuts), &mut chance, &mut found);
            println!("{} of {cuts} power cuts with sync = {sync}", found.cuts);
        }
        lines.extend(found.lines(sync));
    }
    lines
}

/// What cuts did, counted.
#[derive(Default)]
struct Found {
    account: Account,
    cuts: usize,
    /// Cuts after which records were not on the disk as programs had seen them.
    took: usize,
    refused: usize,
    /// The oldest of what a client was told and that is gone.
    oldest: Duration,
}

impl Found {
    fn lines(&self, sync: &str) -> Vec<Line> {
        let faults = format!("{} power cuts of either end with sync = {sync}", self.cuts);
        let mut lines = self.account.records(&faults);
        let took = format!("that took records which were not synced, of {faults}");
        // A few cuts may all come when everything is synced.
        if self.cuts >= TAKES {
            lines.push(Line::at_least(took, (self.cuts / TAKES) as f64, self.took as f64, "cuts"));
        }
        lines.extend(self.account.load(&faults));
        // After a loss of power the numbers of each class go on behind all that can have been told.
        lines.push(self.account.gaps(&faults, self.cuts * Class::ALL.len()));
        lines.push(self.account.delivered(&faults, DELIVERED));
        if sync == "always" {
            lines.extend(self.account.tasks(&faults));
        } else {
            let oldest = self.oldest.as_secs_f64() * 1000.0;
            let goal = GROUP.as_secs_f64() * 1000.0;
            lines.push(Line::new(format!("oldest word to a client that was lost in {faults}"), goal, oldest, "ms"));
        }
        lines.push(Line::new(format!("starts refused after {faults}"), 0.0, self.refused as f64, "starts"));
        lines
    }
}

/// One gateway and its sandboxes, each on a disk of its own.
struct World {
    always: bool,
    boot: Boot,
    gateway: (Gateway, Forgetful),
    sandboxes: Vec<(Sandbox, Forgetful)>,
}

impl World {
    /// `None` where there is no such disk here, which is printed.
    fn start(sync: &str) -> Option<World> {
        let boot = Boot::new();
        let disk = Forgetful::mount()?;
        let database = format!("sqlite:{}", disk.path().join("gateway.db").display());
        let gateway = Gateway::build().set("database_url", &database).start();
        let mut sandboxes = Vec::new();
        for id in SANDBOXES {
            let disk = Forgetful::mount()?;
            let state = disk.path().join("state");
            // Where it is mounted in a Pod, nobody forgets it.
            let made = fs::create_dir(&state).and_then(|()| fs::File::open(disk.path())?.sync_all());
            made.expect("our own file system");
            let settings = Settings::default()
                .set("state-dir", state)
                .set("task-sync", sync)
                .set("buffer-sync", sync)
                .program(boot.program());
            sandboxes.push((Sandbox::start_with(id, &format!("ws://{}", gateway.address), settings), disk));
        }
        Some(World { always: sync == "always", boot, gateway: (gateway, disk), sandboxes })
    }

    fn suffer(mut self, cuts: usize, chance: &mut Chance, found: &mut Found) {
        for round in 0..cuts {
            let end = round % (2 * SANDBOXES.len());
            chance.pause(200);
            match end % 2 {
                0 => {
                    let (gateway, disk) = &mut self.gateway;
                    gateway.kill();
                    found.took += usize::from(cut(disk, disk.path(), chance));
                    chance.pause(100);
                    gateway.start_again();
                }
                _ => self.cut_sandbox(end / 2, chance, found),
            }
            found.cuts += 1;
        }
        let (mut sandboxes, disks): (Vec<_>, Vec<_>) = self.sandboxes.into_iter().unzip();
        if self.always {
            found.account.settle(&mut sandboxes, &self.gateway.0);
        } else {
            found.account.settle_records(&mut sandboxes, &self.gateway.0);
        }
        // Disks go after all who use them.
        drop((sandboxes, self.gateway));
        drop(disks);
    }

    fn cut_sandbox(&mut self, which: usize, chance: &mut Chance, found: &mut Found) {
        let (sandbox, disk) = &mut self.sandboxes[which];
        if sandbox.supervisor.has_ended() {
            println!("refused: {}", sandbox.supervisor.stderr.text());
            found.refused += 1;
        }
        let at = sandbox.kill();
        found.took += usize::from(cut(disk, &sandbox.state().join("buffer"), chance));
        self.boot.again(chance);
        sandbox.start_again();
        if !self.always {
            found.oldest = found.oldest.max(forget_what_is_lost(sandbox, at));
        }
    }
}

/// Power goes; whether that took something of the records in this folder.
fn cut(disk: &Forgetful, records: &Path, chance: &mut Chance) -> bool {
    let before = seen(records);
    disk.cut(chance);
    seen(records) != before
}

/// The files in it.
fn seen(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    // Nobody syncs the index of SQLite's log, which is made anew, nor the buffer's cursor, which is told again.
    let unsynced = |path: &PathBuf| path.ends_with("cursor") || path.to_string_lossy().ends_with("-shm");
    let files = files.filter(|path| path.is_file() && !unsynced(path));
    files.map(|path| (path.clone(), fs::read(&path).unwrap_or_default())).collect()
}

/// Hold the supervisor to what clients were told before this instant, and then nobody to what is lost; the age of the oldest of it.
fn forget_what_is_lost(sandbox: &mut Sandbox, cut: Instant) -> Duration {
    let address = wait_for("it listens", || {
        let ended = sandbox.supervisor.has_ended();
        assert!(!ended, "{}", sandbox.supervisor.stderr.text());
        sandbox.supervisor.log().iter().find_map(|line| line["address"].as_str()?.parse().ok())
    });
    let tasks: BTreeMap<String, serde_json::Value> = Api::at(address, crate::scene::CANARY)
        .list("limit=1000")
        .into_iter()
        .map(|task| (task["task_id"].as_str().unwrap_or_default().to_owned(), task))
        .collect();
    let mut oldest = Duration::ZERO;
    sandbox.told.retain(|id, told| {
        let kept = tasks.get(id).is_some_and(|task| told.end.as_ref().is_none_or(|end| task["state"] == end.as_str()));
        if !kept {
            oldest = oldest.max(cut.saturating_duration_since(told.at));
        }
        kept
    });
    oldest
}

/// A supervisor that finds another boot of the kernel each time that there was one.
struct Boot {
    place: tempfile::TempDir,
}

impl Boot {
    fn new() -> Boot {
        let place = binaries::scratch();
        let program = place.path().join("supervisor");
        let script = format!(
            "exec unshare --mount sh -c 'mount --bind {} /proc/sys/kernel/random/boot_id && exec {} \"$@\"' sh \"$@\"",
            place.path().join("boot_id").display(),
            binaries::supervisor().display()
        );
        binaries::script(&program, &script);
        let boot = Boot { place };
        boot.write("00000000-0000-4000-8000-000000000000");
        boot
    }

    fn again(&self, chance: &mut Chance) {
        self.write(&format!("00000000-0000-4000-8000-{:012x}", chance.number() & 0xffff_ffff_ffff));
    }

    /// Beside, because who runs has the old one.
    fn write(&self, id: &str) {
        let path = self.path();
        fs::write(path.with_extension("new"), format!("{id}\n"))
            .and_then(|()| fs::rename(path.with_extension("new"), &path))
            .expect("our own directory");
    }

    fn path(&self) -> PathBuf {
        self.place.path().join("boot_id")
    }

    fn program(&self) -> PathBuf {
        Path::new(self.place.path()).join("supervisor")
    }
}
