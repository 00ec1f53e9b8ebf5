//! What the program's own process has that it should not have: read from the kernel, since each of these is somebody's way out.

use std::fs;

use caps::CapSet;
use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::{Pid, getpgid, getpgrp, getsid};
use protocol::guarantee::Guarantee::{NoPrivileges, SupervisorNotSignalled, SupervisorNotThrottled, TreeKillable};

use super::{Outcome, Probe, effect, probe};

pub(super) const PROBES: &[Probe] = &[
    probe("capability-effective", NoPrivileges, |_| held(CapSet::Effective)).root(),
    probe("capability-permitted", NoPrivileges, |_| held(CapSet::Permitted)).root(),
    probe("capability-bounding", NoPrivileges, |_| held(CapSet::Bounding)).root(),
    probe("privileges-can-be-gained", NoPrivileges, |_| {
        let locked = nix::sys::prctl::get_no_new_privs();
        effect(locked == Ok(false), "free of no_new_privs")
    }),
    probe("supplementary-groups", NoPrivileges, |_| {
        let groups = nix::unistd::getgroups().unwrap_or_default();
        effect(!groups.is_empty(), "a group of the supervisor's")
    }),
    probe("session-of-shim", SupervisorNotSignalled, |t| {
        effect(getsid(None) == getsid(Some(t.shim)), "in the shim's session")
    }),
    probe("group-of-shim", SupervisorNotSignalled, |t| {
        // what is sent to one's own group would reach it
        effect(getpgid(Some(t.shim)) == Ok(getpgrp()), "in the shim's process group")
    }),
    probe("outlives-shim", TreeKillable, |_| {
        let signal = nix::sys::prctl::get_pdeathsig();
        effect(signal == Ok(None), "not killed with the shim")
    }),
    probe("limit-of-descriptors", SupervisorNotThrottled, |_| {
        let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(_, hard)| hard);
        effect(limit > 77, "a limit of more open files than was set")
    })
    .set(&[("agent-limits", "nofile=77")]),
    probe("core-limit-of-shim", NoPrivileges, |t| core_limit(t.shim)),
    probe("core-limit-of-supervisor", NoPrivileges, |t| core_limit(t.supervisor)),
];

fn core_limit(pid: Pid) -> Outcome {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap_or_default();
    let Some(line) = limits.lines().find(|line| line.starts_with("Max core file size")) else {
        return Outcome::Untried("the limits cannot be read".into());
    };
    effect(line.split_whitespace().nth(4).is_some_and(|soft| soft != "0"), "a core file allowed")
}

fn held(set: CapSet) -> Outcome {
    let held = caps::read(None, set).map_or(0, |held| held.len());
    effect(held > 0, &format!("{held} capabilities in the {set:?} set"))
}
