//! Sessions that are beginning, and whether they are more than can begin in good time.
//!
//! Promise: where a session begins later than the one before it by the same time again and again, whoever says hello waits about
//! [`RECENT`] seconds for its welcome at most, however slow that is: a supervisor that has waited ten seconds for it dials again, and what was done
//! for it is lost, so whoever lets in more than can begin only begins sessions that nobody waits for.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

/// As many may be beginning as have begun in so many seconds,
const RECENT: u64 = 3;
/// and some to see how fast they begin, however few that were.
const SOME: usize = 4;

/// Shared by all connections.
#[derive(Debug)]
pub(super) struct Beginnings {
    since: Instant,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    beginning: usize,
    /// Seconds in which some have begun, and how many.
    begun: [(u64, usize); RECENT as usize],
}

/// A session that is beginning, for as long as this is kept.
#[derive(Debug)]
#[must_use]
pub struct Beginning<'a>(&'a Beginnings);

impl Beginnings {
    pub(super) fn new(now: Instant) -> Beginnings {
        Beginnings { since: now, counts: Mutex::default() }
    }

    pub(super) fn begin(&self) -> Beginning<'_> {
        self.counts().beginning += 1;
        Beginning(self)
    }

    /// How many are beginning.
    pub(super) fn len(&self) -> usize {
        self.counts().beginning
    }

    /// Whether they are as many as can begin in good time, or `most`.
    pub(super) fn are_enough(&self, most: usize, now: Instant) -> bool {
        let second = self.second(now);
        let counts = self.counts();
        let recent = counts.begun.iter().filter(|(then, _)| then + RECENT > second).map(|(_, count)| count);
        counts.beginning >= (SOME + recent.sum::<usize>()).min(most.max(SOME))
    }

    fn second(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.since).as_secs()
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Beginning<'_> {
    /// It has begun `now`.
    pub fn begun(self, now: Instant) {
        let second = self.0.second(now);
        let mut counts = self.0.counts();
        let place = &mut counts.begun[(second % RECENT) as usize];
        *place = (second, if place.0 == second { place.1 + 1 } else { 1 });
    }
}

impl Drop for Beginning<'_> {
    fn drop(&mut self) {
        self.0.counts().beginning -= 1;
    }
}
