//! Jittered delays: one idea for restarts and for the link.
//!
//! Half of each doubling window is random, which spreads a fleet that failed at one instant, from the first retry on;
//! the other half is waited for in any case, so that no retry comes at once.

use std::time::Duration;

/// A window that doubles from `min` to `max`.
#[derive(Clone, Debug)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    window: Duration,
}

impl Backoff {
    /// `max` below `min` counts as `min`.
    pub fn new(min: Duration, max: Duration) -> Backoff {
        Backoff { min, max: max.max(min), window: min }
    }

    /// The next delay: from half the window to all of it, by `random`, a number from 0 to 1.
    pub fn next(&mut self, random: f64) -> Duration {
        let window = self.window;
        self.window = window.saturating_mul(2).min(self.max);
        window / 2 + (window / 2).mul_f64(random.clamp(0.0, 1.0))
    }

    /// After calm: start over.
    pub fn reset(&mut self) {
        self.window = self.min;
    }
}

/// A number from 0 to 1 that differs between processes started at one instant.
pub fn random() -> f64 {
    (peer::random::bits() >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_delay_lies_in_the_doubling_window(random in 0.0..=1.0f64, steps in 1usize..40) {
            let (min, max) = (Duration::from_secs(1), Duration::from_secs(60));
            let mut backoff = Backoff::new(min, max);
            for step in 0..steps {
                let window = min.saturating_mul(1 << step.min(16)).min(max);
                let delay = backoff.next(random);
                prop_assert!(delay >= window / 2 && delay <= window, "step {step}: {delay:?}");
            }
            backoff.reset();
            prop_assert!(backoff.next(random) <= min);
        }
    }

    #[test]
    fn random_numbers_differ() {
        assert_ne!(random(), random());
    }
}
