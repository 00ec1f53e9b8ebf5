//! An outage in which every sandbox goes on working, and what it takes to catch up.

use std::time::Instant;

use super::acts::dials;
use super::probes::{self, BACKLOG, Probes};
use super::storm::Storm;
use super::words::Order;
use super::{Fleet, PROGRESS};
use crate::bench::{Line, now_ns, percentile};
use crate::wait::LONG;

/// Until everything is delivered, seconds, for 10,000 sandboxes with 64 KiB each.
const CAUGHT_UP: f64 = 60.0;
/// That many KiB in all.
const GOAL_KIB: f64 = 10_000.0 * 64.0;
/// Of an answer to a beat meanwhile, milliseconds.
const LIVE: f64 = 2_000.0;

impl Fleet<'_> {
    /// kill -9 of the gateway; each sandbox keeps so many KiB of records; then the gateway comes back.
    pub(super) fn backlog(&mut self, kib: usize) -> Vec<Line> {
        println!("the gateway is away, and each sandbox keeps {kib} KiB");
        let sandboxes = self.simulated();
        self.site.gateways[0].kill();
        self.order(&Order::Fill(kib));
        self.until("kept", |fleet| fleet.seen(|now| now.filled) == sandboxes);
        self.site.gateways[0].start_again();
        let (back, back_ns) = (Instant::now(), now_ns());
        let (failed, begun) = (self.seen(|now| now.failed), self.seen(|now| now.begun));
        println!("the gateway is back");
        let probes = Probes::start(&self.site.gateways, probes::beat_behind_a_backlog);
        self.until("delivered", |fleet| fleet.seen(|now| now.caught_up) == sandboxes);
        let taken = back.elapsed().as_secs_f64();
        let times = probes.stop();
        let storm = Storm::since(back_ns, self.returns());
        let all = (sandboxes * kib) as f64;
        let rate = all / 1024.0 / taken;
        println!("{all:.0} KiB were delivered in {taken:.1} s, {rate:.1} MiB/s");
        vec![
            Line::new(
                format!(
                    "until {sandboxes} backlogs of {kib} KiB were delivered, of which the last begins after 1.25 × fleet / rate"
                ),
                CAUGHT_UP * (all / GOAL_KIB).max(1.0),
                taken,
                "s",
            ),
            Line::new(
                "sessions that began in the busiest second of it",
                self.plan.rate as f64,
                storm.busiest_second() as f64,
                "sessions",
            ),
            dials(self.seen(|now| now.failed) - failed, self.seen(|now| now.begun) - begun),
            Line::new("dials that were refused in it", 0.0, self.site.refused(), "dials"),
            answers("meanwhile", times.beats),
            answers(&format!("behind its own backlog of {BACKLOG} KiB"), times.others),
        ]
    }

    /// Progress says how far it is.
    fn until(&mut self, what: &str, done: impl Fn(&Fleet<'_>) -> bool) {
        let (begun, mut told) = (Instant::now(), Instant::now());
        while !done(self) {
            assert!(begun.elapsed() < 10 * LONG, "not all was {what} after {:?}", 10 * LONG);
            self.pause();
            if told.elapsed() >= PROGRESS {
                told = Instant::now();
                let (filled, caught_up) = (self.seen(|now| now.filled), self.seen(|now| now.caught_up));
                println!("      until all is {what}: {filled} kept, {caught_up} delivered");
            }
        }
    }
}

/// To such beats.
fn answers(which: &str, times: Vec<f64>) -> Line {
    let what = format!("p99 of the answer to a beat {which}, of {}", times.len());
    Line::new(what, LIVE, 1000.0 * percentile(times, 0.99), "ms")
}
