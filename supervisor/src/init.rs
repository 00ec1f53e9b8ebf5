//! PID 1 duties: signals come in through one descriptor, zombies go out through one waiter.
//!
//! Invariants: every signal is blocked before the first thread or child exists, so none is lost and none interrupts
//! a call; [`Reaper`] is the only place in the process that waits for children; starting a child and reaping happen
//! on one thread, so that an exit is never seen before its owner is known.

use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use tokio::sync::{mpsc, watch};

pub mod leftovers;
mod reaper;
pub mod signals;
mod source;
pub(crate) mod stat;
mod wait;

pub use reaper::Reaper;
use signals::{Incoming, Meaning};
use source::Source;

/// What is asked of the process from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// End the agent and everything else, forwarding this signal first.
    Stop(i32),
    /// Pass this signal to the agent.
    Forward(i32),
}

/// Could not set up.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The signal descriptor.
    #[error("cannot read signals through a descriptor")]
    Signals(#[source] std::io::Error),
}

/// Block every signal. Call first in `main`: PID 1 gets no signal that has no handler, and what is blocked is kept.
pub fn block_signals() -> nix::Result<()> {
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), None)
}

/// Adopt orphans: as PID 1 the kernel already gives them to us, elsewhere `PR_SET_CHILD_SUBREAPER` does.
pub fn adopt_orphans() -> nix::Result<()> {
    if is_pid_1() { Ok(()) } else { nix::sys::prctl::set_child_subreaper(true) }
}

/// Whether this process is the init of its pid namespace.
pub fn is_pid_1() -> bool {
    std::process::id() == 1
}

/// The part that reads signals and reaps.
pub struct Init {
    source: Source,
    reaper: Reaper,
    rules: signals::Rules,
    stops: watch::Sender<Stops>,
    forwards: mpsc::Sender<i32>,
}

/// The stop signals so far. Never dropped, never queued: the last one and how many there were is all there is to them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stops {
    /// How many.
    pub count: u32,
    /// The last; or, where none came, SIGTERM once [`begin`](Stops::begin) was called.
    pub signal: i32,
}

impl Stops {
    /// Stop as SIGTERM would. It counts as no signal: one that comes before has begun a stop already, and the first that comes
    /// after does not shorten this one.
    pub fn begin(stops: &watch::Sender<Stops>) {
        stops.send_if_modified(|stops| {
            let first = stops.signal == 0;
            if first {
                stops.signal = Signal::SIGTERM as i32;
            }
            first
        });
    }
}

impl Init {
    /// `stops` is told of stop signals, `forwards` gets what is for the agent; what the agent is too busy to be given
    /// is dropped and said.
    pub fn new(
        reaper: Reaper,
        rules: signals::Rules,
        stops: watch::Sender<Stops>,
        forwards: mpsc::Sender<i32>,
    ) -> Result<Init, InitError> {
        let source = Source::new().map_err(InitError::Signals)?;
        Ok(Init { source, reaper, rules, stops, forwards })
    }

    /// Until dropped.
    pub async fn run(self) {
        loop {
            let read = self.source.each(|info| {
                self.take(Incoming { signal: info.ssi_signo as i32, sender: info.ssi_pid });
            });
            if let Err(error) = read.await {
                tracing::error!(%error, "signals can no longer be read");
                return;
            }
            // One SIGCHLD may stand for many exits, and other signals may have hidden one: always look.
            self.reaper.reap();
        }
    }

    fn take(&self, incoming: Incoming) {
        match self.rules.meaning(incoming) {
            Meaning::Child | Meaning::Nothing => {}
            Meaning::FromInside => tracing::warn!(
                signal = incoming.signal,
                sender = incoming.sender,
                "ignored a stop signal from inside the Pod; SUPERVISOR_SIGNALS_FROM_INSIDE=true obeys it"
            ),
            Meaning::Ask(Request::Stop(signal)) => {
                self.stops.send_modify(|stops| *stops = Stops { count: stops.count + 1, signal });
            }
            Meaning::Ask(Request::Forward(signal)) => {
                if self.forwards.try_send(signal).is_err() {
                    tracing::warn!(signal = incoming.signal, "dropped a signal: earlier ones are still being handled");
                }
            }
        }
    }
}
