//! What is done to a fleet, one after the other, and the numbers of it.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use protocol::session::Class;

use super::Fleet;
use super::group::Group;
use super::looks::Looks;
use super::probes::{self, Probes, Times};
use super::site::{refused, refused_by};
use super::storm::Storm;
use super::words::Order;
use crate::bench::{Line, now_ns, percentile};
use crate::tally::Tally;
use crate::wait::{LONG, wait_until};

/// Of an answer, milliseconds.
const SOON: f64 = 20.0;
/// What the gateways may take after a hold, of what they took before it.
const GROWTH: f64 = 1.3;
/// Nobody is away for longer when a gateway is drained, seconds.
const MOVE: f64 = 2.0;

impl Fleet<'_> {
    /// What a session takes on which nothing happens, after each sandbox has beaten and told what it is.
    pub(super) fn idle(&mut self) -> Line {
        self.hold_for(self.plan.beat() + Duration::from_secs(2));
        let (how, goal) = if self.plan.tls { ("by TLS", 24.0) } else { ("plain", 8.0) };
        Line::new(format!("memory of the gateway for each idle session, {how}"), goal, self.memory(), "KiB")
    }

    /// KiB that the gateways take for each session now.
    fn memory(&self) -> f64 {
        (self.site.resident() - self.empty) / self.plan.links as f64
    }

    /// All of them for a while, at work: no session ends, and none is called dead.
    pub(super) fn hold(&mut self) -> Vec<Line> {
        let (links, hold, gateways) = (self.plan.links, self.plan.hold, self.plan.gateways);
        let share = self.plan.tasks / self.groups.len() as f64;
        let before = self.memory();
        self.order(&Order::Work(share));
        if self.plan.real > 0 {
            self.reals.work();
        }
        let (begun, beats, since) = (self.begun_sessions(), self.seen(|now| now.beats), Instant::now());
        let probes = Probes::start(&self.site.gateways, probes::record);
        let looks = Looks::start(self.site.gateways[0].api(), links);
        self.reals.look_closely(false);
        self.hold_for(hold);
        let growth = self.memory() / before;
        self.reals.look_closely(true);
        // A look at each of them.
        self.hold_for(Duration::from_secs(1));
        let beats = (self.seen(|now| now.beats) - beats) as f64 / since.elapsed().as_secs_f64();
        let times = probes.stop();
        let dead = looks.stop().max(self.called_dead());
        let connected = self.connected();
        let ended = self.begun_sessions() - begun + (links - connected) as u64;
        let real = self.plan.real;
        let held = format!("sessions held for {hold:?} by {gateways} of the gateway, {real} of real supervisors");
        let mut lines = vec![
            Line::at_least(held, links as f64, connected as f64, "sessions"),
            Line::new("closes of those that nobody asked for", 0.0, ended as f64, "closes"),
            Line::new("sandboxes that were called dead while their links lived", 0.0, dead as f64, "sandboxes"),
        ];
        let wanted = self.simulated() as f64 / self.plan.beat().as_secs_f64();
        lines.push(Line::at_least("beats in a second, counted", (0.95 * wanted).floor(), beats, "beats"));
        let grown = "memory of the gateway for each session after the hold, of that before it";
        lines.push(Line::new(grown, GROWTH, growth, "×"));
        lines.extend(self.answers(&times));
        lines
    }

    fn answers(&self, times: &Times) -> [Line; 2] {
        let beats = self.plan.links as f64 / self.plan.beat().as_secs_f64();
        [("the answer to a beat", &times.beats), ("the ack of a record", &times.others)].map(|(what, times)| {
            let (p50, p99) = (1000.0 * percentile(times.clone(), 0.5), 1000.0 * percentile(times.clone(), 0.99));
            let what = format!("p99 of {what} at {beats:.0} beats/s, of {} (p50 {p50:.2} ms)", times.len());
            Line::new(what, SOON, p99, "ms")
        })
    }

    /// How many of the fleet are called something else than connected.
    fn called_dead(&self) -> usize {
        self.plan.links.saturating_sub(self.site.connected())
    }

    /// A gateway joins the others, and gets its share of their sessions.
    pub(super) fn add(&mut self) -> Vec<Line> {
        println!("a gateway is added");
        let (added, refused) = (now_ns(), self.site.refused());
        self.site.start_one(self.plan);
        self.order(&Order::Before(self.site.addresses()));
        self.reals.now_before(&self.site.addresses());
        self.site.wait_together();
        let (links, rate) = (self.plan.links as f64, self.plan.rate as f64);
        let share = (0.8 * links / self.site.gateways.len() as f64).floor();
        let has = self.until_the_newest_has(share);
        let storm = Storm::since(added, self.returns());
        let moves = format!("sandboxes that were asked to move for it, of {links}");
        vec![
            Line::at_least(
                "sessions that a gateway got that joined, four fifths of a fair share",
                share,
                has,
                "sessions",
            ),
            Line::new(moves, links, self.site.moves(), "moves"),
            Line::new(
                "sessions that began in the busiest second of it",
                rate / 5.0,
                storm.busiest_second() as f64,
                "sessions",
            ),
            Line::new("for which the longest of them was away", MOVE, storm.longest_away(), "s"),
            Line::new("dials that were refused in it", 0.0, self.site.refused() - refused, "dials"),
        ]
    }

    /// Sessions of the gateway that has joined, once it has so many and nobody is on the way, or when it should have had them for long.
    fn until_the_newest_has(&mut self, share: f64) -> f64 {
        let asked_in_a_second = self.plan.rate as f64 / 10.0;
        let deadline =
            Instant::now() + Duration::from_secs_f64(2.0 * self.plan.links as f64 / asked_in_a_second) + LONG;
        let newest = self.site.gateways.len() - 1;
        loop {
            let has = self.site.gateways[newest].metric("gateway_sessions");
            if has >= share && self.connected() == self.plan.links || Instant::now() > deadline {
                return has;
            }
            self.pause();
        }
    }

    /// kill -9 of a gateway with all of its sessions; it comes back at once.
    pub(super) fn kill(&mut self) -> Vec<Line> {
        println!("a gateway is killed");
        self.storm("a kill", self.plan.gateways, |fleet| {
            fleet.site.gateways[0].kill();
            fleet.site.gateways[0].start_again();
        })
    }

    /// kill -9 of a gateway with all of its sessions; it stays away, and the others take its sandboxes over.
    pub(super) fn lose(&mut self) -> Vec<Line> {
        println!("a gateway is lost");
        self.storm("a loss", self.plan.gateways - 1, |fleet| {
            fleet.site.gateways.remove(0).kill();
            fleet.order(&Order::Before(fleet.site.addresses()));
            fleet.reals.now_before(&fleet.site.addresses());
        })
    }

    /// What becomes of the first gateway's sessions when this `happens` to it, of which so many gateways are left.
    fn storm(&mut self, what: &str, left: usize, happens: impl FnOnce(&mut Self)) -> Vec<Line> {
        let all = self.plan.rate as f64 * left as f64;
        let had = self.site.first_has(self.plan.links);
        let before = self.site.refused() - refused_by(&self.site.gateways[0]);
        let (failed, simulated) = (self.seen(|now| now.failed), self.seen(|now| now.begun));
        let memory = self.site.resident() / 1024.0;
        let (begun, killed) = (self.begun_sessions(), now_ns());
        happens(self);
        self.until_sessions_have_begun(begun + had as u64, || ());
        println!("gateways {memory:.0} MiB before {what}, {:.0} MiB after it", self.site.resident() / 1024.0);
        let (refused, storm) = (self.site.refused() - before, Storm::since(killed, self.returns()));
        let busiest = storm.busiest_second() as f64;
        // The window that they spread over was told by gateways that each had their share of the fleet.
        let last = 1.35 * self.plan.links as f64 / (self.plan.rate as f64 * self.plan.gateways as f64);
        vec![
            Line::at_least(format!("sandboxes that came back after {what}"), had, storm.count() as f64, "sandboxes"),
            others(had, &storm),
            dials(self.seen(|now| now.failed) - failed, self.seen(|now| now.begun) - simulated),
            Line::new(format!("sessions that began in the busiest second of {what}"), all, busiest, "sessions"),
            Line::new(format!("dials that were refused after {what}"), 0.0, refused, "dials"),
            Line::new(format!("until all were back after {what}, 1.35 × fleet / rate"), last, storm.last_back(), "s"),
        ]
    }

    /// A gateway is stopped, as in an upgrade: its successor is there, and new connections go there.
    pub(super) fn drain(&mut self) -> Vec<Line> {
        println!("a gateway is drained");
        self.site.add(self.plan);
        let had = self.site.first_has(self.plan.links);
        let (begun, drained) = (self.begun_sessions(), now_ns());
        let mut old = self.site.gateways.remove(0);
        let by_others = self.site.refused();
        // Nobody can ask it once it has ended, so it is asked until then; what it says only grows.
        let by_old = refused_by(&old);
        let mut last = by_old;
        self.order(&Order::Before(self.site.addresses()));
        self.reals.now_before(&self.site.addresses());
        old.signal(Signal::SIGTERM);
        self.until_sessions_have_begun(begun + had as u64, || last = last.max(refused(&old).unwrap_or(0.0)));
        wait_until("the old gateway ends", || {
            last = last.max(refused(&old).unwrap_or(0.0));
            old.has_ended()
        });
        let code = old.wait();
        let refused = self.site.refused() - by_others + last - by_old;
        let storm = Storm::since(drained, self.returns());
        vec![
            Line::at_least("sandboxes that moved in a drain", had, storm.count() as f64, "sandboxes"),
            others(had, &storm),
            Line::new("for which the longest of them was away", MOVE, storm.longest_away(), "s"),
            Line::new("dials that were refused in it", 0.0, refused, "dials"),
            Line::new("exit code of the gateway that was drained", 0.0, f64::from(code), "code"),
        ]
    }

    /// Produced = delivered + gaps, of each sandbox.
    pub(super) fn account(mut self) -> Vec<Line> {
        println!("what was produced is held to what the gateway has");
        self.order(&Order::Finish);
        let (mut tally, mut waiting) = (Tally::default(), 0);
        for heard in std::mem::take(&mut self.groups).into_iter().map(Group::finish) {
            for (id, produced) in &heard.produced {
                tally.count(&self.site.gateways[0].events(id), produced);
            }
            waiting += heard.waiting.len();
        }
        let mut of_reals = Tally::default();
        for (id, produced) in self.reals.finish() {
            match produced {
                Some(produced) => of_reals.count(&self.site.gateways[0].events(&id), &produced),
                None => waiting += 1,
            }
        }
        tally.add(&of_reals);
        let results = of_reals.stored.get(&Class::Results).copied().unwrap_or(0);
        let Tally { produced, delivered, gaps, lost, twice, invented, .. } = tally;
        let of = format!("of {produced} records, {delivered} delivered and {gaps} in gaps");
        vec![
            Line::new("sandboxes of which the gateway did not take everything", 0.0, waiting as f64, "sandboxes"),
            Line::new(format!("neither stored nor in a gap, {of}"), 0.0, lost as f64, "records"),
            Line::new(format!("stored twice, or never produced, {of}"), 0.0, (twice + invented) as f64, "records"),
            Line::new("numbers in gaps: there was room for everything", 0.0, gaps as f64, "numbers"),
            Line::at_least("results of tasks of real supervisors", self.plan.real as f64, results as f64, "results"),
        ]
    }
}

/// Of simulated sandboxes: so many dials failed until so many sessions had begun.
pub(super) fn dials(failed: u64, begun: u64) -> Line {
    let each = 1.0 + failed as f64 / begun as f64;
    Line::new("dials for each session that began", 1.3, each, "attempts")
}

/// Of a gateway that had so many sessions, all of them begin again; each more is one that another gateway lost.
fn others(had: f64, storm: &Storm) -> Line {
    Line::new(
        "sessions of other gateways that ended meanwhile, or of those that ended twice",
        0.0,
        storm.count() as f64 - had,
        "sessions",
    )
}
