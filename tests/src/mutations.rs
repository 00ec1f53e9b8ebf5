//! The confinement with one rule less: each must turn a probe red, or the rule is not proven by any.
//!
//! A mutation is made between the shipped shim and the kernel ([`crate::stage::weaken`]). Which probes can see that a
//! rule of the filter is gone is not written down: each is watched once where nothing confines it, and those whose calls
//! the two filters answer differently are tried. Where there is nothing to get out to, the call itself is ([`MARKED`]).

use std::collections::HashMap;
use std::sync::Mutex;

use crate::probes::{MARKED, Outcome, Probe};
use crate::stage::Cut;

mod ground;
mod nothing_behind;
mod rules;
mod steps;
mod untried;

pub use ground::Ground;
pub use rules::rules;
pub use steps::steps;

/// How many there are to try: the rules that the lists have, without those that no probe tries yet, and the steps beside the filter, without
/// the capabilities that this machine does not have.
pub fn number() -> usize {
    rules::in_the_lists() + rules::GATES.len() - untried::number() + steps().len()
}

/// How many of older kernels' rules no probe tries yet.
pub fn untried() -> usize {
    untried::number()
}

/// How many of the kernel's capabilities this machine does not have, so that none of them can be left to a program.
pub fn not_held() -> usize {
    steps::capabilities().1.len()
}

/// One thing left out, and where that can be seen.
#[derive(Clone, Debug)]
pub struct Mutation {
    /// What is gone, in words.
    pub what: String,
    /// The same, for the stage.
    pub cuts: Vec<Cut>,
    /// Who could see it.
    pub sees: Vec<&'static Probe>,
    /// Beside what.
    pub grounds: Option<Vec<Ground>>,
}

impl Mutation {
    /// Whether nobody can get out by it on this kernel.
    pub fn has_nothing_behind(&self) -> bool {
        self.sees.iter().any(|probe| probe.name == MARKED.name)
    }
}

/// What became of a mutation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// This probe got out, which it does not where nothing more is left out.
    Caught(&'static str),
    /// Nobody saw it.
    Survived(String),
}

/// How a probe fares on a ground as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Alone {
    Denied,
    NotStarted,
    Out,
}

/// What this run knows already.
#[derive(Default)]
pub struct Run {
    grounds: Mutex<HashMap<(&'static str, Ground), Alone>>,
}

impl Run {
    /// Try it.
    pub fn fate(&self, mutation: &Mutation) -> Fate {
        let mut said = Vec::new();
        for probe in &mutation.sees {
            for &ground in mutation.grounds.as_deref().unwrap_or(Ground::of(probe)) {
                let outcome = ground.attempt(probe, &mutation.cuts);
                match (&outcome, self.alone(probe, ground)) {
                    (Outcome::Escaped(_), Alone::Denied | Alone::NotStarted) => return Fate::Caught(probe.name),
                    (_, alone) => said.push(format!("{} {outcome}; without the mutation {alone:?}", probe.name)),
                }
            }
        }
        Fate::Survived(if said.is_empty() { "no probe tries it".into() } else { said.join("; ") })
    }

    fn alone(&self, probe: &'static Probe, ground: Ground) -> Alone {
        let known = self.grounds.lock().expect("no panic holds it").get(&(probe.name, ground)).copied();
        known.unwrap_or_else(|| {
            let alone = match ground.attempt(probe, &[]) {
                Outcome::Denied(_) => Alone::Denied,
                Outcome::Untried(why) if why.contains("not started") => Alone::NotStarted,
                _ => Alone::Out,
            };
            self.grounds.lock().expect("no panic holds it").insert((probe.name, ground), alone);
            alone
        })
    }
}
