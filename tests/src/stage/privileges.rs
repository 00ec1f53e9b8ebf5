//! Who the program on stage is: ids and capabilities as the Pod Security levels leave them.

use std::ffi::OsStr;

use caps::{CapSet, Capability};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::{set_keepcaps, set_no_new_privs};
use nix::unistd::{Gid, Uid, getegid, geteuid, setgroups, setresgid, setresuid};

use crate::scene::RESTRICTED_UID;

/// Ids and capabilities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Profile {
    /// As the test itself.
    #[default]
    Plain,
    /// Pod Security `restricted`: a uid, no capability in any set, `no_new_privs`.
    Restricted,
    /// The same uid without the two locks: what an ordinary user is. For controls.
    User,
    /// Pod Security `baseline`: root with SETUID, SETGID, SETPCAP and KILL.
    Baseline,
    /// The uid of `restricted` with KILL in its ambient set, as some runtimes give a capability to who is not root.
    Ambient,
}

/// A supplementary group of the supervisor's, as `fsGroup` of a Pod makes it.
const GROUP: u32 = 30_001;

/// What `baseline` leaves.
const BASELINE: [Capability; 4] =
    [Capability::CAP_SETUID, Capability::CAP_SETGID, Capability::CAP_SETPCAP, Capability::CAP_KILL];

impl Profile {
    /// The word on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Profile::Plain => "plain",
            Profile::Restricted => "restricted",
            Profile::User => "user",
            Profile::Baseline => "baseline",
            Profile::Ambient => "ambient",
        }
    }

    /// The profile of that name.
    pub fn from_name(name: &OsStr) -> Result<Profile, String> {
        [Profile::Plain, Profile::Restricted, Profile::User, Profile::Baseline, Profile::Ambient]
            .into_iter()
            .find(|p| name == p.name())
            .ok_or_else(|| format!("unknown profile {}", name.display()))
    }

    /// The uid of the supervisor.
    pub fn uid(self) -> u32 {
        match self {
            Profile::Plain => geteuid().as_raw(),
            Profile::Restricted | Profile::User | Profile::Ambient => RESTRICTED_UID,
            Profile::Baseline => 0,
        }
    }

    /// Whether it takes root, or a user namespace, to become this.
    pub fn needs_root(self) -> bool {
        self != Profile::Plain
    }

    /// Become this; the next `execve` completes it.
    pub(super) fn take_on(self) -> Result<(), String> {
        match self {
            Profile::Plain => Ok(()),
            Profile::Restricted => {
                drop_bounding(&[])?;
                change_ids(&[])?;
                // a second user namespace has filled it again (capabilities(7))
                drop_bounding(&[])?;
                set_no_new_privs().map_err(|e| format!("no_new_privs: {e}"))
            }
            Profile::User => change_ids(&[Gid::from_raw(GROUP)]),
            Profile::Baseline => {
                drop_bounding(&BASELINE)?;
                setgroups(&[Gid::from_raw(GROUP)]).or_else(unless_mapped).map_err(|e| format!("setgroups: {e}"))
            }
            Profile::Ambient => {
                // or the change of ids would take the permitted set, too (capabilities(7))
                set_keepcaps(true).map_err(|e| format!("keep capabilities: {e}"))?;
                change_ids(&[])?;
                [CapSet::Inheritable, CapSet::Ambient]
                    .into_iter()
                    .try_for_each(|set| caps::raise(None, set, Capability::CAP_KILL))
                    .map_err(|e| format!("ambient set: {e}"))
            }
        }
    }
}

/// execve(2) as root gives what the bounding set holds, so this is all that `baseline` needs.
fn drop_bounding(keep: &[Capability]) -> Result<(), String> {
    let held = caps::read(None, CapSet::Bounding).map_err(|e| format!("bounding set: {e}"))?;
    for capability in held {
        if !keep.contains(&capability) {
            caps::drop(None, CapSet::Bounding, capability).map_err(|e| format!("drop {capability}: {e}"))?;
        }
    }
    Ok(())
}

/// Become the uid of a restricted Pod. In a user namespace that maps only root, a second one gives root that number.
fn change_ids(groups: &[Gid]) -> Result<(), String> {
    let (uid, gid) = (Uid::from_raw(RESTRICTED_UID), Gid::from_raw(RESTRICTED_UID));
    let change = || -> nix::Result<()> {
        setgroups(groups)?;
        setresgid(gid, gid, gid)?;
        setresuid(uid, uid, uid)
    };
    match change() {
        Ok(()) => Ok(()),
        Err(nix::Error::EPERM | nix::Error::EINVAL) => {
            let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
            unshare(CloneFlags::CLONE_NEWUSER).map_err(|e| format!("second user namespace: {e}"))?;
            super::outer::map_ids(RESTRICTED_UID, uid, gid)
        }
        Err(e) => Err(format!("change ids: {e}")),
    }
}

/// `setgroups` is denied in a user namespace that an ordinary user made; there is nothing to drop there.
fn unless_mapped(error: nix::Error) -> nix::Result<()> {
    match error {
        nix::Error::EPERM => Ok(()),
        other => Err(other),
    }
}
