//! The container's limits.

use serde::Serialize;

use crate::cgroup::Cgroup;

/// `None` where there is none or it cannot be read.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Limits {
    /// 1 or 2: where the memory limit lives. `None` where no hierarchy is mounted.
    pub version: Option<u32>,
    /// Bytes of memory, the smallest limit on the way up.
    pub memory_max: Option<u64>,
    /// Bytes of memory in use.
    pub memory_current: Option<u64>,
    /// Processes and threads.
    pub pids_max: Option<u64>,
    /// Processor time per time, in cores.
    pub cpus: Option<f64>,
    /// Version 2: an out-of-memory kill takes the whole container, the supervisor included.
    pub oom_kills_all: Option<bool>,
}

impl Limits {
    /// As they are now.
    pub(super) fn of(cgroup: &Cgroup) -> Limits {
        Limits {
            version: cgroup.version(),
            memory_max: cgroup.memory_max(),
            memory_current: cgroup.memory_current(),
            pids_max: cgroup.pids_max(),
            cpus: cgroup.cpus(),
            oom_kills_all: cgroup.oom_kills_all(),
        }
    }
}
