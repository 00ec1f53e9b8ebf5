//! How many sessions may begin in a second, so that a fleet that comes back at once is let in at the pace that the gateway
//! can bear.
//!
//! Promises: whoever is refused gets a time that is reserved for it, and is admitted when it comes then; reserved times
//! follow each other at the admission rate. Everybody is told the window P in which a fleet of this size should spread
//! its reconnecting, 1.25 × fleet / rate of all gateways together: with it, a whole fleet never reaches the rate and nobody is refused.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// So much of the rate may come at once after a calm.
const BURST: Duration = Duration::from_millis(100);
/// A reserved time that nobody used is given up after so long.
const KEPT: Duration = Duration::from_secs(60);
/// Clocks and timers of both sides are so coarse.
const EARLY: Duration = Duration::from_millis(10);
/// Bounds of P.
const WINDOW: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(120));

/// Shared by all connections.
#[derive(Debug)]
pub struct Admission {
    /// Sessions in one second.
    rate: u32,
    /// Sandboxes that may dial in.
    fleet: AtomicU64,
    /// That let them in, each at this rate.
    gateways: AtomicUsize,
    book: Mutex<Book>,
}

#[derive(Debug)]
struct Book {
    /// The next time that is nobody's.
    free: Instant,
    reserved: HashMap<String, Instant>,
    /// Look for unused times when there are so many.
    tidy_at: usize,
}

impl Admission {
    /// So many sessions a second, from `now` on.
    pub fn new(rate: u32, now: Instant) -> Admission {
        let free = now.checked_sub(BURST).unwrap_or(now);
        let book = Book { free, reserved: HashMap::new(), tidy_at: 1024 };
        Admission { rate, fleet: AtomicU64::new(0), gateways: AtomicUsize::new(1), book: Mutex::new(book) }
    }

    /// Whether this sandbox may begin a session `now`; else after how long.
    pub fn admit(&self, sandbox: &str, now: Instant) -> Result<(), Duration> {
        let step = Duration::from_secs(1) / self.rate;
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(&slot) = book.reserved.get(sandbox) {
            if now + EARLY < slot {
                return Err(slot - now);
            }
            book.reserved.remove(sandbox);
            return Ok(());
        }
        let slot = book.free.max(now.checked_sub(BURST).unwrap_or(now));
        book.free = slot + step;
        if slot <= now {
            return Ok(());
        }
        book.tidy(now);
        book.reserved.insert(sandbox.to_string(), slot);
        Err(slot - now)
    }

    /// How many sandboxes may dial in.
    pub fn set_fleet(&self, fleet: u64) {
        self.fleet.store(fleet, Ordering::Relaxed);
    }

    /// How many gateways there are, this one among them.
    pub fn set_gateways(&self, gateways: usize) {
        self.gateways.store(gateways.max(1), Ordering::Relaxed);
    }

    /// P.
    pub fn window(&self) -> Duration {
        let fleet = self.fleet.load(Ordering::Relaxed) as f64;
        let rate = f64::from(self.rate) * self.gateways.load(Ordering::Relaxed) as f64;
        let (shortest, longest) = WINDOW;
        Duration::from_secs_f64(1.25 * fleet / rate).clamp(shortest, longest)
    }

    /// Sessions in one second.
    pub fn rate(&self) -> u32 {
        self.rate
    }
}

impl Book {
    fn tidy(&mut self, now: Instant) {
        if self.reserved.len() >= self.tidy_at {
            self.reserved.retain(|_, slot| now < *slot + KEPT);
            self.tidy_at = 1024.max(self.reserved.len() * 2);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_sandbox_is_admitted_at_its_reserved_time_and_not_before() {
        let now = Instant::now();
        let admission = Admission::new(1, now);
        assert_eq!(admission.admit("a", now), Ok(()));
        let wait = admission.admit("b", now).expect_err("the second of one second");
        assert!(admission.admit("b", now + wait / 2).is_err());
        assert!(admission.admit("c", now + wait).expect_err("that time is b's") > Duration::ZERO);
        assert_eq!(admission.admit("b", now + wait), Ok(()));
    }

    #[test]
    fn in_no_second_more_than_the_rate_is_admitted_after_the_burst() {
        let now = Instant::now();
        let admission = Admission::new(100, now);
        let mut admitted = Vec::new();
        let mut waiting: Vec<(Instant, String)> = (0..1_000).map(|i| (now, format!("s-{i}"))).collect();
        while let Some((at, sandbox)) = waiting.pop() {
            match admission.admit(&sandbox, at) {
                Ok(()) => admitted.push(at),
                Err(wait) => waiting.insert(0, (at + wait, sandbox)),
            }
        }
        for second in 0..9 {
            let begin = now + Duration::from_secs(second);
            let count = admitted.iter().filter(|at| (begin..begin + Duration::from_secs(1)).contains(at)).count();
            assert!(count <= 111, "{count} in second {second}");
        }
        assert_eq!(admitted.len(), 1_000);
    }

    #[test]
    fn the_window_grows_with_the_fleet_and_has_bounds() {
        let admission = Admission::new(1_000, Instant::now());
        assert_eq!(admission.window(), Duration::from_millis(250));
        admission.set_fleet(20_000);
        assert_eq!(admission.window(), Duration::from_secs(25));
        admission.set_gateways(5);
        assert_eq!(admission.window(), Duration::from_secs(5));
        admission.set_fleet(1_000_000);
        assert_eq!(admission.window(), Duration::from_secs(120));
    }
}
