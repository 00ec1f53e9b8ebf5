//! Sessions: a supervisor dials, says hello, and from then on what it sends is stored and acknowledged.
//!
//! Promises: nothing is acknowledged that is not stored; a sandbox has one session, the newest; every bad input ends with
//! a named code (`protocol::session::close`), one log line and one count, and touches no other session; what a session holds
//! in memory is bounded, whatever its peer sends or does not read; a store that refuses ends sessions with 4503, and what was
//! not acknowledged comes again.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tokio::sync::watch;

use crate::admission::Admission;
use crate::awake::Awake;
use crate::identity::Identity;
use crate::lease::Lease;
use crate::metrics::Metrics;
use crate::registry::Registry;
use crate::signing::Signer;
use crate::store::Store;
use crate::tokens::Tokens;

pub mod balance;
mod drain;
pub(crate) mod end;
pub(crate) mod hello;
mod outbox;
pub(crate) mod sequence;
mod session;
mod streams;
mod under_way;
mod upgrade;
pub(crate) mod wire;

pub use drain::drain;
pub use streams::{Stream, Streams};
pub use upgrade::accept;

/// What all sessions work with. Shared.
pub struct Sessions {
    /// Where records go.
    pub store: Store,
    /// Who is alive.
    pub registry: Registry,
    /// Who may begin now.
    pub admission: Admission,
    /// Who may dial in, beside those whom the store knows.
    pub tokens: Option<Tokens>,
    /// Pods that dial with their own tokens.
    pub identity: Option<Identity>,
    /// Signs calls past sessions.
    pub signer: Signer,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// This gateway's place among several.
    pub lease: Lease,
    /// Measures silence.
    pub awake: Awake,
    /// T.
    pub beat: Duration,
    /// No session begins any more.
    pub draining: watch::Receiver<bool>,
    /// How many have begun: spreads their beats.
    pub begun: AtomicU64,
}

impl Sessions {
    /// Where in T the beats of the next session lie: multiples of the golden ratio lie as far from each other as they can.
    fn next_phase(&self) -> Duration {
        let n = self.begun.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.beat.mul_f64((n as f64 * 0.618_033_988_749_895).fract())
    }
}
