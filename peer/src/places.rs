//! So many connections at once, and who goes when another one comes.
//!
//! Promises: no more than so many, but for the instant in which one goes for another; whoever has asked for something keeps its place; where all
//! are taken, the one that has been there for longest without asking gives its place to whoever comes. So connections on which nothing is
//! said keep nobody out who asks at once, as probes do. That is so too where thousands come in an instant: while half of the places are with
//! such, nobody goes in its first [`GRACE`], and whoever comes waits for that, in the kernel's queue. Where fewer are, whoever waited would
//! keep everybody behind it waiting, so the oldest goes at once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// To ask for something. The first segment of a client comes right behind the end of its handshake, from wherever it is; behind TLS it
/// takes some round trips more, for which nobody waits here.
pub const GRACE: Duration = Duration::from_millis(10);

/// All places of a listener.
#[derive(Clone, Debug)]
pub struct Places(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    most: usize,
    state: Mutex<State>,
    freed: Notify,
}

#[derive(Debug)]
struct State {
    free: usize,
    /// Who has not asked yet, in the order of their coming.
    silent: BTreeMap<u64, Silent>,
    /// Of the next one that comes.
    turn: u64,
}

#[derive(Debug)]
struct Silent {
    since: Instant,
    given_away: Arc<Notify>,
}

/// One connection's place: free again when its last clone is dropped.
#[derive(Clone, Debug)]
pub struct Place(Arc<Seat>);

#[derive(Debug)]
struct Seat {
    shared: Arc<Shared>,
    turn: u64,
    given_away: Arc<Notify>,
    standing: Mutex<Standing>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Silent,
    Asked,
    Gone,
}

/// What a connection that came gets.
#[derive(Debug)]
enum Taken {
    /// One that was free.
    Free(Place),
    /// That of one that goes now.
    Anothers(Place),
    /// None before then.
    Wait(Instant),
    /// None: all have asked for something.
    None,
}

impl Places {
    /// So many, all of them free.
    pub fn new(most: usize) -> Places {
        let state = State { free: most, silent: BTreeMap::new(), turn: 0 };
        Places(Arc::new(Shared { most, state: Mutex::new(state), freed: Notify::new() }))
    }

    /// A place for one that comes, which waits for at most [`GRACE`]; `None` where all have asked for something. `goes` is told where
    /// somebody goes without an answer, this one or the one whose place it gets.
    pub async fn admit(&self, goes: impl FnOnce()) -> Option<Place> {
        loop {
            match self.take() {
                Taken::Free(place) => return Some(place),
                Taken::Wait(until) => sleep_until(until).await,
                Taken::Anothers(place) => {
                    goes();
                    return Some(place);
                }
                Taken::None => {
                    goes();
                    return None;
                }
            }
        }
    }

    fn take(&self) -> Taken {
        let now = Instant::now();
        let mut state = self.0.lock();
        if state.free > 0 {
            state.free -= 1;
            return Taken::Free(self.seat(&mut state, now));
        }
        let many = state.silent.len() * 2 >= self.0.most;
        let Some(oldest) = state.silent.first_entry() else { return Taken::None };
        let until = oldest.get().since + GRACE;
        if many && now < until {
            return Taken::Wait(until);
        }
        oldest.remove().given_away.notify_one();
        Taken::Anothers(self.seat(&mut state, now))
    }

    fn seat(&self, state: &mut State, since: Instant) -> Place {
        let (turn, given_away) = (state.turn, Arc::<Notify>::default());
        state.turn += 1;
        state.silent.insert(turn, Silent { since, given_away: given_away.clone() });
        let standing = Mutex::new(Standing::Silent);
        Place(Arc::new(Seat { shared: self.0.clone(), turn, given_away, standing }))
    }

    /// Until nobody has a place.
    pub async fn all_free(&self) {
        while self.0.lock().free < self.0.most {
            self.0.freed.notified().await;
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Something is asked for: nobody gets this place any more. False where somebody else has it already; then nothing is to be done for
    /// whoever asks.
    #[must_use]
    pub fn keep(&self) -> bool {
        let mut standing = self.0.standing.lock().unwrap_or_else(PoisonError::into_inner);
        if *standing == Standing::Silent {
            // Taken out by one of the two, this or whoever gives it away.
            let still = self.0.shared.lock().silent.remove(&self.0.turn).is_some();
            *standing = if still { Standing::Asked } else { Standing::Gone };
        }
        *standing == Standing::Asked
    }

    /// Until it is somebody else's; then the connection is to be closed.
    pub async fn given_away(&self) {
        self.0.given_away.notified().await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let asked = *self.standing.get_mut().unwrap_or_else(PoisonError::into_inner) == Standing::Asked;
        let mut state = self.shared.lock();
        if asked || state.silent.remove(&self.turn).is_some() {
            state.free += 1;
            self.shared.freed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn free(places: &Places) -> Place {
        match places.take() {
            Taken::Free(place) => place,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_waited_longest_without_asking_goes_and_who_has_asked_stays() {
        let places = Places::new(3);
        let (asked, old, young) = (free(&places), free(&places), free(&places));
        assert!(asked.keep());
        advance(GRACE).await;
        let Taken::Anothers(fourth) = places.take() else { panic!("the old one's place") };
        assert!(!old.keep(), "it has gone, also where it asks now");
        assert!(fourth.keep() && young.keep() && asked.keep());
        assert!(matches!(places.take(), Taken::None), "all have asked");
        drop((old, asked));
        assert_eq!(places.0.lock().free, 1, "one that gave its place away frees none");
        drop(free(&places));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_goes_before_it_had_the_time_to_ask() {
        let places = Places::new(1);
        let first = free(&places);
        let begun = Instant::now();
        let mut gone = 0;
        let second = places.admit(|| gone += 1).await.expect("the first one's");
        assert_eq!((begun.elapsed(), gone), (GRACE, 1));
        first.given_away().await;
        let third =
            async { tokio::join!(places.admit(|| gone += 1), async { assert!(second.keep(), "it asks in time") }).0 };
        assert!(third.await.is_none() && gone == 2);
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_waits_for_nobody_where_few_are_silent() {
        let places = Places::new(3);
        let asked = [free(&places), free(&places)];
        assert!(asked.iter().all(Place::keep));
        let silent = free(&places);
        let begun = Instant::now();
        assert!(places.admit(|| ()).await.is_some());
        assert!(begun.elapsed().is_zero() && !silent.keep());
    }

    #[test]
    fn places_of_those_who_have_gone_are_forgotten_behind_one_that_stays() {
        let places = Places::new(8);
        let stays = free(&places);
        (0..1000).for_each(|_| drop(free(&places)));
        assert_eq!(places.0.lock().silent.len(), 1);
        drop(stays);
        assert_eq!(places.0.lock().free, 8);
    }
}
