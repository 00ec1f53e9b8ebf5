//! So many connections at once, and who goes when another one comes.
//!
//! Promises: no more than so many, but for the instant in which one goes for another; whoever has asked for something keeps its place; where all
//! are taken, the one that has been there for longest without asking gives its place to whoever comes. So connections on which nothing
//! is said keep nobody out who asks at once, as probes do.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

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
    silent: BTreeMap<u64, Arc<Notify>>,
    /// Of the next one that comes.
    turn: u64,
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
pub enum Taken {
    /// One that was free.
    Free(Place),
    /// That of one that goes now.
    Anothers(Place),
    /// None: all have asked for something.
    None,
}

impl Places {
    /// So many, all of them free.
    pub fn new(most: usize) -> Places {
        let state = State { free: most, silent: BTreeMap::new(), turn: 0 };
        Places(Arc::new(Shared { most, state: Mutex::new(state), freed: Notify::new() }))
    }

    /// A place for one that comes.
    pub fn take(&self) -> Taken {
        let mut state = self.0.lock();
        let oldest = if state.free > 0 { None } else { state.silent.pop_first() };
        match &oldest {
            Some((_, given_away)) => given_away.notify_one(),
            None if state.free == 0 => return Taken::None,
            None => state.free -= 1,
        }
        let (turn, given_away) = (state.turn, Arc::<Notify>::default());
        state.turn += 1;
        state.silent.insert(turn, given_away.clone());
        let standing = Mutex::new(Standing::Silent);
        let place = Place(Arc::new(Seat { shared: self.0.clone(), turn, given_away, standing }));
        if oldest.is_some() { Taken::Anothers(place) } else { Taken::Free(place) }
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
    use super::*;

    fn free(places: &Places) -> Place {
        match places.take() {
            Taken::Free(place) => place,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn who_has_waited_longest_without_asking_goes_and_who_has_asked_stays() {
        let places = Places::new(3);
        let (asked, old, young) = (free(&places), free(&places), free(&places));
        assert!(asked.keep());
        let Taken::Anothers(fourth) = places.take() else { panic!("the old one's place") };
        assert!(!old.keep(), "it has gone, also where it asks now");
        assert!(fourth.keep() && young.keep() && asked.keep());
        assert!(matches!(places.take(), Taken::None), "all have asked");
        drop((old, asked));
        assert_eq!(places.0.lock().free, 1, "one that gave its place away frees none");
        drop(free(&places));
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
