//! The heartbeat: a number and a digest, at the gateway's pace.
//!
//! At most one beat an interval, also after the machine was suspended or this process stopped: what was missed is not made
//! up for.

use std::time::Duration;

use protocol::session::{FromSupervisor, Pace};

/// Where the gateway names no other: T.
const USUAL: Duration = Duration::from_secs(30);
/// No gateway makes it faster or slower than this.
const BOUNDS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(600));

/// When the next one is due, and its number.
pub(super) struct Beats {
    every: Duration,
    next: Duration,
    n: u64,
}

impl Beats {
    /// The first after the phase that the gateway gives, else after a random part of the interval.
    pub(super) fn new(now: Duration, pace: &Pace, random: f64) -> Beats {
        let mut beats = Beats { every: USUAL, next: now, n: 0 };
        beats.pace(now, pace);
        if pace.phase_ms.is_none() {
            beats.next = now + beats.every.mul_f64(random);
        }
        beats
    }

    /// Other times from now on.
    pub(super) fn pace(&mut self, now: Duration, pace: &Pace) {
        if let Some(every) = pace.beat_ms {
            self.every = Duration::from_millis(every).clamp(BOUNDS.0, BOUNDS.1);
            self.next = self.next.min(now + self.every);
        }
        if let Some(phase) = pace.phase_ms {
            self.next = now + Duration::from_millis(phase).min(self.every);
        }
    }

    /// When the next one is due, by the boot clock.
    pub(super) fn next(&self) -> Duration {
        self.next
    }

    /// T.
    pub(super) fn every(&self) -> Duration {
        self.every
    }

    /// The beat, with the digest of the current state, and its number.
    pub(super) fn beat(&mut self, now: Duration, digest: String) -> (u64, FromSupervisor) {
        self.n += 1;
        let missed = now.saturating_sub(self.next).as_nanos() / self.every.as_nanos();
        self.next += self.every * u32::try_from(missed).unwrap_or(u32::MAX).saturating_add(1);
        (self.n, FromSupervisor::Beat { n: self.n, d: digest })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn beats_keep_their_phase_and_none_is_made_up_for() {
        let pace = Pace { beat_ms: Some(10_000), phase_ms: Some(3_000), window_ms: None };
        let mut beats = Beats::new(100 * SECOND, &pace, 0.5);
        assert_eq!(beats.next(), 103 * SECOND);
        beats.beat(103 * SECOND, String::new());
        assert_eq!(beats.next(), 113 * SECOND);
        // Suspended for an hour.
        beats.beat(3719 * SECOND, String::new());
        assert_eq!(beats.next(), 3723 * SECOND);
        assert_eq!(beats.beat(3723 * SECOND, String::new()).0, 3);
    }

    #[test]
    fn a_new_pace_counts_from_now_on_and_nonsense_is_bounded() {
        let mut beats = Beats::new(Duration::ZERO, &Pace::default(), 0.5);
        assert_eq!((beats.next(), beats.every()), (15 * SECOND, USUAL));
        beats.pace(SECOND, &Pace { beat_ms: Some(0), ..Pace::default() });
        assert_eq!((beats.next(), beats.every()), (SECOND + BOUNDS.0, BOUNDS.0));
        beats.pace(SECOND, &Pace { phase_ms: Some(u64::MAX), ..Pace::default() });
        assert_eq!(beats.next(), SECOND + BOUNDS.0);
    }
}
