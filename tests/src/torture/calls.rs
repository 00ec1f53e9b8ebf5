//! A supervisor, and then a gateway, whose kernel refuses calls while it works: of one kind every third or so, with one of the errors that
//! this kind may have, until enough of them were refused; then the next, in another life. strace(1) refuses them, and what they were to do is
//! not done.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::account::{Account, Cost};
use super::chance::Chance;
use super::kills::DOUBTS;
use super::load::{Sandbox, Settings, broken};
use crate::balancer::Balancer;
use crate::bench::Line;
use crate::control_plane::Gateway;
use crate::supervisor::End;
use crate::tasks::Api;
use crate::wait::{LONG, wait_until, within};
use crate::{http, needs, processes, scene};

mod pair;

use pair::{Pair, Who};

/// Those pairs alone that have this in their names, for instance `openat EIO`.
const VARIABLE: &str = "TORTURE_CALLS";
/// So many refusals of one pair are enough.
const ENOUGH: usize = 40;
/// What is seldom asked for has had enough by then, if it was refused at least this often.
const USUAL: Duration = Duration::from_secs(1);
const FEW: usize = 5;
/// And so by then.
const MOST: Duration = Duration::from_secs(5);
/// Of a hundred tasks so many have a result at the gateway in the end: of few pairs two may be such that refuse every third record.
const DELIVERED: f64 = 75.0;
/// What both say when one of their parts panics.
const PANIC: &str = " panicked; this is a bug of it";

/// So many pairs at most, evenly over all of them.
pub fn measure(most: usize) -> Vec<Line> {
    if !needs::commands(&["strace"]) {
        return Vec::new();
    }
    let all = Pair::all(&std::env::var(VARIABLE).unwrap_or_default());
    if all.is_empty() {
        eprintln!("skipped: no pair has what {VARIABLE} says in its name");
        return Vec::new();
    }
    let mut chance = Chance::seeded(0x3c6e_f372_fe94_f82b);
    let (most, first) = (most.min(all.len()), chance.below(all.len()));
    let mut site = Site::start();
    for number in 0..most {
        let pair = all[(first + number * all.len() / most) % all.len()];
        if !site.suffer(pair, &mut chance) {
            return Vec::new();
        }
    }
    site.lines(most)
}

/// One sandbox at a gateway, and what was seen of it.
struct Site {
    gateway: Gateway,
    front: Balancer,
    sandbox: Sandbox,
    refused: usize,
    /// Pairs of which at least one call was refused.
    hit: usize,
    /// Lives in which memory was refused.
    without_memory: usize,
    exits: usize,
    aborts: usize,
    panics: usize,
    stuck: usize,
}

impl Site {
    fn start() -> Site {
        let gateway = Gateway::build().set("events_keep_count", "10000000").start();
        let front = Balancer::before(&[gateway.address]);
        // Who measures does not rest.
        let settings = Settings::default().set("link-samples", "60s");
        let sandbox = Sandbox::start_with("a", &format!("ws://{}", front.address), settings);
        let (refused, hit, without_memory) = (0, 0, 0);
        Site { gateway, front, sandbox, refused, hit, without_memory, exits: 0, aborts: 0, panics: 0, stuck: 0 }
    }

    /// Whether strace may; why not, is printed.
    fn suffer(&mut self, pair: Pair, chance: &mut Chance) -> bool {
        self.begin_another_life(pair);
        let again = match pair.who {
            Who::Supervisor => vec![self.sandbox.token_file(), self.sandbox.supervisor.paths().token.clone()],
            Who::Gateway => vec![self.tokens()],
        };
        let Some(strace) = pair.begin(self.pid(pair.who), &again, chance) else { return false };
        // Once: the more often in a row it is lost, the longer it stays away.
        self.front.reset();
        let begun = Instant::now();
        within(MOST, || {
            self.ask(pair.who);
            let enough = if begun.elapsed() < USUAL { ENOUGH } else { FEW };
            (strace.injected() >= enough || self.has_ended(pair.who)).then_some(())
        });
        let refused = strace.injected();
        drop(strace);
        println!("{pair}: {refused} refused");
        self.refused += refused;
        self.hit += usize::from(refused > 0);
        self.without_memory += usize::from(pair.is_of_memory());
        self.judge(pair);
        true
    }

    /// Of it, and of the load, which ends with each pair.
    fn begin_another_life(&mut self, pair: Pair) {
        if pair.who == Who::Gateway || self.gateway.has_ended() {
            self.gateway.kill();
            self.gateway.start_again();
        }
        self.sandbox.kill_and_start_again();
        if let Some(what) = self.broken() {
            panic!("before anything was refused, {what}: {}", self.last_words(pair.who));
        }
        if pair.is_of_threads() {
            self.rest();
        }
    }

    /// Nobody asks for anything until it has two threads, as it has at rest: one of them waits.
    fn rest(&mut self) {
        self.sandbox.end_load();
        let threads = format!("/proc/{}/task", self.sandbox.supervisor.pid());
        wait_until("rest", || fs::read_dir(&threads).is_ok_and(|threads| threads.count() <= 2));
    }

    /// What the load alone seldom asks for: of the supervisor another zygote, and the end of a task's folders; of the gateway tokens that were
    /// replaced, a session, and what is stored.
    fn ask(&self, who: Who) {
        let task = self.sandbox.run_a_task("1s");
        match who {
            Who::Supervisor => {
                if let Some(zygote) = processes::zygote(self.sandbox.supervisor.pid()) {
                    let _ = kill(zygote, Signal::SIGKILL);
                }
                if let Some(id) = task["task_id"].as_str() {
                    let _ = self.api().try_call("DELETE", &format!("/dev-tasks/{id}"), &[], b"");
                }
            }
            Who::Gateway => {
                let (file, next) = (self.tokens(), self.gateway.directory().join("next"));
                fs::copy(&file, &next).and_then(|_| fs::rename(&next, &file)).expect("our own directory");
                let _ = self.gateway.api().try_call("GET", "/v1/sandboxes/a/events?limit=10", &[], b"");
            }
        }
    }

    fn api(&self) -> Api {
        Api::at(self.sandbox.supervisor.address(), scene::CANARY)
    }

    /// The gateway's, of sandboxes.
    fn tokens(&self) -> PathBuf {
        self.gateway.directory().join("sandboxes")
    }

    fn pid(&self, who: Who) -> Pid {
        match who {
            Who::Supervisor => self.sandbox.supervisor.pid(),
            Who::Gateway => self.gateway.pid(),
        }
    }

    fn has_ended(&mut self, who: Who) -> bool {
        match who {
            Who::Supervisor => self.sandbox.supervisor.has_ended(),
            Who::Gateway => self.gateway.has_ended(),
        }
    }

    /// Whether it has ended, does not work any more, or has panicked.
    fn judge(&mut self, pair: Pair) {
        if self.has_ended(pair.who) {
            let aborted = match pair.who {
                Who::Supervisor => self.sandbox.supervisor.wait_exit() == End::Signal(libc::SIGABRT),
                Who::Gateway => self.gateway.wait() == 128 + libc::SIGABRT,
            };
            self.aborts += usize::from(aborted);
            self.exits += usize::from(!(aborted && pair.is_of_memory()));
            println!("  it ended{}: {}", if aborted { " by ABRT" } else { "" }, self.last_words(pair.who));
        } else if let Some(what) = self.broken().or_else(|| self.endless()) {
            self.stuck += 1;
            println!("  once all was granted again, {what}: {}", self.last_words(pair.who));
        }
        // Also of the other one, which was refused what the first could not do.
        for who in [Who::Supervisor, Who::Gateway] {
            let panics = self.panics(who);
            if panics > 0 {
                self.panics += panics;
                println!("  {panics} panics: {}", self.last_words(who));
            }
        }
    }

    /// What does not work.
    fn broken(&self) -> Option<String> {
        broken(std::slice::from_ref(&self.sandbox), &self.gateway, LONG)
    }

    /// A task that does not end, once nobody creates any more.
    fn endless(&mut self) -> Option<String> {
        self.sandbox.end_load();
        within(LONG, || self.sandbox.left().is_empty().then_some(())).map_or_else(
            || self.sandbox.left().first().map(|task| format!("this task does not end: {task}")),
            |()| None,
        )
    }

    /// Of its life. Its log may have ended by one of them.
    fn panics(&self, who: Who) -> usize {
        let log = self.log(who).matches(PANIC).count();
        let (address, name) = match who {
            Who::Supervisor => (self.sandbox.supervisor.address(), "supervisor_panics_total"),
            Who::Gateway => (self.gateway.address, "gateway_panics_total"),
        };
        let page = http::get(address, "/metrics").map_or(String::new(), |answer| answer.body);
        http::metric(&page, name).map_or(log, |told| log.max(told as usize))
    }

    fn log(&self, who: Who) -> String {
        match who {
            Who::Supervisor => self.sandbox.supervisor.stderr.text(),
            Who::Gateway => self.gateway.stderr.text(),
        }
    }

    /// The last errors of its log, and what is no log: a panic's or an allocator's own words.
    fn last_words(&self, who: Who) -> String {
        let text = self.log(who);
        let lines: Vec<&str> = text.lines().filter(|l| !l.starts_with('{') || l.contains("\"ERROR\"")).collect();
        lines[lines.len().saturating_sub(5)..].join("\n    ")
    }

    fn lines(mut self, pairs: usize) -> Vec<Line> {
        let of = format!("{} refused calls of {pairs} pairs of call and error", self.refused);
        self.gateway.kill();
        self.gateway.start_again();
        self.sandbox.kill_and_start_again();
        let mut account = Account::of(Cost::Refused);
        account.settle(std::slice::from_mut(&mut self.sandbox), &self.gateway);
        println!("{} aborts in {} lives that were refused memory", self.aborts, self.without_memory);
        let mut lines = [account.records(&of), account.tasks(&of)].concat();
        // Each pair begins with a kill, and an abort breaks a write off as well.
        lines.push(account.gaps(&of, DOUBTS + self.aborts));
        lines.push(account.delivered(&of, DELIVERED));
        let most = |what: &str, goal: usize, seen: usize, unit| {
            Line::new(format!("{what}, in {of}"), goal as f64, seen as f64, unit)
        };
        // One that is refused nothing shows nothing.
        let hit = format!("pairs of which a call was refused, of {pairs}");
        lines.extend([
            Line::at_least(hit, pairs as f64, self.hit as f64, "pairs"),
            most("exits that nobody asked for", 0, self.exits, "exits"),
            most("panics of a part", 0, self.panics, "panics"),
            most("after which not all works again", 0, self.stuck, "pairs"),
        ]);
        lines
    }
}
