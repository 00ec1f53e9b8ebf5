//! The container's limits, in either version of control groups (`cgroups(7)`).

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::mounts::Mount;

/// Limits, `None` where there is none or it cannot be read.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Cgroup {
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

/// One line of `/proc/self/cgroup`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Membership {
    /// Empty for version 2.
    controllers: Vec<String>,
    path: PathBuf,
}

pub(super) fn parse(text: &str) -> Vec<Membership> {
    let line = |line: &str| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let controllers = controllers.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
        Some(Membership { controllers, path: PathBuf::from(path) })
    };
    text.lines().filter_map(line).collect()
}

pub(super) fn facts(memberships: &[Membership], mounts: &[Mount], read: impl Fn(&Path) -> Option<String>) -> Cgroup {
    let old = |controller: &str| Group::find(mounts, memberships, Some(controller), &read);
    if let Some(memory) = old("memory") {
        return Cgroup {
            version: Some(1),
            memory_max: memory
                .smallest("memory.limit_in_bytes", |text| number(text).filter(|bytes| *bytes < UNLIMITED)),
            memory_current: memory.own("memory.usage_in_bytes", number),
            pids_max: old("pids").and_then(|group| group.smallest("pids.max", number)),
            cpus: old("cpu").and_then(|group| {
                // -1 is no number here, so no quota is no limit.
                let quota = group.own("cpu.cfs_quota_us", number)?;
                ratio(quota, group.own("cpu.cfs_period_us", number)?)
            }),
            oom_kills_all: None,
        };
    }
    let Some(group) = Group::find(mounts, memberships, None, &read) else { return Cgroup::default() };
    Cgroup {
        version: Some(2),
        memory_max: group.smallest("memory.max", number),
        memory_current: group.own("memory.current", number),
        pids_max: group.smallest("pids.max", number),
        cpus: group.own("cpu.max", |text| {
            let (quota, period) = text.split_once(' ')?;
            ratio(number(quota)?, number(period)?)
        }),
        oom_kills_all: group.own("memory.oom.group", number).map(|flag| flag == 1),
    }
}

/// Version 1 writes "no limit" as the largest multiple of the page size.
const UNLIMITED: u64 = 1 << 62;

struct Group<'a> {
    /// The directory that shows our own group.
    dir: PathBuf,
    /// The mount point: nothing above it is ours to see.
    top: &'a Path,
    read: &'a dyn Fn(&Path) -> Option<String>,
}

impl<'a> Group<'a> {
    /// The group in the hierarchy of `controller`, or in that of version 2.
    fn find(
        mounts: &'a [Mount],
        memberships: &[Membership],
        controller: Option<&str>,
        read: &'a dyn Fn(&Path) -> Option<String>,
    ) -> Option<Group<'a>> {
        let (mount, membership) = match controller {
            Some(controller) => (
                mounts.iter().find(|m| m.fstype == "cgroup" && m.super_options.iter().any(|o| o == controller))?,
                memberships.iter().find(|m| m.controllers.iter().any(|name| name == controller)),
            ),
            None => {
                (mounts.iter().find(|m| m.fstype == "cgroup2")?, memberships.iter().find(|m| m.controllers.is_empty()))
            }
        };
        // Inside a container the mount shows the group itself, whatever the path is called on the node.
        let below = membership.and_then(|membership| membership.path.strip_prefix(&mount.root).ok());
        Some(Group {
            dir: below.map_or_else(|| mount.point.clone(), |below| mount.point.join(below)),
            top: &mount.point,
            read,
        })
    }

    fn own<T>(&self, file: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        parse((self.read)(&self.dir.join(file))?.trim())
    }

    /// A limit binds with every group above it as well.
    fn smallest(&self, file: &str, parse: impl Fn(&str) -> Option<u64>) -> Option<u64> {
        let up = self.dir.ancestors().take_while(|dir| dir.starts_with(self.top));
        up.filter_map(|dir| parse((self.read)(&dir.join(file))?.trim())).min()
    }
}

fn number(text: &str) -> Option<u64> {
    text.parse().ok()
}

fn ratio(quota: u64, period: u64) -> Option<f64> {
    (period != 0).then(|| quota as f64 / period as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mounts;

    fn look(mountinfo: &str, cgroup: &str, files: &[(&str, &str)]) -> Cgroup {
        let read =
            |path: &Path| files.iter().find(|(name, _)| Path::new(name) == path).map(|(_, text)| format!("{text}\n"));
        facts(&parse(cgroup), &mounts::parse(mountinfo.as_bytes()), read)
    }

    /// As a container of this kind of node sees it: each hierarchy shows the container's own group.
    #[test]
    fn version_1_in_a_container() {
        let found = look(
            "103 65 0:50 / / rw - overlay overlay rw\n\
             109 103 0:55 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
             110 109 0:29 /kubepods/pod1/c1 /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu,cpuacct\n\
             113 109 0:32 /kubepods/pod1/c1 /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n\
             117 109 0:36 /kubepods/pod1/c1 /sys/fs/cgroup/pids ro - cgroup cgroup rw,pids\n",
            "8:pids:/kubepods/pod1/c1\n4:memory:/kubepods/pod1/c1\n1:cpu,cpuacct:/kubepods/pod1/c1\n0::/kubepods/pod1/c1\n",
            &[
                ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "134217728"),
                ("/sys/fs/cgroup/memory/memory.usage_in_bytes", "4096"),
                ("/sys/fs/cgroup/pids/pids.max", "max"),
                ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "50000"),
                ("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000"),
            ],
        );
        let expected = Cgroup {
            version: Some(1),
            memory_max: Some(134_217_728),
            memory_current: Some(4096),
            pids_max: None,
            cpus: Some(0.5),
            oom_kills_all: None,
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn version_1_says_no_limit_by_a_huge_number_and_by_minus_one() {
        let found = look(
            "32 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
             33 31 0:33 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
             41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
            "4:memory:/a/b\n1:cpu:/\n0::/\n",
            &[
                ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712"),
                ("/sys/fs/cgroup/memory/a/memory.limit_in_bytes", "1000"),
                ("/sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", "9223372036854771712"),
                ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1"),
                ("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000"),
            ],
        );
        assert_eq!(
            (found.version, found.memory_max, found.cpus),
            (Some(1), Some(1000), None),
            "the parent's limit binds"
        );
        let found = look(
            "32 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n",
            "4:memory:/\n",
            &[("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712")],
        );
        assert_eq!(found.memory_max, None);
    }

    #[test]
    fn version_2_in_a_container() {
        let found = look(
            "31 24 0:27 / /sys/fs/cgroup ro,nosuid,nodev,noexec - cgroup2 cgroup rw,nsdelegate\n",
            "0::/\n",
            &[
                ("/sys/fs/cgroup/memory.max", "268435456"),
                ("/sys/fs/cgroup/memory.current", "8192"),
                ("/sys/fs/cgroup/memory.oom.group", "1"),
                ("/sys/fs/cgroup/pids.max", "100"),
                ("/sys/fs/cgroup/cpu.max", "150000 100000"),
            ],
        );
        let expected = Cgroup {
            version: Some(2),
            memory_max: Some(268_435_456),
            memory_current: Some(8192),
            pids_max: Some(100),
            cpus: Some(1.5),
            oom_kills_all: Some(true),
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn version_2_without_a_limit_or_with_a_path_that_is_not_shown() {
        let mount = "31 24 0:27 /kubepods/c1 /sys/fs/cgroup ro - cgroup2 cgroup rw\n";
        let files = [("/sys/fs/cgroup/memory.max", "max"), ("/sys/fs/cgroup/cpu.max", "max 100000")];
        for path in ["0::/kubepods/c1\n", "0::/../elsewhere\n", ""] {
            let found = look(mount, path, &files);
            assert_eq!(found, Cgroup { version: Some(2), ..Cgroup::default() }, "{path}");
        }
        assert_eq!(look("", "0::/\n", &files), Cgroup::default());
    }
}
