//! A run that a person stops ends at its next pause as if something had failed, so that whatever it has started ends with it.

use std::panic::{UnwindSafe, catch_unwind, resume_unwind};
use std::process::ExitCode;
use std::sync::atomic::{AtomicI32, Ordering};
use std::thread;

use nix::sys::signal::{SigSet, Signal};

/// The signal that came.
static CAME: AtomicI32 = AtomicI32::new(0);

/// What goes up the stack to [`run`].
struct Interrupted;

/// What `what` makes of it; or, where SIGINT, SIGTERM or SIGHUP came and it has [`check`]ed, the exit code of a program that has ended by it. A
/// second one ends this process at once. To be called before there are other threads, which inherit the mask; programs that are started do not.
pub fn run<T>(what: impl FnOnce() -> T + UnwindSafe) -> Result<T, ExitCode> {
    let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]);
    signals.thread_block().expect("known signals");
    thread::spawn(move || {
        while let Ok(signal) = signals.wait() {
            if CAME.swap(signal as i32, Ordering::Relaxed) != 0 {
                std::process::exit(code(signal as i32).into());
            }
        }
    });
    catch_unwind(what).map_err(|why| match why.is::<Interrupted>() {
        true => ExitCode::from(code(CAME.load(Ordering::Relaxed))),
        false => resume_unwind(why),
    })
}

/// Where a run may end early.
pub fn check() {
    if CAME.load(Ordering::Relaxed) != 0 {
        resume_unwind(Box::new(Interrupted));
    }
}

/// As a shell tells it.
fn code(signal: i32) -> u8 {
    128 + signal as u8
}
