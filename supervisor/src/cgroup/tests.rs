//! Trees of files as the kernel lays them out.

use super::*;

/// The groups of a process that sees these mounts, belongs there, and finds these files.
struct Node {
    root: tempfile::TempDir,
    cgroup: Cgroup,
}

fn node(mountinfo: &str, own: &str, files: &[(&str, &str)]) -> Node {
    let root = tempfile::tempdir().expect("a scratch directory");
    for (name, text) in files {
        let path = root.path().join("sys/fs/cgroup").join(name);
        std::fs::create_dir_all(path.parent().expect("a file lies in a directory")).expect("our own directory");
        std::fs::write(path, format!("{text}\n")).expect("our own directory");
    }
    let cgroup = Cgroup::at(root.path(), &mounts::parse(mountinfo.as_bytes()), own);
    Node { root, cgroup }
}

const NEW: &str = "31 24 0:27 / /sys/fs/cgroup rw,nosuid,nodev,noexec - cgroup2 cgroup rw,nsdelegate\n";
const OLD: &str = "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                   33 31 0:30 / /sys/fs/cgroup/cpuacct rw - cgroup cgroup rw,cpuacct\n\
                   35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                   39 31 0:36 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n\
                   41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

/// As a container of a node with version 1 sees it: each hierarchy shows the container's own group.
#[test]
fn version_1_in_a_container() {
    let node = node(
        "103 65 0:50 / / rw - overlay overlay rw\n\
         109 103 0:55 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
         110 109 0:29 /kubepods/pod1/c1 /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu,cpuacct\n\
         113 109 0:32 /kubepods/pod1/c1 /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n\
         117 109 0:36 /kubepods/pod1/c1 /sys/fs/cgroup/pids ro - cgroup cgroup rw,pids\n",
        "8:pids:/kubepods/pod1/c1\n4:memory:/kubepods/pod1/c1\n1:cpu,cpuacct:/kubepods/pod1/c1\n0::/kubepods/pod1/c1\n",
        &[
            ("memory/memory.limit_in_bytes", "134217728"),
            ("memory/memory.usage_in_bytes", "4096"),
            ("memory/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 4"),
            ("pids/pids.max", "max"),
            ("pids/pids.current", "3"),
            ("cpu/cpu.cfs_quota_us", "50000"),
            ("cpu/cpu.cfs_period_us", "100000"),
            ("cpu/cpuacct.usage", "7000"),
        ],
    );
    let cgroup = &node.cgroup;
    assert_eq!(cgroup.version(), Some(1));
    assert_eq!((cgroup.memory_max(), cgroup.memory_current()), (Some(134_217_728), Some(4096)));
    assert_eq!((cgroup.oom_kills(), cgroup.oom_kills_all()), (Some(4), None));
    assert_eq!((cgroup.pids_max(), cgroup.pids_current()), (None, Some(3)));
    assert_eq!((cgroup.cpus(), cgroup.cpu_time_us()), (Some(0.5), Some(7)));
}

#[test]
fn version_2_in_a_container() {
    let node = node(
        NEW,
        "0::/\n",
        &[
            ("memory.max", "268435456"),
            ("memory.current", "8192"),
            ("memory.oom.group", "1"),
            ("memory.events", "low 0\nhigh 0\nmax 3\noom 2\noom_kill 1\noom_group_kill 0"),
            ("pids.max", "100"),
            ("pids.current", "5"),
            ("cpu.max", "150000 100000"),
            ("cpu.stat", "usage_usec 42\nuser_usec 40\nsystem_usec 2"),
        ],
    );
    let cgroup = &node.cgroup;
    assert_eq!(cgroup.version(), Some(2));
    assert_eq!((cgroup.memory_max(), cgroup.memory_current()), (Some(268_435_456), Some(8192)));
    assert_eq!((cgroup.oom_kills(), cgroup.oom_kills_all()), (Some(1), Some(true)));
    assert_eq!((cgroup.pids_max(), cgroup.pids_current()), (Some(100), Some(5)));
    assert_eq!((cgroup.cpus(), cgroup.cpu_time_us()), (Some(1.5), Some(42)));
}

#[test]
fn without_a_cgroup_namespace_the_own_group_is_read_and_not_the_whole_node() {
    let new = node(
        NEW,
        "0::/kubepods/c1\n",
        &[
            ("memory.current", "999999"),
            ("memory.events", "oom_kill 99"),
            ("pids.current", "999"),
            ("cpu.stat", "usage_usec 999"),
            ("kubepods/memory.max", "5000"),
            ("kubepods/c1/memory.max", "max"),
            ("kubepods/c1/memory.current", "11"),
            ("kubepods/c1/memory.events", "oom_kill 12"),
            ("kubepods/c1/pids.current", "13"),
            ("kubepods/c1/cpu.stat", "usage_usec 14"),
        ],
    );
    let old = node(
        OLD,
        "8:pids:/kubepods/c1\n4:memory:/kubepods/c1\n2:cpuacct:/kubepods/c1\n1:cpu:/kubepods/c1\n0::/elsewhere\n",
        &[
            ("memory/memory.usage_in_bytes", "999999"),
            ("memory/memory.oom_control", "oom_kill 99"),
            ("pids/pids.current", "999"),
            ("cpuacct/cpuacct.usage", "999000"),
            ("memory/kubepods/memory.limit_in_bytes", "5000"),
            ("memory/kubepods/c1/memory.limit_in_bytes", "9223372036854771712"),
            ("memory/kubepods/c1/memory.usage_in_bytes", "11"),
            ("memory/kubepods/c1/memory.oom_control", "oom_kill_disable 0\noom_kill 12"),
            ("pids/kubepods/c1/pids.current", "13"),
            ("cpuacct/kubepods/c1/cpuacct.usage", "14000"),
            ("unified/elsewhere/memory.current", "999999"),
        ],
    );
    for Node { cgroup, .. } in [&new, &old] {
        let seen = (cgroup.memory_current(), cgroup.oom_kills(), cgroup.pids_current(), cgroup.cpu_time_us());
        assert_eq!(seen, (Some(11), Some(12), Some(13), Some(14)));
        assert_eq!(cgroup.memory_max(), Some(5000), "the parent's limit binds");
    }
    assert_eq!((new.cgroup.version(), old.cgroup.version()), (Some(2), Some(1)));
}

#[test]
fn no_limit_is_no_number() {
    let new = node(NEW, "0::/\n", &[("memory.max", "max"), ("cpu.max", "max 100000"), ("pids.max", "max")]);
    let old = node(
        OLD,
        "4:memory:/\n1:cpu:/\n",
        &[
            ("memory/memory.limit_in_bytes", "9223372036854771712"),
            ("cpu/cpu.cfs_quota_us", "-1"),
            ("cpu/cpu.cfs_period_us", "100000"),
        ],
    );
    for Node { cgroup, .. } in [&new, &old] {
        assert_eq!((cgroup.memory_max(), cgroup.cpus(), cgroup.pids_max()), (None, None, None));
    }
}

#[test]
fn a_path_that_the_mount_does_not_show_is_the_mount_itself() {
    let mount = "31 24 0:27 /kubepods/c1 /sys/fs/cgroup ro - cgroup2 cgroup rw\n";
    for (mount, own) in [(mount, "0::/kubepods/c1\n"), (mount, "0::/other\n"), (mount, ""), (NEW, "0::/../outside\n")] {
        let node = node(mount, own, &[("memory.current", "1"), ("../outside/memory.current", "2")]);
        assert_eq!(node.cgroup.memory_current(), Some(1), "{own}");
        assert!(node.root.path().join("sys/fs/outside").exists());
    }
    let none = node("", "0::/\n", &[("memory.current", "1")]);
    assert_eq!((none.cgroup.version(), none.cgroup.memory_current()), (None, None));
}

#[test]
fn this_process_is_in_the_group_that_has_it() {
    let own = Cgroup::own(Path::new("/proc"));
    let Some((group, _)) = own.group("pids") else { return };
    let Ok(members) = std::fs::read_to_string(group.dir.join("cgroup.procs")) else { return };
    let pid = std::process::id().to_string();
    assert!(members.lines().any(|line| line == pid), "{} does not have us", group.dir.display());
}
