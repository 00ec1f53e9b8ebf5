//! The end of all sessions when the gateway stops: goodbyes with space between them, so that what comes after it is not met
//! by the whole fleet at once.

use std::time::Duration;

use protocol::session::close;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::Sessions;
use crate::registry::Order;

/// How long a supervisor may take to go after the last goodbye.
const LEAVE: Duration = Duration::from_secs(5);
/// Between two looks at who has not gone.
const AGAIN: Duration = Duration::from_millis(250);
/// Left of the deadline for closing those that have not gone.
const CLOSE: Duration = Duration::from_secs(3);

/// Ask every supervisor to dial again, half as many in a second as may begin in one: at once where another gateway is there to take it,
/// else when this one's successor is; close what is left. Comes back when
/// no session is left, at the latest at `deadline`.
pub async fn drain(sessions: &Sessions, deadline: Instant) {
    let begin = Instant::now();
    let all = sessions.registry.all();
    let count = u32::try_from(all.len()).unwrap_or(u32::MAX).max(1);
    let (window, step) = (sessions.admission.window(), Duration::from_secs(2) / sessions.admission.rate());
    let span = (step * count).min((deadline - begin) * 3 / 5);
    let others = sessions.lease.gateways() > 1;
    for (place, live) in (0..).zip(&all) {
        let at = begin + span * place / count;
        sleep_until(at).await;
        // Not before this gateway has gone, and each at its own place in the window.
        let wait = match others {
            true => Duration::ZERO,
            false => (begin + span).saturating_duration_since(at) + window * place / count,
        };
        live.order(goaway(wait));
    }
    let leave = (Instant::now() + LEAVE).min(deadline.checked_sub(CLOSE).unwrap_or(begin));
    if timeout_at(leave, sessions.registry.emptied()).await.is_err() {
        let _ = timeout_at(deadline, close_all(sessions)).await;
    }
}

/// Again and again: one that was about to begin may do so meanwhile.
async fn close_all(sessions: &Sessions) {
    loop {
        for live in sessions.registry.all() {
            live.order(Order::Close(close::GOING_AWAY, "the gateway stops"));
        }
        if timeout(AGAIN, sessions.registry.emptied()).await.is_ok() {
            return;
        }
    }
}

/// For a session that was about to begin when the drain did: one of a few.
pub(super) fn late(sessions: &Sessions) -> Order {
    goaway(if sessions.lease.gateways() > 1 { Duration::ZERO } else { sessions.admission.window() })
}

fn goaway(wait: Duration) -> Order {
    let reconnect_in_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
    Order::Goaway { reason: "the gateway stops", reconnect_in_ms }
}
