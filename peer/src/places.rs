//! So many connections at once, and who goes when another one comes.
//!
//! Promises: never more than so many; whoever has asked for something keeps its place; where all are taken, the one that has been there for
//! longest without asking gives its place to whoever comes. So connections that are held open on purpose keep nobody out who asks at
//! once, as probes do.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// All places of a listener.
#[derive(Debug)]
pub struct Places {
    most: u32,
    free: Arc<Semaphore>,
    /// Who has not asked yet, as far as they are known to be there; oldest first.
    newcomers: Mutex<VecDeque<Weak<Seat>>>,
}

/// One connection's place: free again when its last clone is dropped.
#[derive(Clone, Debug)]
pub struct Place(Arc<Seat>);

#[derive(Debug)]
struct Seat {
    /// Taken out when the place goes to somebody else.
    permit: Mutex<Option<OwnedSemaphorePermit>>,
    asked: AtomicBool,
    given_away: Notify,
}

impl Places {
    /// So many, all of them free.
    pub fn new(most: u32) -> Places {
        Places { most, free: Arc::new(Semaphore::new(most as usize)), newcomers: Mutex::default() }
    }

    /// A place, and whether somebody had to go for it; `None` where all have asked for something.
    pub fn take(&self) -> Option<(Place, bool)> {
        let mut newcomers = self.newcomers.lock().unwrap_or_else(PoisonError::into_inner);
        let (permit, taken_from) = match self.free.clone().try_acquire_owned() {
            Ok(permit) => (permit, false),
            Err(_) => (next(&mut newcomers)?.give_away()?, true),
        };
        // Those at the front that are no newcomers any more; others behind them wait at most as long as a head may take.
        while newcomers.front().is_some_and(|seat| seat.upgrade().is_none_or(|seat| !seat.is_newcomer())) {
            newcomers.pop_front();
        }
        let seat = Arc::new(Seat {
            permit: Mutex::new(Some(permit)),
            asked: AtomicBool::new(false),
            given_away: Notify::new(),
        });
        newcomers.push_back(Arc::downgrade(&seat));
        Some((Place(seat), taken_from))
    }

    /// Until nobody has a place.
    pub async fn all_free(&self) {
        // It is never closed.
        let _ = self.free.acquire_many(self.most).await;
    }
}

/// The oldest newcomer.
fn next(newcomers: &mut VecDeque<Weak<Seat>>) -> Option<Arc<Seat>> {
    std::iter::from_fn(|| newcomers.pop_front()).filter_map(|seat| seat.upgrade()).find(|seat| seat.is_newcomer())
}

impl Seat {
    fn is_newcomer(&self) -> bool {
        !self.asked.load(Ordering::Relaxed)
    }

    fn give_away(&self) -> Option<OwnedSemaphorePermit> {
        let permit = self.permit.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.given_away.notify_one();
        permit
    }
}

impl Place {
    /// Something was asked for: nobody gets this place any more.
    pub fn keep(&self) {
        self.0.asked.store(true, Ordering::Relaxed);
    }

    /// Until it is somebody else's; then the connection is to be closed.
    pub async fn given_away(&self) {
        self.0.given_away.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_waited_longest_without_asking_goes_and_who_has_asked_stays() {
        let places = Places::new(3);
        let take = || places.take();
        let (asked, _) = take().expect("free");
        asked.keep();
        let ((old, _), (young, _)) = (take().expect("free"), take().expect("free"));
        let given_away = |place: &Place| place.0.permit.lock().expect("no panic").is_none();
        let (fourth, taken_from) = take().expect("the old one's");
        assert!(taken_from && given_away(&old) && !given_away(&young) && !given_away(&asked));
        fourth.keep();
        young.keep();
        assert!(take().is_none(), "all have asked");
        drop(young);
        assert!(take().is_some_and(|(_, taken_from)| !taken_from), "a place that is free is taken from nobody");
    }

    #[test]
    fn places_of_those_who_have_gone_are_forgotten() {
        let places = Places::new(8);
        (0..1000).for_each(|_| drop(places.take()));
        assert!(places.newcomers.lock().expect("no panic").len() <= 2);
        assert_eq!(places.free.available_permits(), 8);
    }
}
