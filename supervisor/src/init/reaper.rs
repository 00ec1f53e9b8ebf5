//! The only place that waits for children.
//!
//! `waitpid(-1)` anywhere else would steal an exit from its owner; `tokio::process` does exactly that. Each exit is
//! looked at first and taken second, so that the pid stays taken until its owner has been looked up.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use protocol::control::Exit;
use tokio::sync::oneshot;

use super::wait;
use crate::metrics::Metrics;

/// Shared by those who start children.
#[derive(Clone)]
pub struct Reaper {
    owned: Arc<Mutex<HashMap<i32, oneshot::Sender<Exit>>>>,
    /// Children that are being made for us, whose pids we do not know yet.
    expected: Arc<AtomicUsize>,
    metrics: Arc<Metrics>,
}

/// A child that another process is making for us (`CLONE_PARENT`). Until this is dropped no child is taken for an
/// orphan.
pub struct Expected<'a>(&'a Reaper);

impl Expected<'_> {
    /// The child is `pid`. `None` where that is no child of ours: it was killed, and reaped before its pid was known.
    pub fn own(self, pid: i32) -> Option<oneshot::Receiver<Exit>> {
        let receiver = self.0.own(pid);
        if wait::is_child(pid) {
            return Some(receiver);
        }
        self.0.owned.lock().unwrap_or_else(PoisonError::into_inner).remove(&pid);
        None
    }
}

impl Drop for Expected<'_> {
    fn drop(&mut self) {
        self.0.expected.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Reaper {
    /// Nobody is owned yet; who is not owned is an orphan.
    pub fn new(metrics: Arc<Metrics>) -> Reaper {
        Reaper { owned: Arc::default(), expected: Arc::default(), metrics }
    }

    /// The exit of `pid` goes to the receiver. Call on the event loop's thread right after the child was started,
    /// with no await between.
    pub fn own(&self, pid: i32) -> oneshot::Receiver<Exit> {
        let (sender, receiver) = oneshot::channel();
        self.owned.lock().unwrap_or_else(PoisonError::into_inner).insert(pid, sender);
        receiver
    }

    /// Announce a child that another process makes for us.
    pub fn expect(&self) -> Expected<'_> {
        self.expected.fetch_add(1, Ordering::Relaxed);
        Expected(self)
    }

    /// Whether a child may be there whose pid we do not know yet.
    pub fn is_expecting(&self) -> bool {
        self.expected.load(Ordering::Relaxed) > 0
    }

    /// Whether `pid` is a child that somebody of ours started.
    pub fn owns(&self, pid: i32) -> bool {
        self.owned.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&pid)
    }

    /// Whether any child, living or dead, is left.
    pub fn has_children(&self) -> bool {
        wait::has_children()
    }

    /// Take every child that has ended; how many.
    pub fn reap(&self) -> usize {
        let mut taken = 0;
        while let Some(pid) = wait::look() {
            let owner = self.owned.lock().unwrap_or_else(PoisonError::into_inner).remove(&pid);
            let Some(exit) = wait::take(pid) else { continue };
            taken += 1;
            match owner {
                // An owner who no longer listens has given up on the answer, not on the reaping.
                Some(owner) => drop(owner.send(exit)),
                None => {
                    self.metrics.orphans_reaped.inc();
                }
            }
        }
        taken
    }
}
