//! A run that a person stops ends at its next wait as if something had failed, so that whatever it has started ends with it.

use std::panic::{UnwindSafe, catch_unwind, resume_unwind};
use std::process::ExitCode;
use std::sync::atomic::{AtomicI32, Ordering};
use std::thread;

use tokio::runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signal that came.
static CAME: AtomicI32 = AtomicI32::new(0);

/// What goes up the stack to [`run`].
struct Interrupted;

/// What `what` makes; or, where SIGINT, SIGTERM or SIGHUP came before it was through, the exit code of a program that has ended by it. A
/// second one ends this process at once. They are caught and not blocked: programs inherit what is blocked (signal(7)), and a gateway
/// would not hear that it is to end.
pub fn run<T>(what: impl FnOnce() -> T + UnwindSafe) -> Result<T, ExitCode> {
    let runtime = runtime::Builder::new_current_thread().enable_io().build().expect("a few descriptors");
    let signals = {
        let _inside = runtime.enter();
        [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()]
            .map(|kind| (kind.as_raw_value(), signal(kind).expect("it can be caught")))
    };
    thread::spawn(move || runtime.block_on(note(signals)));
    let made = catch_unwind(what);
    match (CAME.load(Ordering::Relaxed), made) {
        (0, Ok(made)) => Ok(made),
        (0, Err(why)) => resume_unwind(why),
        (number, _) => Err(ExitCode::from(code(number))),
    }
}

async fn note([mut first, mut second, mut third]: [(i32, Signal); 3]) {
    loop {
        let number = tokio::select! {
            _ = first.1.recv() => first.0,
            _ = second.1.recv() => second.0,
            _ = third.1.recv() => third.0,
        };
        if CAME.swap(number, Ordering::Relaxed) != 0 {
            std::process::exit(code(number).into());
        }
    }
}

/// Where a run may end early; in every wait, too.
pub fn check() {
    if CAME.load(Ordering::Relaxed) != 0 && !thread::panicking() {
        resume_unwind(Box::new(Interrupted));
    }
}

/// As a shell tells it.
fn code(signal: i32) -> u8 {
    128 + signal as u8
}
