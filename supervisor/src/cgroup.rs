//! Our own control group, in either version (`cgroups(7)`): found by `/proc/self/cgroup` where the mounts show it.
//!
//! A container sees its own group at the mount itself; without a cgroup namespace it lies further down, and what the mount
//! shows is the whole node's. What cannot be found or read is absent, never guessed.

use std::path::{Component, Path, PathBuf};

use crate::mounts::{self, Mount};

/// Version 1 writes "no limit" as the largest multiple of the page size.
const UNLIMITED: u64 = 1 << 62;

/// The groups of this process.
#[derive(Clone, Debug, Default)]
pub struct Cgroup {
    /// Of version 1, one for each controller asked for here.
    pub(crate) old: Vec<(&'static str, Group)>,
    /// Of version 2.
    pub(crate) new: Option<Group>,
}

impl Cgroup {
    /// As the kernel tells it now. `proc` is `/proc`.
    pub fn own(proc: &Path) -> Cgroup {
        let own = std::fs::read_to_string(proc.join("self/cgroup")).unwrap_or_default();
        Cgroup::at(Path::new("/"), &mounts::read(proc).unwrap_or_default(), &own)
    }

    /// With these mounts below `root`, and `own` the text of `/proc/self/cgroup`.
    pub fn at(root: &Path, mounts: &[Mount], own: &str) -> Cgroup {
        let memberships: Vec<_> = own.lines().filter_map(membership).collect();
        let path = |wanted: &str| {
            let member = |(names, path): &(&str, PathBuf)| names.split(',').any(|n| n == wanted).then(|| path.clone());
            memberships.iter().find_map(member)
        };
        let old = ["memory", "pids", "cpu", "cpuacct"].into_iter().filter_map(|controller| {
            let shows = |m: &&Mount| m.fstype == "cgroup" && m.super_options.iter().any(|o| o == controller);
            Some((controller, Group::new(root, mounts.iter().find(shows)?, path(controller))))
        });
        let new = mounts.iter().find(|m| m.fstype == "cgroup2").map(|mount| Group::new(root, mount, path("")));
        Cgroup { old: old.collect(), new }
    }

    /// 1 or 2: where the memory limit lives. `None` where no hierarchy is mounted.
    pub fn version(&self) -> Option<u32> {
        match self.group("memory")? {
            (_, Version::Old) => Some(1),
            (_, Version::New) => Some(2),
        }
    }

    /// Bytes of memory, the smallest limit on the way up.
    pub fn memory_max(&self) -> Option<u64> {
        match self.group("memory")? {
            (group, Version::Old) => {
                group.smallest("memory.limit_in_bytes", |text| number(text).filter(|bytes| *bytes < UNLIMITED))
            }
            (group, Version::New) => group.smallest("memory.max", number),
        }
    }

    /// Bytes of memory in use.
    pub fn memory_current(&self) -> Option<u64> {
        match self.group("memory")? {
            (group, Version::Old) => group.own("memory.usage_in_bytes", number),
            (group, Version::New) => group.own("memory.current", number),
        }
    }

    /// Kills because memory ran out (version 1: since Linux 4.13).
    pub fn oom_kills(&self) -> Option<u64> {
        match self.group("memory")? {
            (group, Version::Old) => group.own("memory.oom_control", |text| field(text, "oom_kill")),
            (group, Version::New) => group.own("memory.events", |text| field(text, "oom_kill")),
        }
    }

    /// Version 2: an out-of-memory kill takes the whole container, the supervisor included.
    pub fn oom_kills_all(&self) -> Option<bool> {
        match self.group("memory")? {
            (_, Version::Old) => None,
            (group, Version::New) => group.own("memory.oom.group", number).map(|flag| flag == 1),
        }
    }

    /// Processes and threads, the smallest limit on the way up.
    pub fn pids_max(&self) -> Option<u64> {
        self.group("pids")?.0.smallest("pids.max", number)
    }

    /// Processes and threads there are.
    pub fn pids_current(&self) -> Option<u64> {
        self.group("pids")?.0.own("pids.current", number)
    }

    /// Processor time per time, in cores.
    pub fn cpus(&self) -> Option<f64> {
        let (quota, period) = match self.group("cpu")? {
            // -1 is no number here, so no quota is no limit.
            (group, Version::Old) => (group.own("cpu.cfs_quota_us", number)?, group.own("cpu.cfs_period_us", number)?),
            (group, Version::New) => group.own("cpu.max", |text| {
                let (quota, period) = text.split_once(' ')?;
                Some((number(quota)?, number(period)?))
            })?,
        };
        (period != 0).then(|| quota as f64 / period as f64)
    }

    /// Processor time used, in µs.
    pub fn cpu_time_us(&self) -> Option<u64> {
        match self.group("cpuacct")? {
            (group, Version::Old) => group.own("cpuacct.usage", number).map(|nanos| nanos / 1000),
            (group, Version::New) => group.own("cpu.stat", |text| field(text, "usage_usec")),
        }
    }

    /// Both versions can be mounted side by side; a controller is in one of them only.
    fn group(&self, controller: &str) -> Option<(&Group, Version)> {
        let old = self.old.iter().find(|(name, _)| *name == controller).map(|(_, group)| (group, Version::Old));
        old.or_else(|| self.new.as_ref().map(|group| (group, Version::New)))
    }
}

#[derive(Clone, Copy)]
enum Version {
    Old,
    New,
}

#[derive(Clone, Debug)]
pub(crate) struct Group {
    /// The directory that shows our own group.
    pub(crate) dir: PathBuf,
    /// The mount point: nothing above it is ours to see.
    pub(crate) top: PathBuf,
}

impl Group {
    fn new(root: &Path, mount: &Mount, path: Option<PathBuf>) -> Group {
        let top = root.join(mount.point.strip_prefix("/").unwrap_or(&mount.point));
        // Inside a container the mount shows the group itself, whatever the path is called on the node. A path that
        // climbs belongs to a process that was moved out of its namespace, and is not shown.
        let below = path.as_deref().and_then(|path| path.strip_prefix(&mount.root).ok());
        let below = below.filter(|below| below.components().all(|part| matches!(part, Component::Normal(_))));
        Group { dir: below.map_or_else(|| top.clone(), |below| top.join(below)), top }
    }

    fn own<T>(&self, file: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        parse(std::fs::read_to_string(self.dir.join(file)).ok()?.trim())
    }

    /// A limit binds with every group above it as well.
    fn smallest(&self, file: &str, parse: impl Fn(&str) -> Option<u64>) -> Option<u64> {
        let up = self.dir.ancestors().take_while(|dir| dir.starts_with(&self.top));
        up.filter_map(|dir| parse(std::fs::read_to_string(dir.join(file)).ok()?.trim())).min()
    }
}

/// Controllers (none for version 2) and path of a line of `/proc/self/cgroup`.
fn membership(line: &str) -> Option<(&str, PathBuf)> {
    let (_, rest) = line.split_once(':')?;
    let (controllers, path) = rest.split_once(':')?;
    Some((controllers, path.into()))
}

fn number(text: &str) -> Option<u64> {
    text.parse().ok()
}

fn field(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests;
