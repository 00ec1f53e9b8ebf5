//! What a storm was like: when sandboxes came back, how many in one second, and for how long each was away.

use std::collections::VecDeque;

use super::words::Return;

const SECOND_NS: u64 = 1_000_000_000;

/// The returns since a moment.
pub(super) struct Storm {
    since_ns: u64,
    returns: Vec<Return>,
}

impl Storm {
    /// Of these, the ones since then.
    pub(super) fn since(since_ns: u64, all: impl IntoIterator<Item = Return>) -> Storm {
        let mut returns: Vec<Return> = all.into_iter().filter(|back| back.at_ns >= since_ns).collect();
        returns.sort_by_key(|back| back.at_ns);
        Storm { since_ns, returns }
    }

    /// How many came back.
    pub(super) fn count(&self) -> usize {
        self.returns.len()
    }

    /// Sessions that began in the busiest second, wherever it begins.
    pub(super) fn busiest_second(&self) -> usize {
        let (mut second, mut most) = (VecDeque::new(), 0);
        for back in &self.returns {
            second.push_back(back.at_ns);
            while second.front().is_some_and(|first| first + SECOND_NS <= back.at_ns) {
                second.pop_front();
            }
            most = most.max(second.len());
        }
        most
    }

    /// Seconds from its beginning until the last was back.
    pub(super) fn last_back(&self) -> f64 {
        seconds(self.returns.last().map_or(0, |back| back.at_ns - self.since_ns))
    }

    /// Seconds that the longest of them was away.
    pub(super) fn longest_away(&self) -> f64 {
        seconds(self.returns.iter().map(|back| back.away_ns).max().unwrap_or(0))
    }
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / SECOND_NS as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busiest_second_may_begin_anywhere_and_what_was_before_the_storm_is_left_out() {
        let back = |at_ms: u64, away_ms: u64| Return { at_ns: at_ms * 1_000_000, away_ns: away_ms * 1_000_000 };
        let returns = [back(100, 9_000), back(1_600, 500), back(2_599, 1_400), back(2_600, 700), back(5_000, 3_000)];
        let storm = Storm::since(1_000_000_000, returns);
        assert_eq!(storm.busiest_second(), 2);
        assert!((storm.last_back() - 4.0).abs() < 1e-9);
        assert!((storm.longest_away() - 3.0).abs() < 1e-9);
    }
}
