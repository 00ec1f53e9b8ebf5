//! When to dial next. It has no clock and draws no numbers, so that a fleet of it can be simulated.
//!
//! Promises: it never says "never". Where the gateway has said how wide the window P is, a fleet that lost it spreads over P
//! once and then keeps its places, trying again every P; after ten minutes P grows, to at most five minutes. Where no P is
//! known, the wait is a random part of a window that doubles from 1 to 60 s. A time that was reserved is kept to the
//! millisecond. Only 60 s of a healthy session forget what went wrong before.

use std::time::Duration;

/// A session that lasted so long was healthy.
pub(super) const HEALTHY: Duration = Duration::from_secs(60);
/// No window makes it dial more often.
const SHORTEST: Duration = Duration::from_millis(250);
/// After so long away the window grows.
const PATIENCE: Duration = Duration::from_secs(600);
/// To at most this.
const LONGEST: Duration = Duration::from_secs(300);
/// Nobody reserves a time later than this, and no window is wider.
const FURTHEST: Duration = Duration::from_secs(3600);
/// Where no window is known, and for what somebody has to mend first.
const JITTER: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Why there is no session now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// The supervisor starts, or a session was lost after this time.
    Lost(Duration),
    /// A dial failed.
    Failed,
    /// The gateway named the time.
    Reserved(Duration),
    /// Trying again at once changes nothing: the token is refused, or somebody else has this identity.
    Refused,
}

/// What is remembered between two dials.
#[derive(Debug)]
pub(crate) struct Reconnect {
    window: Option<Duration>,
    /// By how much the window has grown.
    growth: f64,
    /// Waited since the last healthy session.
    waited: Duration,
    /// The present doubling window, and what is left of the one before: without that, sums of random waits would drift
    /// to their mean and the fleet would meet there.
    jitter: Duration,
    rest: Duration,
}

impl Reconnect {
    pub(crate) fn new(window: Option<Duration>) -> Reconnect {
        let window = window.map(|window| window.min(FURTHEST));
        Reconnect { window, growth: 1.0, waited: Duration::ZERO, jitter: JITTER.0, rest: Duration::ZERO }
    }

    /// The gateway says how wide the window is.
    pub(crate) fn learn(&mut self, window: Duration) {
        self.window = Some(window.min(FURTHEST));
    }

    /// How long to wait before the next dial; `random` is from 0 to 1.
    pub(crate) fn wait(&mut self, why: Why, random: f64) -> Duration {
        if matches!(why, Why::Lost(lasted) if lasted >= HEALTHY) {
            (self.growth, self.waited) = (1.0, Duration::ZERO);
            (self.jitter, self.rest) = (JITTER.0, Duration::ZERO);
        }
        let first = self.waited.is_zero();
        let wait = match (why, self.window) {
            (Why::Reserved(time), _) => time.min(FURTHEST),
            (Why::Lost(_), Some(window)) if first => window.mul_f64(random),
            // Lost again and again: never more often than by chance over a growing time.
            (Why::Lost(_), Some(window)) => self.spread(random).max(window.mul_f64(random)),
            (Why::Failed, Some(_)) => self.period(),
            (Why::Refused, Some(_)) => self.spread(random).max(self.period()),
            (_, None) => self.spread(random),
        };
        self.waited = self.waited.saturating_add(wait).max(Duration::from_nanos(1));
        wait
    }

    /// P, grown.
    fn period(&mut self) -> Duration {
        let window = self.window.unwrap_or_default().max(SHORTEST);
        if self.waited > PATIENCE {
            self.growth *= 1.5;
        }
        let grown = window.mul_f64(self.growth);
        if grown > LONGEST.max(window) {
            self.growth = LONGEST.max(window).div_duration_f64(window);
        }
        grown.min(LONGEST.max(window))
    }

    fn spread(&mut self, random: f64) -> Duration {
        let part = self.jitter.mul_f64(random.clamp(0.0, 1.0));
        let wait = self.rest + part;
        self.rest = self.jitter - part;
        self.jitter = (self.jitter * 2).min(JITTER.1);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backoff::random;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    proptest! {
        #[test]
        fn it_never_gives_up_and_never_waits_for_ever(
            window in prop::option::of(0u64..120_000),
            steps in prop::collection::vec((0u8..4, 0u64..10_000_000, 0.0..=1.0f64), 1..200),
        ) {
            let mut reconnect = Reconnect::new(window.map(Duration::from_millis));
            for (why, millis, random) in steps {
                let span = Duration::from_millis(millis);
                let why = [Why::Lost(span), Why::Failed, Why::Reserved(span), Why::Refused][usize::from(why)];
                let wait = reconnect.wait(why, random);
                let most = if matches!(why, Why::Reserved(_)) { FURTHEST } else { LONGEST.max(2 * JITTER.1) };
                prop_assert!(wait <= most, "{why:?}: {wait:?}");
                if let Why::Reserved(time) = why {
                    prop_assert_eq!(wait, time.min(FURTHEST));
                }
            }
        }
    }

    #[test]
    fn with_a_window_the_first_wait_is_a_part_of_it_and_every_later_one_the_whole() {
        let mut reconnect = Reconnect::new(Some(10 * SECOND));
        assert_eq!(reconnect.wait(Why::Lost(Duration::ZERO), 0.3), 3 * SECOND);
        for _ in 0..50 {
            assert_eq!(reconnect.wait(Why::Failed, random()), 10 * SECOND);
        }
        reconnect.learn(20 * SECOND);
        assert_eq!(reconnect.wait(Why::Failed, random()), 20 * SECOND);
        assert_eq!(reconnect.wait(Why::Lost(HEALTHY), 0.5), 10 * SECOND);
    }

    #[test]
    fn after_ten_minutes_the_window_grows_to_five_minutes() {
        let mut reconnect = Reconnect::new(Some(SHORTEST));
        let waits: Vec<Duration> = (0..2600).map(|_| reconnect.wait(Why::Failed, 0.5)).collect();
        assert!(waits[..2000].iter().all(|wait| *wait == SHORTEST));
        assert!(waits.is_sorted());
        assert_eq!(waits.last(), Some(&LONGEST));
    }

    #[test]
    fn a_window_of_ages_does_not_keep_it_away_for_ages() {
        let ages = Duration::from_millis(u64::MAX);
        let mut reconnect = Reconnect::new(Some(ages));
        for why in [Why::Lost(HEALTHY), Why::Failed, Why::Refused] {
            reconnect.learn(ages);
            assert!(reconnect.wait(why, 1.0) <= FURTHEST, "{why:?}");
        }
    }

    #[test]
    fn only_a_healthy_session_forgets_what_went_wrong() {
        let mut reconnect = Reconnect::new(Some(SHORTEST));
        for _ in 0..6 {
            reconnect.wait(Why::Lost(SECOND), 0.9);
        }
        let unhealthy = reconnect.wait(Why::Lost(SECOND), 0.9);
        assert!(unhealthy > 10 * SECOND, "{unhealthy:?}");
        assert!(reconnect.wait(Why::Lost(HEALTHY), 0.9) < SHORTEST);
    }

    #[test]
    fn a_fleet_that_loses_its_gateway_never_overruns_the_admission() {
        // 2,000 agents, 100 admitted a second, P = 1.25 × 20 s, the gateway is away for 3 s.
        let (fleet, admitted, window) = (2000, 100.0, 25 * SECOND);
        let mut busiest = vec![0; 200];
        for _ in 0..fleet {
            let mut reconnect = Reconnect::new(Some(window));
            let mut at = reconnect.wait(Why::Lost(HEALTHY), random());
            while at < 3 * SECOND {
                at += reconnect.wait(Why::Failed, random());
            }
            busiest[at.as_secs() as usize] += 1;
        }
        let most = busiest.iter().max().copied().unwrap_or_default();
        assert!(f64::from(most) <= 1.3 * admitted, "{most} in one second");
    }
}
