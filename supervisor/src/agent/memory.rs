//! Whether memory ran out: the kernel's own count of OOM kills in this cgroup, before a run and after it.
//!
//! Sources: `memory.events` (cgroup v2, field `oom_kill`), `memory.oom_control` (v1, field `oom_kill`, Linux 4.13). A
//! KILL without a count is reported as unknown, never guessed. Where `memory.oom.group` is set the kernel kills the
//! supervisor too, and the next start reports the run as lost.

use std::path::{Path, PathBuf};

/// OOM kills in this container so far; `None` where the kernel does not tell us.
pub(super) fn oom_kills() -> Option<u64> {
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    candidates(&own, Path::new("/sys/fs/cgroup")).iter().find_map(|file| count(&std::fs::read_to_string(file).ok()?))
}

/// In a container the mount shows its own cgroup at the root; without a cgroup namespace it is further down.
fn candidates(own: &str, mount: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in own.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else { continue };
        let path = path.trim_start_matches('/');
        if controllers.is_empty() {
            files.extend([mount.join(path).join("memory.events"), mount.join("memory.events")]);
        } else if controllers.split(',').any(|c| c == "memory") {
            let mount = mount.join("memory");
            files.extend([mount.join(path).join("memory.oom_control"), mount.join("memory.oom_control")]);
        }
    }
    files
}

fn count(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_cgroup_versions_are_read() {
        assert_eq!(count("low 0\nhigh 0\nmax 3\noom 2\noom_kill 1\noom_group_kill 0\n"), Some(1));
        assert_eq!(count("oom_kill_disable 0\nunder_oom 0\noom_kill 4\n"), Some(4));
        assert_eq!(count("oom_kill_disable 0\nunder_oom 0\n"), None);
    }

    #[test]
    fn the_own_cgroup_is_looked_for_before_the_root_of_the_mount() {
        let v2 = candidates("0::/kubepods/pod1/c1\n", Path::new("/m"));
        assert_eq!(v2, [PathBuf::from("/m/kubepods/pod1/c1/memory.events"), "/m/memory.events".into()]);
        let v1 = candidates("5:cpu,cpuacct:/x\n4:memory:/\n", Path::new("/m"));
        assert_eq!(v1[0], PathBuf::from("/m/memory/memory.oom_control"));
    }
}
