//! Wakes at a moment of the boot clock: after a suspension at once, where a timer of the event loop would still wait for
//! the rest of its time.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::Duration;

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::clock::now;

/// One timer.
pub(crate) struct Alarm {
    timer: AsyncFd<Timer>,
    set: Option<Duration>,
}

/// tokio wants its number.
struct Timer(TimerFd);

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// Until that moment.
pub(super) async fn until(when: Duration) {
    let rung = match Alarm::new() {
        Ok(mut alarm) => alarm.at(when).await,
        Err(error) => Err(error),
    };
    if rung.is_err() {
        // Out of descriptors, for instance: less exact, and never a reason to stop waiting.
        tokio::time::sleep(when.saturating_sub(now()).max(Duration::from_secs(1))).await;
    }
}

impl Alarm {
    pub(super) fn new() -> io::Result<Alarm> {
        let timer = TimerFd::new(ClockId::CLOCK_BOOTTIME, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
        // SAFETY: `Timer` owns its descriptor, answers `as_raw_fd` with it alone, and closes it only when dropped; it lives
        // inside the `AsyncFd`, whose field is private and never taken out.
        let timer = unsafe { AsyncFd::register_with_interest(Timer(timer), Interest::READABLE) }?;
        Ok(Alarm { timer, set: None })
    }

    /// Until that moment. It can be given up and asked for again, with another moment too.
    pub(super) async fn at(&mut self, when: Duration) -> io::Result<()> {
        if self.set != Some(when) {
            // Zero would disarm it.
            let at = TimeSpec::from_duration(when.max(Duration::from_nanos(1)));
            self.timer.get_ref().0.set(Expiration::OneShot(at), TimerSetTimeFlags::TFD_TIMER_ABSTIME)?;
            self.set = Some(when);
        }
        while now() < when {
            let mut ready = self.timer.readable().await?;
            if now() >= when {
                break;
            }
            // Readiness of a moment that was given up.
            ready.clear_ready();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_rings_at_its_moment_and_can_be_set_again() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        runtime.block_on(async {
            let mut alarm = Alarm::new().expect("a timer");
            alarm.at(Duration::ZERO).await.expect("the past");
            let (far, near) = (now() + Duration::from_secs(3600), now() + Duration::from_millis(20));
            tokio::select! {
                biased;
                _ = alarm.at(far) => panic!("an hour too early"),
                () = tokio::task::yield_now() => {}
            }
            alarm.at(near).await.expect("the new moment");
            assert!(now() >= near);
            let next = now() + Duration::from_millis(20);
            alarm.at(next).await.expect("once more");
            assert!(now() >= next);
        });
    }
}
