//! Times are handed in, or stand still.

use std::collections::{BTreeSet, VecDeque};

use super::*;
use crate::store::UNTIL;

#[test]
fn a_refused_sandbox_is_admitted_at_its_reserved_time_and_not_before() {
    let now = Instant::now();
    let admission = Admission::new(1, now);
    assert_eq!(admission.admit("a", now), Ok(()));
    let wait = admission.admit("b", now).expect_err("the second of one second").after;
    assert!(admission.admit("b", now + wait / 2).is_err());
    assert!(admission.admit("c", now + wait).expect_err("that time is b's").after > Duration::ZERO);
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
            // As early as they may, or not: so two of different seconds come within one.
            Err(later) => {
                let early = if later.after > Duration::from_secs(5) { EARLY } else { Duration::ZERO };
                waiting.insert(0, (at + later.after - early, sandbox));
            }
        }
    }
    admitted.sort_unstable();
    for begin in &admitted {
        let count = admitted.iter().filter(|at| (*begin..*begin + Duration::from_secs(1)).contains(at)).count();
        assert!(count <= 100, "{count} in the second after {:?}", *begin - now);
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
        let place = Duration::from_millis(102) * i;
        let (admitted, after) = dial.await.expect("it ends");
        match i {
            // The clock of these tests goes on in whole milliseconds.
            0..=19 => assert!(admitted == Ok(()) && after.abs_diff(place) <= Duration::from_millis(1), "{after:?}"),
            _ => assert_eq!((admitted.map_err(|later| later.after), after), (Err(place), Duration::ZERO)),
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

/// Sandboxes that all dial at once, and a store that takes a session each so long, one after the other: how many were begun for nobody,
/// and until when all were in. A hello comes 100 ms after its dial was let in.
fn begun_in_vain(rate: u32, each: Duration, sandboxes: usize) -> (usize, Duration) {
    const HELLO: Duration = Duration::from_millis(100);
    const WELCOME: Duration = Duration::from_secs(10);
    let now = Instant::now();
    let admission = Admission::new(rate, now);
    admission.set_fleet(sandboxes as u64);
    let mut dials: BTreeSet<(Duration, usize)> = (0..sandboxes).map(|who| (Duration::ZERO, who)).collect();
    let (mut on_the_way, mut hellos) = (VecDeque::new(), VecDeque::new());
    let (mut free, mut in_vain, mut here) = (Duration::ZERO, 0, 0);
    let again = |at: Duration, who: usize| (at + admission.window().mul_f64((who as f64 * 0.618).fract()), who);
    while here < sandboxes {
        let turn = hellos.front().map(|(at, ..): &(Duration, usize, Beginning)| free.max(*at));
        let hello: Option<Duration> = on_the_way.front().map(|(at, _)| *at);
        let dial = dials.first().map(|(at, _)| *at);
        let next = [turn, hello, dial].into_iter().flatten().min().expect("somebody is away, and does not dial");
        if hello == Some(next) {
            let (at, who) = on_the_way.pop_front().expect("just seen");
            hellos.push_back((at, who, admission.begin()));
        } else if dial == Some(next) {
            let (at, who) = dials.pop_first().expect("just seen");
            match admission.admit(&who.to_string(), now + at) {
                Ok(()) => on_the_way.push_back((at + HELLO, who)),
                Err(later) => drop(dials.insert((at + later.after, who))),
            }
        } else {
            let (at, who, _beginning) = hellos.pop_front().expect("just seen");
            if next > at + UNTIL {
                dials.insert(again(next, who));
                continue;
            }
            free = next + each;
            if free < at + WELCOME {
                here += 1;
            } else {
                in_vain += 1;
                dials.insert(again(at + WELCOME, who));
            }
        }
        assert!(free < each * 10 * sandboxes as u32, "{here} of {sandboxes} are in, {in_vain} were begun in vain");
    }
    (in_vain, free)
}

#[test]
fn where_sessions_begin_slowly_each_is_waited_for_and_all_begin_one_after_the_other() {
    // As fast as they may, a tenth, a fiftieth and a thousandth of that; and rates of small machines.
    let cases =
        [(500, 2, 10_000), (500, 20, 10_000), (500, 100, 2_000), (500, 2_000, 50), (4, 1_000, 200), (1, 2_000, 100)];
    for (rate, each, sandboxes) in cases {
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
    let mut waiting: BTreeMap<(Duration, usize), u64> = (0..3_000).map(|i| ((Duration::ZERO, i), i as u64)).collect();
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
            Err(later) => {
                let back = at + later.after + late + Duration::from_millis(random % 70);
                waiting.insert((back, who), random);
            }
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
