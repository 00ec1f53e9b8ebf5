//! The signal descriptor on the event loop.
#![allow(unsafe_code)]

use std::io;

use nix::sys::signal::SigSet;
use nix::sys::signalfd::{SfdFlags, SignalFd, siginfo};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Every blocked signal, as it arrives.
pub(super) struct Source(AsyncFd<SignalFd>);

impl Source {
    pub(super) fn new() -> io::Result<Source> {
        let descriptor = SignalFd::with_flags(&SigSet::all(), SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        // SAFETY: `SignalFd` owns its descriptor, answers `as_raw_fd` with it alone, and closes it only when dropped;
        // it lives inside the `AsyncFd`, whose field is private and never taken out.
        Ok(Source(unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }?))
    }

    /// Waits until there is something, then hands every signal to `take`.
    pub(super) async fn each(&self, take: impl Fn(siginfo)) -> io::Result<()> {
        let mut ready = self.0.readable().await?;
        while let Some(info) = ready.get_inner().read_signal()? {
            take(info);
        }
        ready.clear_ready();
        Ok(())
    }
}
