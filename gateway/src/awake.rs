//! A clock that stands still while this gateway does: stopped, suspended, starved or not running at all.
//!
//! Whoever seems silent while we could not listen is not late. So deadlines of others are measured in awake time: a
//! ticker adds what has passed, but never more than [`LIMIT`] at once. The store keeps the reading, so that the time
//! between two lives of the gateway does not count either.
//!
//! Of several gateways each has its own such clock for whom it listens to itself. How long somebody has been away is measured by the
//! one that all of them [share](Awake::shared): it stands still while all of them do.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

/// How often the clock is moved.
const TICK: Duration = Duration::from_millis(250);
/// The most that one tick may add: a later one was a stall.
const LIMIT: Duration = Duration::from_secs(1);

/// Cheap to clone; all show the same time.
#[derive(Clone, Debug, Default)]
pub struct Awake(Arc<Clock>);

#[derive(Debug, Default)]
struct Clock {
    own: AtomicI64,
    /// By how much the shared one is ahead of it.
    ahead: AtomicI64,
}

impl Awake {
    /// A clock that goes on from `reading`.
    pub fn starting_at(reading: i64) -> Awake {
        Awake(Arc::new(Clock { own: reading.into(), ahead: 0.into() }))
    }

    /// Milliseconds, with steps of [`TICK`].
    pub fn now(&self) -> i64 {
        self.0.own.load(Relaxed)
    }

    /// The same of the one of several gateways that was awake for longest.
    pub fn shared(&self) -> i64 {
        self.now() + self.0.ahead.load(Relaxed)
    }

    /// Others have read so much of it.
    pub fn learn(&self, shared: i64) {
        self.0.ahead.fetch_max(shared - self.now(), Relaxed);
    }

    /// `passed` since the last tick, of which a stall is not counted.
    fn advance(&self, passed: Duration) {
        self.0.own.fetch_add(passed.min(LIMIT).as_millis() as i64, Relaxed);
    }

    /// Move the clock until dropped.
    pub async fn run(self) {
        let mut last = Instant::now();
        loop {
            tokio::time::sleep(TICK).await;
            let now = Instant::now();
            self.advance(now - last);
            last = now;
        }
    }
}

/// What the wall clock says, Unix milliseconds.
pub fn wall_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_does_not_count_as_time() {
        let awake = Awake::starting_at(1_000);
        awake.advance(Duration::from_millis(250));
        assert_eq!(awake.now(), 1_250);
        awake.advance(Duration::from_secs(3600));
        assert_eq!(awake.now(), 2_250);
    }

    #[test]
    fn the_shared_clock_goes_on_with_whoever_was_awake_and_the_own_one_does_not_jump() {
        let awake = Awake::starting_at(1_000);
        awake.learn(5_000);
        awake.learn(900);
        awake.advance(Duration::from_millis(250));
        assert_eq!((awake.now(), awake.shared()), (1_250, 5_250));
    }
}
