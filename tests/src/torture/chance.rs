//! Chance that can be had again, as far as a machine allows: the same seed draws the same.

use std::time::Duration;

/// Where a seed of one's own is taken from.
const VARIABLE: &str = "TORTURE_SEED";

/// Draws numbers.
pub struct Chance(u64);

impl Chance {
    /// By `TORTURE_SEED`, or by this one; which it is, is printed.
    pub fn seeded(usual: u64) -> Chance {
        let given = std::env::var(VARIABLE).ok().and_then(|text| text.parse().ok());
        let seed = given.unwrap_or(usual);
        println!("{VARIABLE}={seed}");
        // Nothing but zero ever follows a zero.
        Chance(seed.max(1))
    }

    /// Another one, which draws beside this one.
    pub fn another(&mut self) -> Chance {
        Chance(self.number().max(1))
    }

    /// Any number: xorshift64.
    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Below `count`.
    pub fn below(&mut self, count: usize) -> usize {
        (self.number() % count.max(1) as u64) as usize
    }

    /// Below so many milliseconds.
    pub fn millis(&mut self, most: u64) -> Duration {
        Duration::from_millis(self.number() % most.max(1))
    }

    /// For as long.
    pub fn pause(&mut self, most_ms: u64) {
        std::thread::sleep(self.millis(most_ms));
    }
}
