//! Processes as `/proc` shows them from outside.

use std::fs;

use nix::unistd::Pid;

pub use crate::probes::outsider::{alive, parent, stat};

/// Every pid.
pub fn all() -> Vec<Pid> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).map(Pid::from_raw).collect()
}

/// Those whose parent is this.
pub fn children(pid: Pid) -> Vec<Pid> {
    all().into_iter().filter(|&p| parent(p) == Some(pid)).collect()
}

/// Children, their children and so on; zombies included.
pub fn descendants(pid: Pid) -> Vec<Pid> {
    let parents: Vec<(Pid, Option<Pid>)> = all().into_iter().map(|p| (p, parent(p))).collect();
    let mut found = vec![pid];
    let mut next = 0;
    while next < found.len() {
        let of = found[next];
        found.extend(parents.iter().filter(|(_, p)| *p == Some(of)).map(|(p, _)| *p));
        next += 1;
    }
    found.split_off(1)
}

/// The same without the zygote and the shims that it keeps ready, which belong to no tree.
pub fn trees(supervisor: Pid) -> Vec<Pid> {
    let belongs = |&pid: &Pid| !["zygote", "ready"].contains(&name(pid).as_str());
    descendants(supervisor).into_iter().filter(belongs).collect()
}

/// The supervisor's zygote, where it has one.
pub fn zygote(supervisor: Pid) -> Option<Pid> {
    children(supervisor).into_iter().find(|&pid| name(pid) == "zygote" && alive(pid))
}

/// Everybody in the pid namespace of this process; empty when it is gone.
pub fn in_namespace_of(pid: Pid) -> Vec<Pid> {
    let namespace = |p: Pid| fs::read_link(format!("/proc/{p}/ns/pid")).ok();
    let Some(wanted) = namespace(pid) else { return Vec::new() };
    all().into_iter().filter(|&p| namespace(p).as_ref() == Some(&wanted)).collect()
}

/// The short name.
pub fn name(pid: Pid) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim_end().to_string()
}

/// Whether it has ended and nobody has asked how.
pub fn is_zombie(pid: Pid) -> bool {
    stat(pid, 0).as_deref() == Some("Z")
}

/// A line of `/proc/PID/status`, without its name.
pub fn status(pid: Pid, field: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':').map(|v| v.trim().to_string()))
}

/// What it has in memory, KiB.
pub fn resident_kib(pid: Pid) -> f64 {
    let text = status(pid, "VmRSS").unwrap_or_default();
    text.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or(f64::NAN)
}
