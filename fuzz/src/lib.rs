//! Every parser of what others write, with any bytes.
//!
//! A [`Target`] is a function of bytes that panics where a promise is broken: not only that nothing crashes, but what is said of what
//! was read (a path stays inside, what was decoded is encoded to the same, numbers have no hole). `just fuzz` has libFuzzer make
//! inputs of inputs, by the code that they reach; `cargo test -p fuzz` tries what it found once more, without an engine.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

pub mod corpus;
mod targets;

/// Of the processor, for one input: one that takes more holds a thread up. Not by the wall's clock, by which an input is slow on a
/// machine that is busy.
const LIMIT: Duration = Duration::from_secs(1);

/// One parser, or a family of them.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Also that of its corpus.
    pub name: &'static str,
    /// Longest input that is tried, bytes.
    pub longest: usize,
    /// Panics where a promise is broken.
    pub run: fn(&[u8]),
    /// Inputs to begin with, made by our own code where they have to be well-formed.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

impl Target {
    /// Panics where a promise is broken, also the one that no input takes a second.
    pub fn try_input(&self, data: &[u8]) {
        let begun = processor_time();
        (self.run)(data);
        let took = processor_time().saturating_sub(begun);
        assert!(took < LIMIT, "it took {took:?} of the processor");
    }
}

fn processor_time() -> Duration {
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).expect("every Linux has it (clock_gettime(2))").into()
}

/// All of them.
pub const TARGETS: &[Target] = &[
    targets::answers::TARGET,
    targets::archives::TARGET,
    targets::bodies::TARGET,
    targets::control::TARGET,
    targets::events::TARGET,
    targets::files::TARGET,
    targets::frames::TARGET,
    targets::identity::TARGET,
    targets::journal::TARGET,
    targets::kernel::TARGET,
    targets::lines::TARGET,
    targets::log::TARGET,
    targets::messages::TARGET,
    targets::names::TARGET,
    targets::notifications::TARGET,
    targets::pods::TARGET,
    targets::programs::TARGET,
    targets::records::TARGET,
    targets::requests::TARGET,
    targets::signed::TARGET,
    targets::streams::TARGET,
    targets::tasks::TARGET,
    targets::templates::TARGET,
];

/// The target of that name.
pub fn find(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
