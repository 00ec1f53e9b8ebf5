//! What happens in a run: drawn from its seed, one step after the other. Any of the steps may be left out, which is how a run that
//! fails is made small.

use std::fmt;
use std::time::Duration;

use super::chance::Chance;
use super::disk::Faults;
use super::net::{Way, Whim};

/// A run.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(super) seed: u64,
    pub(super) sandboxes: usize,
    /// Milliseconds from the begin, and what happens then; in their order.
    pub(super) steps: Vec<(u64, Step)>,
    /// When everything heals.
    pub(super) ends: u64,
}

/// Something that happens; `who` is a sandbox, `ms` how long it lasts.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    /// Each byte takes longer.
    Delay { least: u64, most: u64 },
    /// Connections break.
    Cut { who: usize },
    /// What is sent that way never arrives.
    Swallow { who: usize, way: Way },
    /// It arrives later.
    Stall { who: usize, way: Way, ms: u64 },
    /// Dials are refused.
    Refuse { ms: u64 },
    /// Nothing gets through, dials neither.
    Partition { who: usize, ms: u64 },
    /// A middlebox meddles with the next frame.
    Meddle { who: usize, way: Way, whim: Whim },
    /// The supervisor is killed; where `silent`, nobody is told.
    Kill { who: usize, silent: bool, ms: u64 },
    /// Its machine goes off.
    LosePower { who: usize, ms: u64 },
    /// The gateway is killed.
    KillGateway { silent: bool, ms: u64 },
    /// The gateway stops as it should, and is started again.
    Drain { ms: u64 },
    /// The disk is full.
    Fill { who: usize, ms: u64 },
    /// The disk refuses, so often and for so long at most.
    Break { who: usize, faults: Faults, ms: u64 },
    /// Somebody sets the wall clock.
    SetWall { who: usize, by_ms: i64 },
    /// The machine is suspended for so long, by its boot clock.
    Suspend { who: usize, ms: u64 },
    /// The gateway is given commands.
    Command { who: usize, count: u64 },
    /// The gateway's database writes nothing.
    Slow { ms: u64 },
    /// It fails; where it `does` what it is asked for, it only does not say so.
    Fail { ms: u64, does: bool },
    /// More lines are written than the budget has room for.
    Flood { who: usize, lines: u64 },
}

impl Plan {
    /// The plan of this seed.
    pub fn of(seed: u64) -> Plan {
        let mut chance = Chance::new(seed, 1);
        let sandboxes = if chance.once_in(4) { 2 } else { 1 };
        let bad_disk = chance.once_in(3);
        let count = chance.between(4, 20);
        let ends = chance.between(10_000, 60_000);
        let mut steps: Vec<_> =
            (0..count).map(|_| (chance.below(ends), Step::draw(&mut chance, sandboxes, bad_disk))).collect();
        steps.sort_by_key(|(at, _)| *at);
        Plan { seed, sandboxes, steps, ends }
    }

    /// Only these of its steps.
    pub fn only(&self, keep: &[usize]) -> Plan {
        let steps = keep.iter().filter_map(|step| self.steps.get(*step).copied()).collect();
        Plan { steps, ..self.clone() }
    }

    /// How often a box on the way meddles with messages of each sandbox.
    pub(super) fn meddled(&self) -> Vec<u64> {
        let mut times = vec![0; self.sandboxes];
        for (_, step) in &self.steps {
            if let Step::Meddle { who, way, .. } = step {
                times[*who] += if *way == Way::Both { 2 } else { 1 };
            }
        }
        times
    }

    /// How many steps it has.
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// Whether nothing happens.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.steps.iter().try_for_each(|(at, step)| writeln!(f, "{at:8} ms {step:?}"))
    }
}

impl Step {
    fn draw(chance: &mut Chance, sandboxes: usize, bad_disk: bool) -> Step {
        let who = chance.below(sandboxes as u64) as usize;
        let way = chance.one_of(&[Way::Up, Way::Down, Way::Both]);
        let ms = chance.one_of(&[5, 50, 500, 3_000, 12_000]);
        let ms = chance.between(1, ms);
        match chance.below(if bad_disk { 24 } else { 21 }) {
            0 => Step::Delay { least: chance.between(0, 20), most: chance.between(20, 400) },
            1 | 2 => Step::Cut { who },
            3 => Step::Swallow { who, way },
            4 => Step::Stall { who, way, ms },
            5 => Step::Refuse { ms },
            6 => Step::Partition { who, ms },
            7 | 8 => Step::Meddle { who, way, whim: chance.one_of(&[Whim::Lose, Whim::Double, Whim::Overtake]) },
            9 => Step::Kill { who, silent: chance.once_in(2), ms },
            10 => Step::LosePower { who, ms },
            11 => Step::KillGateway { silent: chance.once_in(2), ms },
            12 => Step::Drain { ms },
            13 => Step::SetWall { who, by_ms: chance.between(0, 20 * YEAR_MS) as i64 - 10 * YEAR_MS as i64 },
            14 => Step::Suspend { who, ms: chance.between(1, 6 * 3_600_000) },
            15 => Step::Command { who, count: chance.between(1, 20) },
            16 => Step::Flood { who, lines: chance.between(1, 600) },
            17 | 18 => Step::Slow { ms },
            19 | 20 => Step::Fail { ms, does: chance.once_in(2) },
            21 | 22 => Step::Fill { who, ms },
            _ => {
                let mut few = || chance.below(3) as u32;
                let faults = Faults { writes: few(), syncs: few(), names: few(), removals: few(), reads: few() };
                // Longer than others: only what the disk is asked it can refuse.
                Step::Break { who, faults, ms: chance.between(1, 12_000) }
            }
        }
    }

    /// When what it began is over.
    pub(super) fn lasts(&self) -> Option<Duration> {
        match *self {
            Step::Kill { ms, .. }
            | Step::LosePower { ms, .. }
            | Step::KillGateway { ms, .. }
            | Step::Drain { ms }
            | Step::Fill { ms, .. }
            | Step::Break { ms, .. } => Some(Duration::from_millis(ms)),
            _ => None,
        }
    }
}

const YEAR_MS: u64 = 365 * 24 * 3_600_000;
