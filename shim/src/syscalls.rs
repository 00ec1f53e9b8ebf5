//! Which system calls reach the kernel: seccomp.
//!
//! - [`profile`]: the lists of `profiles/`, compiled in.
//! - [`generator`]: a list to a BPF program, as a tree over ranges of numbers.
//! - [`evaluator`]: what a program answers, without a kernel; tests and preflight ask it.
//!
//! Unknown numbers are answered `ENOSYS`: a program that is newer than this list falls back as on an older kernel.

pub mod evaluator;
pub mod generator;
pub mod profile;

use protocol::control::{Failure, Step};

use crate::failure::failed;

/// Install `program`, for this process and all that it starts. Needs `no_new_privs`.
pub fn install(program: &generator::Program) -> Result<(), Failure> {
    seccompiler::apply_filter(program).map_err(|error| {
        let errno = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
        failed(Step::Seccomp, errno, format!("the system call filter was not accepted: {error}"))
    })
}
