//! Whose ids the program has.
//!
//! All three of each id, so that none can be taken back, and the supplementary groups first, because afterwards the
//! right to change them is gone.

use nix::errno::Errno;
use nix::unistd::{Gid, Uid, getgroups, setgroups, setresgid, setresuid};
use protocol::control::{Failure, Step};
use protocol::policy::Identity;

use crate::failure::failed;

/// Become `identity`; nothing is asked of the kernel that is so already, since a supervisor without privileges may
/// well be told its own ids.
pub fn assume(identity: &Identity) -> Result<(), Failure> {
    let mut groups: Vec<Gid> = identity.groups.iter().copied().map(Gid::from_raw).collect();
    groups.sort_by_key(|group| group.as_raw());
    groups.dedup();
    if supplementary().is_none_or(|own| own != groups) {
        setgroups(&groups).map_err(refused(Step::Groups, "supplementary groups", "SETGID"))?;
    }
    let gid = Gid::from_raw(identity.gid);
    setresgid(gid, gid, gid).map_err(refused(Step::Groups, &format!("group {gid}"), "SETGID"))?;
    let uid = Uid::from_raw(identity.uid);
    // Setting ids that one has already is always allowed (setresuid(2)).
    setresuid(uid, uid, uid).map_err(refused(Step::User, &format!("user {uid}"), "SETUID"))
}

/// This process's supplementary groups, sorted.
pub fn supplementary() -> Option<Vec<Gid>> {
    let mut groups = getgroups().ok()?;
    groups.sort_by_key(|group| group.as_raw());
    groups.dedup();
    Some(groups)
}

fn refused(step: Step, what: &str, capability: &str) -> impl FnOnce(Errno) -> Failure {
    let message = format!("changing to {what}");
    let capability = capability.to_owned();
    move |errno| {
        let advice = match errno {
            Errno::EPERM => format!(
                "the supervisor lacks the capability {capability}: add it (Pod Security baseline allows it), or leave \
                 SUPERVISOR_AGENT_USER unset to keep the supervisor's own ids"
            ),
            Errno::EINVAL => "the id is not mapped in this user namespace".to_owned(),
            other => other.desc().to_owned(),
        };
        failed(step, errno as i32, format!("{message}: {advice}"))
    }
}
