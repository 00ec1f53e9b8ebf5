//! Exactly 0, 1 and 2 reach the program, and they are open.
//!
//! A leaked directory descriptor was a way out of runc (CVE-2024-21626), and a program that finds 1 closed writes its
//! output into the next file it opens.

use std::os::fd::RawFd;

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit};
use protocol::control::{Failure, Step};

use crate::failure::because;
use crate::kernel;

/// Close everything from 3 on except `control`.
pub fn close_all_but(control: RawFd) -> Result<(), Failure> {
    for number in 0..=2 {
        kernel::is_open(number).map_err(because(Step::Descriptors, format!("descriptor {number} must be open")))?;
    }
    let below = if control > 3 { kernel::close_range(3, control - 1, 0) } else { Ok(()) };
    match below.and_then(|()| kernel::close_range(control + 1, RawFd::MAX, 0)) {
        Err(Errno::ENOSYS | Errno::EPERM) => close_one_by_one(control),
        other => other.map_err(because(Step::Descriptors, "closing inherited descriptors")),
    }
}

/// Mark everything from 3 on to be closed by `execve`, so that no step of the child can have forgotten to.
pub fn close_on_exec() -> Result<(), Failure> {
    match kernel::close_range(3, RawFd::MAX, libc::CLOSE_RANGE_CLOEXEC) {
        // Older than Linux 5.11: everything that the shim opens is close-on-exec from birth.
        Err(Errno::ENOSYS | Errno::EPERM | Errno::EINVAL) => Ok(()),
        other => other.map_err(because(Step::Descriptors, "marking descriptors close-on-exec")),
    }
}

/// Without `close_range(2)`: what `/proc` lists, or, where that is hidden, every number that the limit allows.
fn close_one_by_one(control: RawFd) -> Result<(), Failure> {
    let listed = std::fs::read_dir("/proc/self/fd").map(|numbers| {
        numbers.filter_map(|number| number.ok()?.file_name().to_str()?.parse().ok()).collect::<Vec<RawFd>>()
    });
    let numbers = match listed {
        Ok(numbers) => numbers,
        Err(_) => {
            let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)
                .map_err(because(Step::Descriptors, "reading the limit of open files"))?;
            (3..RawFd::try_from(hard).unwrap_or(RawFd::MAX)).collect()
        }
    };
    numbers.into_iter().filter(|&number| number > 2 && number != control).for_each(kernel::close);
    Ok(())
}
