//! The steps beside the filter, one at a time: every Landlock right and scope, every capability that is held here, every flag.

use caps::{CapSet, Capability};

use super::Mutation;
use super::ground::{Ground, POWERS, RESTRICTED};
use crate::probes;
use crate::stage::weaken::{Scope, Step};
use crate::stage::{Cut, Pids, Profile};

const fn step(step: Step) -> Cut {
    Cut::Step(step)
}

/// Landlock's file system rights in the order of their bits (landlock(7)), and who sees that one is not handled. What may not be
/// read may not be executed either, so the one shows without the other.
const RIGHTS: [(&str, &str, Ground); 16] = [
    ("EXECUTE", "state-execute", ground(Profile::Restricted, false, &[Cut::Right(2)])),
    ("WRITE_FILE", "append-outside", RESTRICTED),
    ("READ_FILE", "token-read", RESTRICTED),
    ("READ_DIR", "state-list", RESTRICTED),
    ("REMOVE_DIR", "remove-directory-outside", RESTRICTED),
    ("REMOVE_FILE", "delete-outside", RESTRICTED),
    ("MAKE_CHAR", "whiteout-outside", RESTRICTED),
    ("MAKE_DIR", "make-directory-outside", RESTRICTED),
    ("MAKE_REG", "regular-node-outside", RESTRICTED),
    ("MAKE_SOCK", "socket-outside", RESTRICTED),
    ("MAKE_FIFO", "fifo-outside", RESTRICTED),
    ("MAKE_BLOCK", "mknod-disk-outside", POWERS),
    ("MAKE_SYM", "symlink-outside", RESTRICTED),
    ("REFER", "link-refused-inside", RESTRICTED),
    ("TRUNCATE", "truncate-outside", RESTRICTED),
    ("IOCTL_DEV", "device-outside-dev-ioctl", RESTRICTED),
];

const ROOT: Profile = Profile::Plain;
const BLIND: Cut = step(Step::ReadBack);

const OWN_SIGNALS: Cut = Cut::Scope(Scope { tree: false, bit: 2 });
const TREE_SIGNALS: Cut = Cut::Scope(Scope { tree: true, bit: 2 });

const fn ground(profile: Profile, own_uid: bool, without: &'static [Cut]) -> Ground {
    Ground { profile, own_uid, pids: Pids::First, abi: None, without }
}

/// A flag or a whole step: what is left out, who sees it, and beside what.
const FLAGS: &[(&str, &[Cut], &str, Ground)] = &[
    ("the filter", &[step(Step::Filter)], "unshare-user", RESTRICTED),
    ("the program's Landlock domain", &[step(Step::Domain)], "token-read", RESTRICTED),
    (
        "the tree's Landlock domain",
        &[step(Step::TreeDomain)],
        "kill-term-outsider",
        ground(Profile::Restricted, false, &[OWN_SIGNALS, BLIND]),
    ),
    ("TCP ports", &[Cut::Ports], "connect-unlisted-port", RESTRICTED),
    ("signals kept in the program's domain", &[OWN_SIGNALS], "kill-term-shim", RESTRICTED),
    (
        "signals kept in the tree's domain",
        &[TREE_SIGNALS],
        "kill-term-outsider",
        ground(Profile::Restricted, false, &[OWN_SIGNALS, BLIND]),
    ),
    (
        "abstract sockets kept in the program's domain",
        &[Cut::Scope(Scope { tree: false, bit: 1 })],
        "abstract-socket-of-outsider",
        ground(Profile::Restricted, false, &[Cut::Scope(Scope { tree: true, bit: 1 })]),
    ),
    (
        "abstract sockets kept in the tree's domain",
        &[Cut::Scope(Scope { tree: true, bit: 1 })],
        "abstract-socket-of-outsider",
        ground(Profile::Restricted, false, &[Cut::Scope(Scope { tree: false, bit: 1 })]),
    ),
    (
        "no_new_privs",
        &[step(Step::NoNewPrivs)],
        "setuid-program",
        ground(ROOT, true, &[step(Step::Filter), step(Step::Domain), BLIND]),
    ),
    (
        "the shim hides",
        &[step(Step::Hide)],
        "proc-maps-shim",
        ground(Profile::Restricted, false, &[step(Step::Domain)]),
    ),
    (
        "the supervisor hides",
        &[step(Step::HideSupervisor)],
        "proc-environ-supervisor",
        Ground { abi: Some(0), ..RESTRICTED },
    ),
    ("the bounding set is emptied", &[step(Step::Bounding)], "capability-bounding", ground(ROOT, false, &[BLIND])),
    (
        "the other sets are emptied",
        &[step(Step::Capabilities)],
        "capability-effective",
        ground(ROOT, false, &[BLIND, step(Step::Bounding)]),
    ),
    (
        "the ambient set is emptied",
        &[step(Step::Ambient)],
        "capability-effective",
        ground(Profile::Ambient, false, &[BLIND, step(Step::Capabilities)]),
    ),
    ("supplementary groups", &[step(Step::Groups)], "supplementary-groups", ground(Profile::Baseline, true, &[BLIND])),
    ("the group", &[step(Step::Group)], "setgid-root", ground(ROOT, true, &[BLIND])),
    ("the user", &[step(Step::User)], "setuid-root", ground(ROOT, true, &[BLIND])),
    (
        "descriptors are closed by execve",
        &[step(Step::CloseOnExec)],
        "descriptor-beyond-2",
        ground(Profile::Restricted, false, &[step(Step::OwnControl)]),
    ),
    (
        "the control socket is closed by execve",
        &[step(Step::OwnControl)],
        "descriptor-beyond-2",
        ground(Profile::Restricted, false, &[step(Step::CloseOnExec)]),
    ),
    ("a session of its own", &[step(Step::Session)], "session-of-shim", RESTRICTED),
    ("it dies with its shim", &[step(Step::ParentDeath)], "outlives-shim", RESTRICTED),
    ("its limits", &[step(Step::Limits)], "limit-of-descriptors", RESTRICTED),
    (
        "inherited descriptors are closed",
        &[step(Step::Close)],
        "descriptor-beyond-2",
        ground(Profile::Restricted, false, &[step(Step::CloseOnExec)]),
    ),
    ("no core file of the supervisor", &[step(Step::CoreSupervisor)], "core-limit-of-supervisor", RESTRICTED),
    (
        "no core file of the shim",
        &[step(Step::Core)],
        "core-limit-of-shim",
        ground(Profile::Restricted, false, &[step(Step::CoreSupervisor)]),
    ),
];

/// What the shim reads back when all is done: the step that is left out, and who gets out where nobody reads. While it is read
/// back, nothing is started.
const READ_BACK: &[(&str, &str, Ground)] = &[
    ("the bounding set", "capability-bounding", ground(ROOT, false, &[step(Step::Bounding)])),
    (
        "the other sets",
        "capability-effective",
        ground(Profile::Ambient, false, &[step(Step::Capabilities), step(Step::Ambient)]),
    ),
    (
        "no_new_privs",
        "setuid-program",
        ground(ROOT, true, &[step(Step::Filter), step(Step::Domain), step(Step::NoNewPrivs)]),
    ),
    ("supplementary groups", "supplementary-groups", ground(Profile::Baseline, true, &[step(Step::Groups)])),
    ("the group", "setgid-root", ground(ROOT, true, &[step(Step::Group)])),
    ("the user", "setuid-root", ground(ROOT, true, &[step(Step::User)])),
    (
        "the tree's Landlock domain",
        "kill-term-outsider",
        ground(Profile::Restricted, false, &[OWN_SIGNALS, step(Step::TreeDomain)]),
    ),
    (
        "signals kept in the tree's domain",
        "kill-term-outsider",
        ground(Profile::Restricted, false, &[OWN_SIGNALS, TREE_SIGNALS]),
    ),
];

/// The kernel's capabilities: those that are held here, and the others. What nobody has is not left to anybody, whatever the shim does.
pub(super) fn capabilities() -> (Vec<Capability>, Vec<Capability>) {
    let all = caps::runtime::procfs_all_supported(None).unwrap_or_else(|_| caps::all());
    let mut all: Vec<_> = all.into_iter().collect();
    all.sort_by_key(Capability::index);
    let held = caps::read(None, CapSet::Permitted).unwrap_or_default();
    all.into_iter().partition(|capability| held.contains(capability))
}

/// Every Landlock right and scope, every capability that is held here, and every flag.
pub fn steps() -> Vec<Mutation> {
    let rights = (0u32..)
        .zip(RIGHTS)
        .map(|(bit, (name, probe, ground))| mutation(format!("Landlock {name}"), vec![Cut::Right(bit)], probe, ground));
    let flags = FLAGS.iter().map(|(what, cuts, probe, ground)| mutation((*what).into(), cuts.to_vec(), probe, *ground));
    let read_back = READ_BACK
        .iter()
        .map(|(what, probe, ground)| mutation(format!("read back: {what}"), vec![BLIND], probe, *ground));
    let (held, _) = capabilities();
    let capabilities = held.into_iter().map(|capability| {
        let cut = Cut::Capability(capability.index().into());
        mutation(format!("{capability}"), vec![cut], "capability-effective", ground(ROOT, false, &[BLIND]))
    });
    rights.chain(flags).chain(read_back).chain(capabilities).collect()
}

fn mutation(what: String, cuts: Vec<Cut>, probe: &str, ground: Ground) -> Mutation {
    Mutation { what, cuts, sees: probes::find(probe).into_iter().collect(), grounds: Some(vec![ground]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_that_can_be_left_out_is_left_out_by_a_mutation() {
        let steps = steps();
        let alone = |step: &Step| steps.iter().any(|mutation| mutation.cuts == [Cut::Step(*step)]);
        let missing: Vec<_> = Step::ALL.iter().filter(|step| !alone(step)).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }

    #[test]
    fn each_capability_of_the_kernel_is_left_by_a_mutation_or_said_to_be_missing_here() {
        let last = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap").expect("Linux 3.2");
        let last: usize = last.trim().parse().expect("a number");
        let left = steps().iter().filter(|step| matches!(step.cuts[..], [Cut::Capability(_)])).count();
        assert_eq!(left + crate::mutations::not_held(), last + 1);
    }
}
