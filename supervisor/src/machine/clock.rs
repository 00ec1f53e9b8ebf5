//! The boot clock (`CLOCK_BOOTTIME`): it goes on while the machine is suspended or this process is stopped, and nobody can
//! set it. What the link has to do at its time, after a suspension too, is measured on it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

/// Since the machine was started.
pub(super) fn now() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}

/// The same, as records and frames have it.
pub(crate) fn boot_ms() -> i64 {
    now().as_millis() as i64
}

/// What the wall clock says, as records and frames have it.
pub(crate) fn wall_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as i64)
}
