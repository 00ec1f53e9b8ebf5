//! How many sessions may begin in a second, so that a fleet that comes back at once is let in at the pace that the gateway
//! can bear.
//!
//! Promises: in no second more sessions begin than the admission rate; nobody begins before its place, and places follow each other a little more
//! slowly than that. Whoever comes up to two seconds before its
//! place waits for it here ([`Admission::wait`]): those who stood in the listener's queue while the gateway started, say, which would
//! else come at once. Whoever comes earlier is refused with a time that is reserved for it, and is admitted when it comes then, or up to half
//! a second later. Everybody is told the window P in which a fleet of this size should spread its reconnecting, 1.25 × fleet / rate of all
//! gateways together: with it, a whole fleet never reaches the rate and nobody is refused.
//!
//! Where sessions begin more slowly than that, because the database is slow or the machine is busy, nobody else is let in while a second's
//! worth of them is beginning: whoever comes to its place then gets a later one, and the store is not asked for more than it can do. Those who
//! were let in do not wait there for longer than their supervisors do ([`crate::store::Begin::until`]).
//!
//! A place whose owner is late goes to somebody else. Of several gateways behind one address, each has the places that it gave away, and whoever was
//! refused comes to any of them: as many who come elsewhere come here. Whoever is later still begins anew.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until};

/// A place that is as near as this is waited for: shorter than the way back for most, and long before a supervisor gives its dial up.
const HELD: Duration = Duration::from_secs(2);
/// So many wait at once, a third of the connections that the listener has places for: who dials may not keep others from calling.
const WAITING: usize = 1024;
/// Clocks and timers of both sides are so coarse.
const EARLY: Duration = Duration::from_millis(10);
/// Places are so many parts of a step further apart than the rate says. A session begins up to [`EARLY`] before its place, or some milliseconds after it
/// because the store takes its time; so more places of one second may begin in another one.
const APART: u32 = 50;
/// Whoever is later than this, the time of some handshakes, has probably come to another gateway, or is far away: its place is
/// anybody's. By the second it is nobody's, so that there is no burst of those who are all late: after the gateway itself has stood still, say.
const LATE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_millis(500));
/// While enough are beginning, no new place is nearer than this: by then some of them have begun, or nobody has for long.
const BEHIND: Duration = Duration::from_millis(50);
/// And they follow each other so many times more slowly: whoever dials in vain costs time, too.
const SLOWER: u32 = 2;
/// At the lowest rates so many may be beginning.
const FEW: u32 = 2;
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
    waiting: Semaphore,
    /// Sessions between their hello and their welcome.
    beginning: AtomicUsize,
    book: Mutex<Book>,
}

/// Why and for how long a sandbox may not begin a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Later {
    /// Its place is so far away, and is kept.
    pub after: Duration,
    /// As many are beginning as may: what is slow is how they begin.
    pub behind: bool,
}

/// A session that is beginning, for as long as this is kept.
#[derive(Debug)]
#[must_use]
pub struct Beginning<'a>(&'a AtomicUsize);

impl Drop for Beginning<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct Book {
    /// The next time that is nobody's.
    free: Instant,
    reserved: HashMap<String, Instant>,
    /// The same by their times.
    due: BTreeMap<Instant, String>,
}

impl Admission {
    /// So many sessions a second, from `now` on.
    pub fn new(rate: u32, now: Instant) -> Admission {
        let book = Book { free: now, reserved: HashMap::new(), due: BTreeMap::new() };
        Admission {
            rate,
            fleet: AtomicU64::new(0),
            gateways: AtomicUsize::new(1),
            waiting: Semaphore::new(WAITING),
            beginning: AtomicUsize::new(0),
            book: Mutex::new(book),
        }
    }

    /// Until this sandbox may begin a session, where that is soon; else after how long. Its place stays its own where it goes meanwhile.
    pub async fn wait(&self, sandbox: &str) -> Result<(), Later> {
        let until = Instant::now() + HELD;
        let mut waiting = None;
        loop {
            let now = Instant::now();
            let Err(later) = self.admit(sandbox, now) else { return Ok(()) };
            if waiting.is_none() {
                waiting = self.waiting.try_acquire().ok();
            }
            if now + later.after > until || waiting.is_none() {
                return Err(later);
            }
            sleep_until(now + later.after).await;
        }
    }

    /// Whether this sandbox may begin a session `now`; else after how long.
    fn admit(&self, sandbox: &str, now: Instant) -> Result<(), Later> {
        let step = Duration::from_secs(1) / self.rate;
        let step = step + step / APART;
        let behind = self.beginning() >= self.rate.max(FEW) as usize;
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        book.tidy(now);
        if let Some(&slot) = book.reserved.get(sandbox) {
            if now + EARLY < slot {
                return Err(Later { after: slot - now, behind });
            }
            book.give_up(slot);
            if !behind {
                return Ok(());
            }
        }
        let slot = book.free.max(if behind { now + BEHIND } else { now });
        if !behind
            && slot > now
            && let Some(late) = book.late(now)
        {
            book.give_up(late);
            return Ok(());
        }
        book.free = slot + if behind { SLOWER * step } else { step };
        if slot <= now {
            return Ok(());
        }
        book.reserved.insert(sandbox.to_string(), slot);
        book.due.insert(slot, sandbox.to_string());
        Err(Later { after: slot - now, behind })
    }

    /// A session is beginning: to be asked for once its hello is here, so that whoever says nothing keeps nobody out.
    pub fn begin(&self) -> Beginning<'_> {
        self.beginning.fetch_add(1, Ordering::Relaxed);
        Beginning(&self.beginning)
    }

    /// How many are.
    pub fn beginning(&self) -> usize {
        self.beginning.load(Ordering::Relaxed)
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
    /// That time is nobody's any more.
    fn give_up(&mut self, slot: Instant) {
        if let Some(sandbox) = self.due.remove(&slot) {
            self.reserved.remove(&sandbox);
        }
    }

    /// A time whose owner has probably gone to another gateway.
    fn late(&self, now: Instant) -> Option<Instant> {
        let (from, to) = (now.checked_sub(LATE.1)?, now.checked_sub(LATE.0)?);
        self.due.range(from..=to).next().map(|(slot, _)| *slot)
    }

    /// Times that are over for long are nobody's.
    fn tidy(&mut self, now: Instant) {
        while let Some((&slot, _)) = self.due.first_key_value()
            && slot + LATE.1 <= now
        {
            self.give_up(slot);
        }
    }
}

#[cfg(test)]
mod tests;
