//! Measurements of the sandbox: CPU, memory and processes of its cgroup, disk of the workspace, when something happened last, and
//! how long it was idle since.
//! What this node does not tell is left out.

use std::path::Path;
use std::time::Duration;

use nix::sys::statvfs::statvfs;
use serde_json::{Map, Value};

use crate::cgroup::Cgroup;
use crate::machine::clock;
use crate::metrics::Metrics;

/// Since when nothing happens.
pub(super) struct Activity {
    since: Duration,
    work: u64,
}

impl Activity {
    pub(super) fn new(now: Duration) -> Activity {
        Activity { since: now, work: 0 }
    }

    /// How long it was idle, to the length of a sample.
    pub(super) fn idle(&mut self, now: Duration, work: u64) -> Duration {
        if work != self.work {
            (self.since, self.work) = (now, work);
        }
        now.saturating_sub(self.since)
    }
}

/// Grows whenever the agent or a task writes something, a task comes or changes its state.
pub(super) fn work(metrics: &Metrics) -> u64 {
    metrics.tasks.work() + metrics.stdout_bytes.get() + metrics.stderr_bytes.get()
}

/// One sample. Blocks on the file system.
pub(super) fn take(workspace: &Path, idle: Duration) -> Value {
    let mut sample = Map::new();
    let mut put = |name: &str, value: Option<u64>| {
        if let Some(value) = value {
            sample.insert(name.into(), value.into());
        }
    };
    let cgroup = Cgroup::own(Path::new("/proc"));
    put("cpu_us", cgroup.cpu_time_us());
    put("memory_bytes", cgroup.memory_current());
    put("processes", cgroup.pids_current());
    if let Ok(disk) = statvfs(workspace) {
        put("workspace_bytes", Some((disk.blocks() - disk.blocks_free()) * disk.fragment_size()));
        put("workspace_free_bytes", Some(disk.blocks_available() * disk.fragment_size()));
    }
    // By the date of now, as the record has it too; only the span is measured.
    let last = u64::try_from(clock::wall_ms()).unwrap_or(0).saturating_sub(idle.as_millis() as u64);
    put("last_activity_ms", Some(last));
    put("idle_s", Some(idle.as_secs()));
    Value::Object(sample)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_nothing_is_idle_since_its_last_work() {
        let second = Duration::from_secs(1);
        let mut activity = Activity::new(second);
        assert_eq!(activity.idle(5 * second, 0), 4 * second);
        assert_eq!(activity.idle(6 * second, 1), Duration::ZERO);
        assert_eq!(activity.idle(9 * second, 1), 3 * second);
    }

    #[test]
    fn a_sample_has_what_this_node_tells() {
        let sample = take(Path::new("/"), Duration::from_secs(7));
        assert_eq!(sample["idle_s"], 7);
        let ago = clock::wall_ms() - sample["last_activity_ms"].as_i64().expect("a number");
        assert!((7_000..17_000).contains(&ago), "{ago}");
        assert!(sample["workspace_free_bytes"].is_u64());
    }
}
