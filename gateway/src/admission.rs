//! How many sessions may begin in a second, so that a fleet that comes back at once is let in at the pace that the gateway
//! can bear.
//!
//! Promises: nobody begins before its place, and places follow each other at the admission rate. Whoever comes up to two seconds before its
//! place waits for it here ([`Admission::wait`]): those who stood in the listener's queue while the gateway started, say, which would else come at once.
//! Whoever comes earlier is refused with a time that is reserved for it, and is admitted when it comes then, or up to half a second later, where sessions begin as fast as they may. Everybody is told the window P in which a fleet of this size should spread
//! its reconnecting, 1.25 × fleet / rate of all gateways together: with it, a whole fleet never reaches the rate and nobody is refused.
//!
//! Where sessions begin more slowly than that, because the machine or its database is busy, no more are let in than [can begin](beginnings): whoever comes to its
//! place then gets a later one.
//!
//! A place whose owner is late goes to somebody else. Of several gateways behind one address, each has the places that it gave away, and whoever was
//! refused comes to any of them: as many who come elsewhere come here. Whoever is later still begins anew.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until};

mod beginnings;

pub use beginnings::Beginning;
use beginnings::Beginnings;

/// A place that is as near as this is waited for: shorter than the way back for most, and long before a supervisor gives its dial up.
const HELD: Duration = Duration::from_secs(2);
/// So many wait at once, a third of the connections that the listener has places for: who dials may not keep others from calling.
const WAITING: usize = 1024;
/// Clocks and timers of both sides are so coarse.
const EARLY: Duration = Duration::from_millis(10);
/// Whoever is later than this, the time of some handshakes, has probably come to another gateway, or is far away: its place is
/// anybody's. By the second it is nobody's, so that there is no burst of those who are all late: after the gateway itself has stood still, say.
const LATE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_millis(500));
/// While enough are beginning, no new place is nearer than this.
const BEHIND: Duration = Duration::from_millis(250);
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
    beginnings: Beginnings,
    book: Mutex<Book>,
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
            beginnings: Beginnings::new(now),
            book: Mutex::new(book),
        }
    }

    /// Until this sandbox may begin a session, where that is soon; else after how long. Its place stays its own where it goes meanwhile.
    pub async fn wait(&self, sandbox: &str) -> Result<(), Duration> {
        let until = Instant::now() + HELD;
        loop {
            let now = Instant::now();
            let Err(wait) = self.admit(sandbox, now) else { return Ok(()) };
            if now + wait > until {
                return Err(wait);
            }
            let Ok(_waiting) = self.waiting.try_acquire() else { return Err(wait) };
            sleep_until(now + wait).await;
        }
    }

    /// Whether this sandbox may begin a session `now`; else after how long.
    fn admit(&self, sandbox: &str, now: Instant) -> Result<(), Duration> {
        let step = Duration::from_secs(1) / self.rate;
        let behind = self.is_behind(now);
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        book.tidy(now);
        if let Some(&slot) = book.reserved.get(sandbox) {
            if now + EARLY < slot {
                return Err(slot - now);
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
        book.free = slot + step;
        if slot <= now {
            return Ok(());
        }
        book.reserved.insert(sandbox.to_string(), slot);
        book.due.insert(slot, sandbox.to_string());
        Err(slot - now)
    }

    /// A session is beginning: to be asked for once its hello is here, so that whoever says nothing keeps nobody out.
    pub fn begin(&self) -> Beginning<'_> {
        self.beginnings.begin()
    }

    /// How many are beginning.
    pub fn beginning(&self) -> usize {
        self.beginnings.len()
    }

    /// Whether sessions begin more slowly than they may, and nobody else is let in.
    pub fn is_behind(&self, now: Instant) -> bool {
        self.beginnings.are_enough(self.rate as usize, now)
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
    fn in_no_second_more_than_the_rate_is_admitted() {
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
            assert!(count <= 100, "{count} in second {second}");
        }
        assert_eq!(admitted.len(), 1_000);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_comes_shortly_before_its_place_waits_for_it_and_others_do_not() {
        let begin = Instant::now();
        let admission = std::sync::Arc::new(Admission::new(10, begin));
        let dials = (0..30).map(|i| {
            let admission = admission.clone();
            tokio::spawn(async move { (admission.wait(&format!("s-{i}")).await, begin.elapsed()) })
        });
        for (i, dial) in (0..).zip(dials.collect::<Vec<_>>()) {
            let place = Duration::from_millis(100) * i;
            let (admitted, after) = dial.await.expect("it ends");
            match i {
                // The clock of these tests goes on in whole milliseconds.
                0..=20 => assert!(admitted == Ok(()) && after.abs_diff(place) <= Duration::from_millis(1), "{after:?}"),
                _ => assert_eq!((admitted, after), (Err(place), Duration::ZERO)),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_are_all_late_because_the_gateway_stood_still_do_not_begin_at_once() {
        let admission = std::sync::Arc::new(Admission::new(100, Instant::now()));
        let (begun, mut dials) = (std::sync::Arc::new(AtomicUsize::new(0)), Vec::new());
        for i in 0..150 {
            let (admission, begun) = (admission.clone(), begun.clone());
            dials.push(tokio::spawn(async move {
                if admission.wait(&format!("s-{i}")).await.is_ok() {
                    begun.fetch_add(1, Ordering::Relaxed);
                }
            }));
        }
        // A sleep ends when nobody else has anything to do.
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(begun.load(Ordering::Relaxed), 1);
        // All timers are over when anybody looks.
        tokio::time::advance(Duration::from_secs(5)).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(begun.load(Ordering::Relaxed) <= 3, "{begun:?} at once");
    }

    #[tokio::test(start_paused = true)]
    async fn not_more_wait_than_the_listener_can_bear() {
        let admission = std::sync::Arc::new(Admission::new(100_000, Instant::now()));
        let dials: Vec<_> = (0..10_000)
            .map(|i| {
                let admission = admission.clone();
                tokio::spawn(async move { admission.wait(&format!("s-{i}")).await })
            })
            .collect();
        let mut admitted = 0;
        for dial in dials {
            admitted += usize::from(dial.await.expect("it ends").is_ok());
        }
        assert_eq!(admitted, 1 + WAITING);
    }

    /// Sandboxes that all dial at once and whose sessions begin at this pace, one after the other: how many were begun for nobody, and until
    /// when all were in.
    fn begun_in_vain(rate: u32, each: Duration, sandboxes: usize) -> (usize, Duration) {
        const PATIENCE: Duration = Duration::from_secs(10);
        let now = Instant::now();
        let admission = Admission::new(rate, now);
        admission.set_fleet(sandboxes as u64);
        let mut dials: BTreeMap<(Duration, usize), ()> =
            (0..sandboxes).map(|who| ((Duration::ZERO, who), ())).collect();
        let mut hellos = std::collections::VecDeque::<(Duration, usize, Beginning)>::new();
        let (mut free, mut in_vain, mut here) = (Duration::ZERO, 0, 0);
        while here < sandboxes {
            let next = hellos.front().map(|(at, ..)| free.max(*at) + each);
            match dials.first_key_value().map(|(&dial, ())| dial) {
                Some((at, who)) if next.is_none_or(|next| at < next) => {
                    dials.remove(&(at, who));
                    match admission.admit(&who.to_string(), now + at) {
                        Ok(()) => hellos.push_back((at, who, admission.begin())),
                        Err(wait) => drop(dials.insert((at + wait, who), ())),
                    }
                }
                _ => {
                    let (at, who, beginning) = hellos.pop_front().expect("somebody is away, and does not dial");
                    free = free.max(at) + each;
                    beginning.begun(now + free);
                    if free < at + PATIENCE {
                        here += 1;
                    } else {
                        in_vain += 1;
                        dials.insert(
                            (at + PATIENCE + admission.window().mul_f64((who as f64 * 0.618).fract()), who),
                            (),
                        );
                    }
                }
            }
            assert!(free < each * 10 * sandboxes as u32, "{here} of {sandboxes} are in, {in_vain} were begun in vain");
        }
        (in_vain, free)
    }

    #[test]
    fn where_sessions_begin_slowly_each_is_waited_for_and_all_begin_one_after_the_other() {
        // As fast as they may, a fiftieth of that; and rates of small machines.
        for (rate, each, sandboxes) in
            [(500, 2, 10_000), (500, 20, 10_000), (500, 100, 2_000), (4, 1_000, 200), (1, 2_000, 100)]
        {
            let each = Duration::from_millis(each);
            let (in_vain, all) = begun_in_vain(rate, each, sandboxes);
            println!("{rate} a second, one in {each:?}: {in_vain} in vain, all of {sandboxes} after {all:?}");
            assert_eq!(in_vain, 0, "{rate} a second, one in {each:?}");
            let ideal = each * sandboxes as u32;
            assert!(all <= ideal * 5 / 4, "{rate} a second, one in {each:?}: {all:?} instead of {ideal:?}");
        }
    }

    /// Thousands who come at once, each time to any of three gateways behind one address.
    fn seconds_until_all_are_in(late: Duration) -> (f64, usize) {
        let now = Instant::now();
        let admissions: Vec<Admission> = (0..3).map(|_| Admission::new(100, now)).collect();
        let mut waiting: BTreeMap<(Duration, usize), u64> =
            (0..3_000).map(|i| ((Duration::ZERO, i), i as u64)).collect();
        let (mut last, mut seconds) = (Duration::ZERO, BTreeMap::<u64, usize>::new());
        while let Some(((at, who), random)) = waiting.pop_first() {
            // Any of them, as by chance (Knuth's multiplier).
            let random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let turn = (random >> 33) as usize % admissions.len();
            match admissions[turn].admit(&who.to_string(), now + at) {
                Ok(()) => {
                    last = at;
                    *seconds.entry(at.as_secs()).or_default() += 1;
                }
                Err(wait) => drop(waiting.insert((at + wait + late + Duration::from_millis(random % 70), who), random)),
            }
        }
        (last.as_secs_f64(), seconds.values().copied().max().unwrap_or(0))
    }

    #[test]
    fn places_of_those_who_came_to_another_gateway_or_are_late_are_not_wasted() {
        // Soon after their time, and later than anybody's place is kept.
        for late in [30, 600].map(Duration::from_millis) {
            let (all, busiest) = seconds_until_all_are_in(late);
            // 3,000 at 300 a second take 10 s.
            assert!(all < 14.0, "{all} s");
            assert!(busiest <= 375, "{busiest} in one second, where 300 may come");
        }
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
