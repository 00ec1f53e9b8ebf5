//! Who is alive now: the sessions of this process, one for each sandbox.
//!
//! What a sandbox is follows from its live session and its row, whenever somebody asks: `connected` while it has a session,
//! then `disconnected` (it goes on alone; it has not failed), `expired` once it has been away for longer than the Y that it
//! told, and `gone` when it said that it would not come back.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use protocol::session::close;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::sessions::Streams;

/// What a session is told from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Go on.
    Run,
    /// Ask the supervisor to dial again after so long.
    Goaway {
        /// For people.
        reason: &'static str,
        /// The reserved time.
        reconnect_in_ms: u64,
    },
    /// End with this code.
    Close(u16, &'static str),
}

/// What a sandbox told of itself last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Of the state.
    pub digest: String,
    /// The state.
    pub json: String,
}

/// One live session as others see it.
#[derive(Debug)]
pub struct Live {
    /// Whose.
    pub sandbox: String,
    /// Its own number; the highest counts.
    pub fence: i64,
    /// When it began, by the wall clock.
    pub begun_ms: i64,
    /// When it could be found here.
    entered: OnceLock<Instant>,
    /// When it was heard last.
    pub heard_ms: AtomicI64,
    /// Byte streams to the sandbox; `None` where it cannot have any.
    pub streams: Option<Arc<Streams>>,
    state: Mutex<Option<Told>>,
    orders: watch::Sender<Order>,
    /// There may be commands that were not sent yet.
    commands: AtomicBool,
    wake: Arc<Notify>,
}

impl Live {
    /// A session that begins.
    pub fn new(sandbox: String, fence: i64, now_ms: i64, streams: bool) -> Live {
        let wake = Arc::new(Notify::new());
        Live {
            sandbox,
            fence,
            begun_ms: now_ms,
            entered: OnceLock::new(),
            heard_ms: AtomicI64::new(now_ms),
            streams: streams.then(|| Arc::new(Streams::new(wake.clone()))),
            state: Mutex::new(None),
            orders: watch::Sender::new(Order::Run),
            commands: AtomicBool::new(true),
            wake,
        }
    }

    /// Tell it. A close is final.
    pub fn order(&self, order: Order) {
        self.orders.send_if_modified(|current| {
            let replace = !matches!(current, Order::Close(..));
            if replace {
                *current = order;
            }
            replace
        });
    }

    /// Close: a newer one has begun at another gateway.
    pub fn give_way(&self) {
        self.order(Order::Close(close::FENCED, "a newer session of this agent is at another gateway"));
    }

    /// Since when it can be found, and what ends sessions finds it.
    pub fn entered(&self) -> Instant {
        self.entered.get().copied().unwrap_or_else(Instant::now)
    }

    /// Whether it was told to go, and has not gone yet.
    pub fn is_asked_to_go(&self) -> bool {
        *self.orders.borrow() != Order::Run
    }

    /// What it was told, now and later.
    pub fn orders(&self) -> watch::Receiver<Order> {
        self.orders.subscribe()
    }

    /// There is a new command in the store.
    pub fn tell_of_commands(&self) {
        self.commands.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    /// Whether that was told since the last time.
    pub fn take_commands(&self) -> bool {
        self.commands.swap(false, Ordering::AcqRel)
    }

    /// Comes when there may be something new to send.
    pub async fn woken(&self) {
        self.wake.notified().await;
    }

    /// What it is doing.
    pub fn state(&self) -> Option<Told> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The newest counts.
    pub fn set_state(&self, state: Told) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = Some(state);
    }

    /// Whether it is the state with this digest.
    pub fn has_state(&self, digest: &str) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.as_ref().is_some_and(|state| state.digest == digest)
    }
}

/// All live sessions. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Registry(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    live: Mutex<HashMap<String, Arc<Live>>>,
    /// Dials that were let in and are no session yet.
    coming: AtomicUsize,
    entered: Notify,
    left: Notify,
}

/// A dial that was let in: until this is dropped there may be a session more.
#[derive(Debug)]
pub struct Coming(Registry);

impl Drop for Coming {
    fn drop(&mut self) {
        self.0.0.coming.fetch_sub(1, Ordering::AcqRel);
        self.0.0.left.notify_waiters();
    }
}

impl Registry {
    /// A dial is let in.
    pub fn coming(&self) -> Coming {
        self.0.coming.fetch_add(1, Ordering::AcqRel);
        Coming(self.clone())
    }

    /// The sandbox's session from now on; the one before is closed. `false` where a newer one is there already.
    pub fn enter(&self, live: &Arc<Live>) -> bool {
        let mut all = self.lock();
        if let Some(other) = all.get(&live.sandbox) {
            if other.fence > live.fence {
                return false;
            }
            other.order(Order::Close(close::FENCED, "a newer session of this agent has taken over"));
        }
        all.insert(live.sandbox.clone(), live.clone());
        live.entered.get_or_init(Instant::now);
        self.0.entered.notify_waiters();
        true
    }

    /// Comes when a session of anybody begins, from this call on.
    pub fn entered(&self) -> impl Future<Output = ()> + '_ {
        self.0.entered.notified()
    }

    /// The sandbox is no more, so its session ends.
    pub fn deleted(&self, sandbox: &str) {
        if let Some(live) = self.get(sandbox) {
            live.order(Order::Close(close::UNAUTHENTICATED, "the sandbox was deleted"));
        }
    }

    /// It has ended.
    pub fn leave(&self, live: &Live) {
        let mut all = self.lock();
        if all.get(&live.sandbox).is_some_and(|current| current.fence == live.fence) {
            all.remove(&live.sandbox);
            self.0.left.notify_waiters();
        }
    }

    /// Comes when there is none, and none is about to be.
    pub async fn emptied(&self) {
        loop {
            let left = self.0.left.notified();
            // In this order: who has come since is in the other.
            if self.0.coming.load(Ordering::Acquire) == 0 && self.is_empty() {
                return;
            }
            left.await;
        }
    }

    /// The live session of a sandbox; none that was told to close, since nobody may count on it any more.
    pub fn get(&self, sandbox: &str) -> Option<Arc<Live>> {
        self.held(sandbox).filter(|live| !matches!(*live.orders.borrow(), Order::Close(..)))
    }

    /// The same, and also one that is about to end.
    pub fn held(&self, sandbox: &str) -> Option<Arc<Live>> {
        self.lock().get(sandbox).cloned()
    }

    /// All of them, by name: the same in each run of a simulation.
    pub fn all(&self) -> Vec<Arc<Live>> {
        let mut all: Vec<_> = self.lock().values().cloned().collect();
        all.sort_unstable_by(|one, other| one.sandbox.cmp(&other.sandbox));
        all
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Live>>> {
        self.0.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a sandbox is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It has never dialled in.
    New,
    /// It has a live session.
    Connected,
    /// It goes on alone.
    Disconnected,
    /// It has been away for longer than its Y.
    Expired,
    /// It said that it would not come back.
    Gone,
}

impl Status {
    /// All, for metrics and queries.
    pub const ALL: [Status; 5] = [Status::New, Status::Connected, Status::Disconnected, Status::Expired, Status::Gone];

    /// The word in JSON, metrics and queries.
    pub const fn name(self) -> &'static str {
        match self {
            Status::New => "new",
            Status::Connected => "connected",
            Status::Disconnected => "disconnected",
            Status::Expired => "expired",
            Status::Gone => "gone",
        }
    }
}
