//! The numbers that are promised, each printed as `goal=… measured=…`, ratios taken in one run.

use std::borrow::Cow;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

pub mod buffer;
pub mod endings;
pub mod kills;
pub mod link;
pub mod memory;
pub mod orphans;
pub mod row;
pub mod size;
pub mod start;
pub mod stop;
pub mod tasks;

/// What was promised and what was seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// The promise in a few words.
    pub what: String,
    /// At most this; with `at_least`, not less.
    pub goal: f64,
    /// More is better.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub at_least: bool,
    /// What was seen.
    pub measured: f64,
    /// Of both.
    pub unit: Cow<'static, str>,
}

impl Line {
    /// A line.
    pub fn new(what: impl Into<String>, goal: f64, measured: f64, unit: &'static str) -> Line {
        Line { what: what.into(), goal, at_least: false, measured, unit: unit.into() }
    }

    /// A line of which more is better.
    pub fn at_least(what: impl Into<String>, goal: f64, measured: f64, unit: &'static str) -> Line {
        Line { at_least: true, ..Line::new(what, goal, measured, unit) }
    }

    /// Whether it is kept.
    pub fn kept(&self) -> bool {
        if self.at_least { self.measured >= self.goal } else { self.measured <= self.goal }
    }

    /// Print it.
    pub fn print(&self) {
        let Line { what, goal, measured, unit, .. } = self;
        let verdict = if self.kept() { "kept" } else { "MISSED" };
        println!("goal={goal} measured={measured:.3} unit={unit} {verdict}: {what}");
    }
}

/// Print all; whether all are kept.
pub fn report(lines: &[Line]) -> bool {
    lines.iter().for_each(Line::print);
    lines.iter().all(Line::kept)
}

/// The clock that all processes share, in ns.
pub fn now_ns() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |t| Duration::from(t).as_nanos() as u64)
}

/// That part of them is not above it.
pub(crate) fn percentile(mut values: Vec<f64>, part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(((values.len() as f64 * part) as usize).min(values.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}

/// The middle one.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
