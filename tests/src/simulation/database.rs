//! The gateway's database in a simulation: a real SQLite file that takes no virtual time, but where it is told to take some or to fail.

use std::future::poll_fn;
use std::io;
use std::path::Path;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Wake, Waker, ready};
use std::thread::{self, Thread};
use std::time::Duration;

use gateway::store;
use tokio::runtime::{self, Runtime};
use tokio::task::unconstrained;
use tokio::time::{Instant, sleep};

/// The runtime of everybody's databases: it is no part of a simulation, and its time is real.
fn databases() -> &'static Runtime {
    static DATABASES: OnceLock<Runtime> = OnceLock::new();
    DATABASES.get_or_init(|| {
        let runtime = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        runtime.expect("a thread and a few descriptors")
    })
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Run it to its end on this thread: virtual time stands still meanwhile. Timers and tasks in there are those of [`databases`].
fn wait(future: Pin<&mut (dyn Future<Output = ()> + '_)>) {
    let _there = databases().enter();
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    // The budget of the task that we are in is not filled up while we wait here.
    let mut future = pin!(unconstrained(future));
    while future.as_mut().poll(&mut context).is_pending() {
        thread::park();
    }
}

/// The same with an answer.
pub(super) fn in_place<T>(future: impl Future<Output = T>) -> T {
    let mut answer = None;
    wait(pin!(async { answer = Some(future.await) }));
    answer.expect("it has ended")
}

pub(super) fn url(place: &Path) -> String {
    format!("sqlite:{}", place.join("gateway.db").display())
}

/// An empty store in `place`.
pub(super) fn make_store(place: &Path) {
    static EMPTY: OnceLock<Vec<u8>> = OnceLock::new();
    let empty = EMPTY.get_or_init(|| {
        let place = tempfile::tempdir().expect("a directory");
        in_place(store::migrate::up(&url(place.path()))).expect("a new database");
        std::fs::read(place.path().join("gateway.db")).expect("it was just made")
    });
    std::fs::write(place.join("gateway.db"), empty).expect("our own directory");
}

/// What is wrong with it.
#[derive(Clone)]
pub(super) struct Database(Arc<Mutex<Ills>>);

struct Ills {
    /// Until then nothing is written.
    slow: Instant,
    /// Until then it fails.
    fails: Instant,
    /// Where it fails, it does what it is asked for, and does not say so.
    does: bool,
}

impl Database {
    pub(super) fn new() -> Database {
        let now = Instant::now();
        Database(Arc::new(Mutex::new(Ills { slow: now, fails: now, does: false })))
    }

    fn ills(&self) -> MutexGuard<'_, Ills> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing is written for so long.
    pub(super) fn slow(&self, time: Duration) {
        self.ills().slow = Instant::now() + time;
    }

    /// It fails for so long; where it `does` what it is asked for, it only does not say so.
    pub(super) fn fail(&self, time: Duration, does: bool) {
        let mut ills = self.ills();
        (ills.fails, ills.does) = (Instant::now() + time, does);
    }

    /// It fails no more.
    pub(super) fn fail_no_more(&self) {
        self.fail(Duration::ZERO, false);
    }

    /// Nothing is wrong any more.
    pub(super) fn heal(&self) {
        self.slow(Duration::ZERO);
        self.fail_no_more();
    }

    /// Goes on with the work of its writer only while it is not slow.
    pub(super) async fn hold_up(self, work: impl Future<Output = ()>) {
        let (mut work, mut timer) = (pin!(work), pin!(sleep(Duration::ZERO)));
        poll_fn(|context| {
            let until = self.ills().slow;
            if until > Instant::now() {
                timer.as_mut().reset(until);
                ready!(timer.as_mut().poll(context));
            }
            work.as_mut().poll(context)
        })
        .await;
    }

    /// Do what it is asked for, as far as it does.
    pub(super) fn work(&self, work: Pin<&mut (dyn Future<Output = ()> + '_)>) -> io::Result<()> {
        let (fails, does) = {
            let ills = self.ills();
            (ills.fails > Instant::now(), ills.does)
        };
        if does || !fails {
            wait(work);
        }
        if fails { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}
