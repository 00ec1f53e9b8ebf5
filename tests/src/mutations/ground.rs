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
    /// What else is left out.
    pub without: &'static [Cut],
}

const fn ground(profile: Profile, without: &'static [Cut]) -> Ground {
    Ground { profile, own_uid: false, pids: Pids::First, without }
}

/// A Pod of Pod Security `restricted`, as it is.
pub(super) const RESTRICTED: Ground = ground(Profile::Restricted, &[]);
/// The same where the supervisor is not PID 1, and its pid and the shim's are above the program's.
pub(super) const WRAPPED: Ground = Ground { pids: Pids::Child, ..ground(Profile::Restricted, &[Cut::Wrap]) };
/// The same where marked calls that are let through are caught.
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
        // Without Landlock nothing would be started.
        let old = self.without.iter().any(|cut| matches!(cut, Cut::Abi(_)));
        let builder = if old { builder.set("enforcement", "best-effort") } else { builder };
        let builder =
            if self.own_uid { builder.set("agent-user", format!("{AGENT_UID}:{AGENT_UID}")) } else { builder };
        trial::agent(probe, builder, self.pids)
    }
}
