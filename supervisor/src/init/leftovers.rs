//! What a lost shim leaves behind. Its orphans are our children now, and nobody else could end them.
//!
//! As PID 1 we also inherit what `kubectl exec` and exec probes left, which is not ours to end while the Pod runs.
//! The difference can be read: a confined process has one seccomp filter more than we have ourselves
//! (`Seccomp_filters` in `proc_pid_status(5)`, Linux 5.9). Best effort: a shim is killed only by the kernel's OOM
//! killer or by root from outside.

use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::{Instant, sleep};

use super::{Reaper, stat};

/// A tree that still grows after this long is left to the end of the Pod.
const PATIENCE: Duration = Duration::from_secs(2);

/// KILL and reap orphans of lost trees until two looks in a row find none.
pub async fn end(reaper: &Reaper) {
    let own_filters = filters("self");
    let until = Instant::now() + PATIENCE;
    let mut clean = 0;
    while clean < 2 && Instant::now() < until {
        if reaper.is_expecting() {
            // A shim that is just being made is no orphan; in a moment its owner is known.
            sleep(Duration::from_millis(1)).await;
            continue;
        }
        let killed =
            kill_children(|pid| !reaper.owns(pid) && (!super::is_pid_1() || filters(&pid.to_string()) > own_filters));
        clean = if killed == 0 { clean + 1 } else { 0 };
        reaper.reap();
        sleep(Duration::from_millis(2)).await;
    }
}

/// KILL every living child that `which` accepts; how many. Their own children become ours and are found next time.
pub fn kill_children(which: impl Fn(i32) -> bool) -> usize {
    let own = std::process::id() as i32;
    let Ok(entries) = std::fs::read_dir("/proc") else { return 0 };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| is_living_child(*pid, own) && which(*pid))
        .filter(|pid| kill(Pid::from_raw(*pid), Signal::SIGKILL).is_ok())
        .count()
}

fn is_living_child(pid: i32, parent: i32) -> bool {
    let stat = stat::read(Path::new("/proc"), pid);
    stat.is_some_and(|stat| stat.parent == parent && !matches!(stat.state, 'Z' | 'X'))
}

fn filters(pid: &str) -> u32 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Seccomp_filters:"));
    line.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}
