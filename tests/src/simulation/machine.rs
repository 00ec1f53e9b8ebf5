//! The machine of one simulated sandbox: its clocks, its chance, its way to the gateway.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use peer::{PeerError, Stream};
use supervisor::machine::{Later, StandIn};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::chance::Chance;
use super::net::Net;

/// The longest that a disk takes, before it has done what it is asked, and behind it. A record is synced half its window (25 ms) after
/// the disk began to write it, or when it has done what it had begun before that: so in time where it takes 12 ms for anything.
const DISK: Duration = Duration::from_millis(5);

/// Shared by all lives of the sandbox.
pub(super) struct Simulated {
    sandbox: usize,
    net: Net,
    begun: Instant,
    state: Arc<Mutex<State>>,
    leapt: Arc<Notify>,
}

struct State {
    chance: Chance,
    /// By how much the boot clock is ahead of virtual time.
    ahead: Duration,
    /// What the wall clock said when the boot clock was 0, Unix milliseconds.
    wall_ms: i64,
}

impl Simulated {
    pub(super) fn new(sandbox: usize, net: Net, chance: Chance) -> Simulated {
        // A machine that has been on for an hour, in 2026.
        let state = State { chance, ahead: Duration::from_secs(3600), wall_ms: 1_790_000_000_000 };
        let state = Arc::new(Mutex::new(state));
        Simulated { sandbox, net, begun: Instant::now(), state, leapt: Arc::default() }
    }

    /// It was suspended for so long.
    pub(super) fn leap(&self, time: Duration) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).ahead += time;
        self.leapt.notify_waiters();
    }

    /// Somebody sets the wall clock.
    pub(super) fn set_wall(&self, by_ms: i64) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).wall_ms += by_ms;
    }
}

fn boot(begun: Instant, state: &Mutex<State>) -> Duration {
    begun.elapsed() + state.lock().unwrap_or_else(PoisonError::into_inner).ahead
}

impl StandIn for Simulated {
    fn boot(&self) -> Duration {
        boot(self.begun, &self.state)
    }

    fn wall(&self) -> Duration {
        let wall_ms = self.state.lock().unwrap_or_else(PoisonError::into_inner).wall_ms;
        Duration::from_millis(wall_ms.unsigned_abs()) + self.boot()
    }

    fn until(&self, when: Duration) -> Later<()> {
        let (begun, state, leapt) = (self.begun, self.state.clone(), self.leapt.clone());
        Box::pin(async move {
            loop {
                let leapt = leapt.notified();
                let now = boot(begun, &state);
                if now >= when {
                    return;
                }
                tokio::select! {
                    biased;
                    () = leapt => {}
                    () = sleep(when - now) => {}
                }
            }
        })
    }

    fn random(&self) -> f64 {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).chance.part()
    }

    fn disk(&self) -> Later<()> {
        let most = DISK.as_micros() as u64;
        let chance = &mut self.state.lock().unwrap_or_else(PoisonError::into_inner).chance;
        // Mostly none that anybody would notice: a cache took it.
        let takes = if chance.once_in(3) { Duration::from_micros(chance.between(1, most)) } else { Duration::ZERO };
        Box::pin(async move {
            if !takes.is_zero() {
                sleep(takes).await;
            }
        })
    }

    fn connect(&self, _: &str, _: u16) -> Later<Result<Box<dyn Stream>, PeerError>> {
        let dialled = self.net.clone().dial(self.sandbox);
        Box::pin(async move { dialled.await.map(|end| Box::new(end) as Box<dyn Stream>) })
    }
}
