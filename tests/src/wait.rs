//! Waiting for conditions, never for time.

use std::time::{Duration, Instant};

use crate::interrupt;

/// Long enough for anything on a busy machine; a test that gets here has failed.
pub const LONG: Duration = Duration::from_secs(60);

/// Ask until `condition` has an answer; panics with `what` after [`LONG`].
#[track_caller]
pub fn wait_for<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    within(LONG, condition).unwrap_or_else(|| panic!("waited {LONG:?} in vain: {what}"))
}

/// Ask until `condition` holds; panics with `what` after [`LONG`].
#[track_caller]
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    wait_for(what, || condition().then_some(()));
}

/// Ask until there is an answer or the limit has passed.
pub fn within<T>(limit: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = condition() {
            return Some(answer);
        }
        if Instant::now() >= deadline {
            return None;
        }
        interrupt::check();
        std::thread::sleep(Duration::from_millis(5));
    }
}
