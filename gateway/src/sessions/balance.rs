//! A gateway that joins others gets its share of their sessions: each of them asks as many as it has above the mean to dial again, and
//! the address that they dial has the new one behind it as well.
//!
//! Promises: nobody is asked more than once for one gateway that joins, so where the address always leads to the same gateway this ends
//! as well; a tenth of the admission rate is asked in a second, so that there is no storm; nobody is asked on whom a call is under way. How the sessions
//! are spread stands in the store, and is looked at only while they move.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::Sessions;
use crate::exit::reason;
use crate::lease::{Lease, Standing};
use crate::registry::{Live, Order};

/// Asked between two looks at how they are spread.
const BATCH: Duration = Duration::from_secs(2);
/// Whoever was asked has a session again by then.
const SETTLE: Duration = Duration::from_millis(500);

/// For as long as the gateway runs; nobody moves until `after` a gateway has joined, when it has shown that it stays.
pub async fn run(sessions: Arc<Sessions>, after: Duration) {
    let mut lease = sessions.lease.clone();
    let mut known = there(&lease);
    loop {
        lease.changed().await;
        let now = there(&lease);
        let joined = !now.is_subset(&known);
        known = now;
        if joined {
            sleep(after).await;
            spread(&sessions).await;
        }
    }
}

fn there(lease: &Lease) -> BTreeSet<String> {
    match lease.standing() {
        Standing::Held(held) => held.there.into_keys().collect(),
        _ => BTreeSet::new(),
    }
}

/// Until this gateway has no more than its share, or has asked everybody once.
async fn spread(sessions: &Sessions) {
    let (each, mut asked, mut count) = (Duration::from_secs(10) / sessions.admission.rate(), String::new(), 0);
    let batch = (BATCH.as_micros() / each.as_micros()).max(1) as usize;
    while let Some(above) = above(sessions).await {
        let all = sessions.registry.all().into_iter().filter(|live| live.sandbox > asked && is_quiet(live));
        let ask: Vec<Arc<Live>> = all.take(above.min(batch)).collect();
        let Some(last) = ask.last() else { break };
        asked.clone_from(&last.sandbox);
        for live in ask {
            live.order(Order::Goaway { reason: "another gateway has joined", reconnect_in_ms: 0 });
            sessions.metrics.moves.inc();
            count += 1;
            sleep(each).await;
        }
        sleep(SETTLE).await;
    }
    if count > 0 {
        tracing::info!(sessions = count, "a gateway has joined; sessions were asked to dial again");
    }
}

/// How many sessions this gateway has above its share; `None` where it is not worth a move, or is not to be known.
async fn above(sessions: &Sessions) -> Option<usize> {
    if *sessions.draining.borrow() {
        return None;
    }
    let Standing::Held(held) = sessions.lease.standing() else { return None };
    match sessions.store.sessions_by_owner().await {
        Ok(mut counts) => {
            counts.retain(|id, _| held.there.contains_key(id));
            above_share(&counts, &held.id, held.there.len())
        }
        Err(error) => {
            tracing::debug!(error = reason(&error), "how sessions are spread cannot be read now");
            None
        }
    }
}

/// A tenth above the mean is as good as it.
fn above_share(counts: &BTreeMap<String, usize>, id: &str, gateways: usize) -> Option<usize> {
    let own = counts.get(id).copied().unwrap_or(0);
    let mean = counts.values().sum::<usize>().div_ceil(gateways);
    (own > mean + mean / 10 + 1).then(|| own - mean)
}

/// What would break off by a move is not moved.
fn is_quiet(live: &Live) -> bool {
    live.streams.as_ref().is_none_or(|streams| streams.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_has_more_than_a_tenth_above_the_mean_gives_what_is_above_it() {
        let counts = |of: [usize; 3]| ["a", "b", "c"].map(String::from).into_iter().zip(of).collect::<BTreeMap<_, _>>();
        let above = |of: [usize; 3], id: &str| above_share(&counts(of), id, 3);
        assert_eq!(above([5_000, 5_000, 0], "a"), Some(1_666));
        assert_eq!(above([5_000, 5_000, 0], "c"), None);
        assert_eq!(above([3_600, 3_400, 3_000], "a"), None);
        // Few are not sent about for one of them.
        assert_eq!(above([2, 1, 0], "a"), None);
        // One that nobody has a session at is no row.
        assert_eq!(above_share(&BTreeMap::from([("a".into(), 10)]), "a", 2), Some(5));
        assert_eq!(above_share(&BTreeMap::new(), "a", 1), None);
    }
}
