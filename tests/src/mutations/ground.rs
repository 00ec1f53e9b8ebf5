//! Beside what a rule is taken away.
//!
//! Where two layers deny the same, a rule of one shows only where the other one is not: what root alone could do is
//! denied to an agent without capabilities whatever the filter says. So the filter is tried by an agent that has kept
//! them all, and hiding by one that has no Landlock domain. What stands here is left out beside the rule in question,
//! and alone it must let nobody out. Or nothing is started then, which is what reading back is for.

use crate::probes::trial;
use crate::probes::{Control, MARKED, Outcome, Probe};
use crate::scene::AGENT_UID;
use crate::stage::weaken::Step;
use crate::stage::{Cut, Pids, Profile};
use crate::supervisor::Supervisor;

/// Beside what a rule is taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ground {
    /// Who the supervisor is.
    pub profile: Profile,
    /// Whether the agent has a uid of its own.
    pub own_uid: bool,
    /// Which process the supervisor is.
    pub pids: Pids,
    /// Landlock's ABI, where the shim is told of an older one.
    pub abi: Option<u32>,
    /// What else is left out.
    pub without: &'static [Cut],
}

const fn ground(profile: Profile, without: &'static [Cut]) -> Ground {
    Ground { profile, own_uid: false, pids: Pids::First, abi: None, without }
}

/// A Pod of Pod Security `restricted`, as it is.
pub(super) const RESTRICTED: Ground = ground(Profile::Restricted, &[]);
/// The same where the supervisor is not PID 1, and its pid and the shim's are above the program's.
pub(super) const WRAPPED: Ground = Ground { pids: Pids::Child, ..ground(Profile::Restricted, &[Cut::Wrap]) };
/// On older kernels two steps make a signal, and both are refused: a handle of a process and what is sent by it, an owner of a descriptor
/// and a signal of one's choice. Without the second of each the first one shows.
const FIRST_STEPS: Ground = ground(Profile::Restricted, &[BY_HANDLE, CHOSEN]);
/// The same where the supervisor is not PID 1.
const WRAPPED_FIRST_STEPS: Ground =
    Ground { pids: Pids::Child, ..ground(Profile::Restricted, &[Cut::Wrap, BY_HANDLE, CHOSEN]) };
const BY_HANDLE: Cut = Cut::Call(libc::SYS_pidfd_send_signal as u32);
/// `F_SETSIG`, which is the seventh that the list refuses of fcntl(2) there.
const CHOSEN: Cut = Cut::Clause(libc::SYS_fcntl as u32, 6);
/// A Pod of Pod Security `restricted` where marked calls that are let through are caught.
const CATCHING: Ground = ground(Profile::Restricted, &[Cut::Catch]);
/// The same without a Landlock domain, and nobody hides.
pub(super) const OPEN: Ground = ground(
    Profile::Restricted,
    &[Cut::Step(Step::Domain), Cut::TreePaths, Cut::Step(Step::Hide), Cut::Step(Step::HideSupervisor)],
);
/// Root, who keeps every capability, and nothing is read back.
pub(super) const POWERS: Ground =
    ground(Profile::Plain, &[Cut::Step(Step::Bounding), Cut::Step(Step::Capabilities), Cut::Step(Step::ReadBack)]);
/// Both.
pub(super) const OPEN_POWERS: Ground = ground(
    Profile::Plain,
    &[
        Cut::Step(Step::Bounding),
        Cut::Step(Step::Capabilities),
        Cut::Step(Step::ReadBack),
        Cut::Step(Step::Domain),
        Cut::TreePaths,
        Cut::Step(Step::Hide),
        Cut::Step(Step::HideSupervisor),
    ],
);

impl Ground {
    /// Where a probe can see what holds it, the fullest first: what takes root, beside the capabilities.
    pub fn of(probe: &Probe) -> &'static [Ground] {
        match probe.control {
            Control::Root => &[POWERS, OPEN_POWERS],
            _ if probe.name == MARKED.name => &[CATCHING],
            _ => &[RESTRICTED, OPEN],
        }
    }

    /// Try a probe there, with these things left out, too.
    pub fn attempt(self, probe: &Probe, cuts: &[Cut]) -> Outcome {
        let builder = Supervisor::new().profile(self.profile).cut(self.without).cut(cuts);
        let builder = match self.abi {
            // Without Landlock nothing would be started otherwise.
            Some(abi) => builder.cut(&[Cut::Abi(abi)]).set("enforcement", "best-effort"),
            None => builder,
        };
        let builder =
            if self.own_uid { builder.set("agent-user", format!("{AGENT_UID}:{AGENT_UID}")) } else { builder };
        trial::agent(probe, builder, self.pids)
    }
}

/// Where the shim is told of this ABI, the fullest first.
pub(super) fn older(abi: u32, begun_again: bool) -> Vec<Ground> {
    let grounds = if begun_again { [WRAPPED, WRAPPED_FIRST_STEPS] } else { [RESTRICTED, FIRST_STEPS] };
    grounds.map(|ground| Ground { abi: Some(abi), ..ground }).to_vec()
}
