//! A gateway that joins others gets its share of their sessions: whoever has more than the mean asks some to dial again, and the
//! address that they dial has the new one behind it as well.
//!
//! Promises: only sessions that were there before the new one are asked, so nobody is asked twice for it, and this ends also where the address always leads
//! to the same gateway; all gateways together ask a tenth of the rate at which one of them admits, so that there is no storm; nobody is asked on
//! whom a call is under way. Who joins has its share with four fifths of the mean: of those who dial again only some come to it, so the last
//! few would cost the most. How the sessions are spread stands in the store, and is looked at only while they move.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Sessions;
use crate::exit::reason;
use crate::lease::{Lease, Standing};
use crate::registry::{Live, Order};

/// Asked between two looks at how they are spread.
const BATCH: Duration = Duration::from_secs(2);
/// Before the next look, where somebody may just have been asked, and where there are only those on whom a call is under way.
const LOOK: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// So many looks without anybody to ask, and it is over: whoever was asked and has not gone by then does not go.
const IDLE: usize = 10;

/// For as long as the gateway runs; nobody is asked until `after` a gateway has joined, when it has shown that it stays.
pub async fn run(sessions: Arc<Sessions>, after: Duration) {
    let mut lease = sessions.lease.clone();
    let mut known = there(&lease);
    loop {
        lease.changed().await;
        let now = there(&lease);
        let joined: BTreeSet<String> = now.difference(&known).cloned().collect();
        known = now;
        if !joined.is_empty() {
            let since = Instant::now();
            sleep(after).await;
            balance(&sessions, &joined, since).await;
        }
    }
}

fn there(lease: &Lease) -> BTreeSet<String> {
    match lease.standing() {
        Standing::Held(held) => held.there.into_keys().collect(),
        _ => BTreeSet::new(),
    }
}

/// Until those who have `joined` have their share, or this gateway has asked all that it has above its own.
async fn balance(sessions: &Sessions, joined: &BTreeSet<String>, since: Instant) {
    let (mut idle, mut total) = (0, 0);
    while idle < IDLE
        && let Some(Pace { above, each }) = pace(sessions, joined, &mut total).await
    {
        let batch = (BATCH.as_micros() / each.as_micros()).max(1) as usize;
        let (asked, others): (Vec<_>, Vec<_>) =
            sessions.registry.all().into_iter().partition(|live| live.is_asked_to_go());
        // Those who were asked are on their way, and not above the mean any more.
        let most = above.saturating_sub(asked.len()).min(batch);
        let older = others.into_iter().filter(|live| live.entered() < since);
        let (may, busy): (Vec<_>, Vec<_>) = older.partition(|live| is_quiet(live));
        let ask: Vec<Arc<Live>> = may.into_iter().take(most).collect();
        idle = if ask.is_empty() { idle + 1 } else { 0 };
        let wait = if ask.is_empty() && most > 0 && !busy.is_empty() { LOOK.1 } else { LOOK.0 };
        for live in ask {
            // A call may have come meanwhile.
            if is_quiet(&live) {
                live.order(Order::Goaway { reason: "another gateway has joined", reconnect_in_ms: 0 });
                sessions.metrics.moves.inc();
            }
            sleep(each).await;
        }
        sleep(wait).await;
    }
}

/// How many to ask, and how fast.
struct Pace {
    /// Sessions of this gateway above the mean.
    above: usize,
    /// For each that is asked.
    each: Duration,
}

/// `None` once it is over. Whoever is on the way is in nobody's count, so the largest `total` that was seen is the one that counts.
async fn pace(sessions: &Sessions, joined: &BTreeSet<String>, total: &mut usize) -> Option<Pace> {
    loop {
        if *sessions.draining.borrow() {
            return None;
        }
        let Standing::Held(held) = sessions.lease.standing() else { return None };
        match sessions.store.sessions_by_owner().await {
            Ok(counts) => {
                let there: BTreeSet<&String> = held.there.keys().collect();
                *total = counts.values().sum::<usize>().max(*total);
                let above = above(&counts, *total, &held.id, &there, joined)?;
                let others = u32::try_from(there.len() - 1).unwrap_or(u32::MAX).max(1);
                return Some(Pace { above, each: Duration::from_secs(10) / sessions.admission.rate() * others });
            }
            Err(error) => {
                tracing::debug!(error = reason(&error), "how sessions are spread cannot be read now");
                sleep(BATCH).await;
            }
        }
    }
}

/// How many sessions this gateway has above the mean; `None` where those who have joined have their share, or have gone.
fn above(
    counts: &BTreeMap<String, usize>,
    total: usize,
    id: &str,
    there: &BTreeSet<&String>,
    joined: &BTreeSet<String>,
) -> Option<usize> {
    let count = |id: &str| counts.get(id).copied().unwrap_or(0);
    // One that has none and has not just come is about to go.
    let take_part = there.iter().filter(|&&id| joined.contains(id) || count(id) > 0).count();
    let mean = total.div_ceil(take_part.max(1));
    let poorest = there.iter().filter(|&&id| joined.contains(id)).map(|id| count(id)).min()?;
    (poorest < mean * 4 / 5).then(|| count(id).saturating_sub(mean))
}

/// What would break off by a move is not moved.
fn is_quiet(live: &Live) -> bool {
    live.streams.as_ref().is_none_or(|streams| streams.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What each of these has above the mean, where those with a `+` have joined.
    fn above_of(gateways: &[(&str, usize)]) -> Vec<Option<usize>> {
        let name = |name: &str| name.trim_end_matches('+').to_owned();
        let counts: BTreeMap<_, _> = gateways.iter().filter(|(_, n)| *n > 0).map(|(id, n)| (name(id), *n)).collect();
        let joined = gateways.iter().filter(|(id, _)| id.ends_with('+')).map(|(id, _)| name(id)).collect();
        let all: Vec<String> = gateways.iter().map(|(id, _)| name(id)).collect();
        let total = gateways.iter().map(|(_, n)| n).sum();
        all.iter().map(|id| above(&counts, total, id, &all.iter().collect(), &joined)).collect()
    }

    #[test]
    fn each_has_what_is_above_the_mean_until_those_who_joined_have_four_fifths_of_it() {
        assert_eq!(above_of(&[("a", 5_000), ("b", 5_000), ("c+", 0)]), [Some(1_666), Some(1_666), Some(0)]);
        assert_eq!(above_of(&[("a", 3_900), ("b", 3_500), ("c+", 2_600)]), [Some(566), Some(166), Some(0)]);
        assert_eq!(above_of(&[("a", 3_700), ("b", 3_600), ("c+", 2_700)]), [None, None, None]);
        // However many there are.
        let many: Vec<_> = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"].map(|id| (id, 1_000)).into();
        let above = above_of(&[many, vec![("k+", 0)]].concat());
        assert_eq!((above[0], above[10]), (Some(90), Some(0)));
    }

    #[test]
    fn nobody_moves_for_one_that_has_gone_and_one_that_is_about_to_go_counts_for_nothing() {
        assert_eq!(above_of(&[("a", 5_000), ("b", 5_000)]), [None, None]);
        // It is drained: what it had is at the others.
        assert_eq!(above_of(&[("a", 0), ("b", 5_000), ("c+", 5_000)]), [None, None, None]);
    }
}
