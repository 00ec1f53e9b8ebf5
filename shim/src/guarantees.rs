//! Which promises this kernel and this policy can hold, decided before anything is started.
//!
//! A promise holds by its first mechanism, by a stated fallback, or not at all; nothing degrades silently. The facts
//! are read once, so that every step acts on what was promised.

use nix::unistd::{Uid, geteuid};
use protocol::control::{Failure, Step};
use protocol::guarantee::{Guarantee, Standing, State};
use protocol::policy::{Enforcement, ExecutionClass, Policy};

use crate::capabilities::{KILL, SETPCAP, bounding_is_empty, holds};
use crate::failure::failed;
use crate::filesystem::{FIRST_ABI, KNOWN_ABI, PORTS_ABI, SCOPE_ABI, TRUNCATE_ABI};
use crate::kernel;

/// What this kernel has and this process is.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Landlock's ABI in force: the highest that both kernel and shim know, 0 for none.
    pub landlock_abi: u32,
    /// Whether filters can be installed.
    pub seccomp: bool,
    /// Effective capabilities.
    pub capabilities: u64,
    /// Whether the bounding set is empty already.
    pub bounding_empty: bool,
    /// Effective user id.
    pub uid: u32,
}

impl Facts {
    /// Ask the kernel.
    pub fn read() -> Facts {
        let capabilities = kernel::capabilities().unwrap_or_default().effective;
        Facts {
            landlock_abi: kernel::landlock_abi().min(KNOWN_ABI),
            seccomp: kernel::has_seccomp(),
            capabilities,
            // One call where it is full, 41 where it is empty.
            bounding_empty: bounding_is_empty(),
            uid: Uid::as_raw(geteuid()),
        }
    }

    /// The bounding set is not empty and cannot be emptied.
    pub fn bounding_stays(&self) -> bool {
        !holds(self.capabilities, SETPCAP) && !self.bounding_empty
    }

    /// Whether one `kill(-1)` means the tree and nothing else.
    pub fn signals_are_scoped(&self) -> bool {
        self.landlock_abi >= SCOPE_ABI
    }
}

/// How every guarantee stands for `policy`.
pub fn standings(facts: &Facts, policy: &Policy) -> Vec<Standing> {
    Guarantee::ALL
        .into_iter()
        .map(|guarantee| {
            let (state, by) = standing(guarantee, facts, policy);
            Standing { guarantee, state, by: by.to_owned() }
        })
        .collect()
}

/// The failure that a required but missing guarantee is.
pub fn refuse(policy: &Policy, standings: &[Standing]) -> Result<(), Failure> {
    if policy.enforcement == Enforcement::BestEffort {
        return Ok(());
    }
    let missing: Vec<String> = standings
        .iter()
        .filter(|standing| standing.state == State::Missing && policy.required.contains(&standing.guarantee))
        .map(|standing| format!("{} ({})", standing.guarantee.name(), standing.by))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let message = format!(
        "required but not to be had on this node: {}. Use another node or kernel, or set SUPERVISOR_GUARANTEES without \
         what you can do without, or SUPERVISOR_ENFORCEMENT=best-effort to run and be told",
        missing.join("; ")
    );
    Err(failed(Step::Guarantees, 0, message))
}

fn standing(guarantee: Guarantee, facts: &Facts, policy: &Policy) -> (State, &'static str) {
    let abi = facts.landlock_abi;
    let uid = policy.identity.as_ref().map_or(facts.uid, |identity| identity.uid);
    let other_uid = uid != facts.uid;
    match guarantee {
        Guarantee::NoPrivileges => no_privileges(facts, uid),
        Guarantee::TokenUnreadable if abi >= FIRST_ABI => (State::Holds, "Landlock path rules"),
        Guarantee::TokenUnreadable => (State::Missing, NO_LANDLOCK),
        Guarantee::StateIntact => state_intact(facts, policy, other_uid),
        Guarantee::SupervisorNotTraced if abi >= FIRST_ABI => (State::Holds, "Landlock domain, and not dumpable"),
        Guarantee::SupervisorNotTraced if facts.seccomp => {
            (State::Fallback, "not dumpable, and seccomp closes tracing altogether; no Landlock")
        }
        Guarantee::SupervisorNotTraced => (State::Missing, "neither Landlock nor seccomp"),
        Guarantee::SupervisorNotSignalled => not_signalled(facts, policy, other_uid),
        Guarantee::SupervisorNotThrottled if other_uid => (State::Holds, "another uid, and seccomp argument rules"),
        Guarantee::SupervisorNotThrottled if facts.seccomp => {
            (State::Holds, "seccomp: calls that set limits or priorities reach the caller only")
        }
        Guarantee::SupervisorNotThrottled => (State::Missing, NO_SECCOMP),
        Guarantee::TreeKillable => tree_killable(facts, other_uid),
        Guarantee::SyscallsFiltered if facts.seccomp => (State::Holds, "seccomp"),
        Guarantee::SyscallsFiltered => (State::Missing, NO_SECCOMP),
        Guarantee::FilesConfined => files(facts),
        Guarantee::AbstractSocketsClosed if abi >= SCOPE_ABI => (State::Holds, "Landlock scope"),
        Guarantee::AbstractSocketsClosed => (State::Missing, "needs Landlock ABI 6 (Linux 6.12)"),
        Guarantee::NoInet if policy.class == ExecutionClass::Networked => (State::NotAsked, "class networked"),
        Guarantee::NoInet if facts.seccomp => (State::Holds, "seccomp: only Unix sockets can be made"),
        Guarantee::NoInet => (State::Missing, NO_SECCOMP),
        Guarantee::WorkspaceReadOnly if policy.class != ExecutionClass::Readonly => {
            (State::NotAsked, "the class may write its workspace")
        }
        Guarantee::WorkspaceReadOnly if !facts.seccomp => (State::Missing, NO_SECCOMP),
        Guarantee::WorkspaceReadOnly => files(facts),
        Guarantee::TcpPorts => tcp_ports(facts, policy),
    }
}

const NO_LANDLOCK: &str = "this kernel has no Landlock, or does not use it (needs Linux 5.13 and lsm=landlock)";
const NO_SECCOMP: &str = "this kernel cannot filter system calls (CONFIG_SECCOMP_FILTER)";

fn no_privileges(facts: &Facts, uid: u32) -> (State, &'static str) {
    match (facts.bounding_stays(), uid) {
        (false, _) => (State::Holds, "every capability set is empty, no_new_privs is set, both read back"),
        (true, 0) => (
            State::Missing,
            "the bounding set is not empty and cannot be emptied without the capability SETPCAP, and the program is root",
        ),
        (true, _) => (
            State::Fallback,
            "the bounding set cannot be emptied without the capability SETPCAP; no_new_privs keeps it out of reach",
        ),
    }
}

fn state_intact(facts: &Facts, policy: &Policy, other_uid: bool) -> (State, &'static str) {
    let metadata_closed = policy.class == ExecutionClass::Readonly && facts.seccomp;
    match (facts.landlock_abi >= FIRST_ABI, other_uid) {
        (true, true) => (State::Holds, "Landlock path rules, and another uid"),
        (true, false) if metadata_closed => (State::Holds, "Landlock path rules; seccomp closes metadata"),
        (true, false) => (
            State::Fallback,
            "Landlock path rules; with the supervisor's uid modes and times can be touched, and the supervisor mends them",
        ),
        (false, true) => (State::Fallback, "another uid and the modes of the state directory; no Landlock"),
        (false, false) => (State::Missing, NO_LANDLOCK),
    }
}

fn not_signalled(facts: &Facts, policy: &Policy, other_uid: bool) -> (State, &'static str) {
    if facts.signals_are_scoped() {
        (State::Holds, "Landlock signal scope")
    } else if other_uid {
        (State::Holds, "another uid without CAP_KILL")
    } else if !facts.seccomp {
        (State::Missing, "neither Landlock ABI 6 (Linux 6.12) nor seccomp nor another uid")
    } else if policy.supervisor_pid == 1 {
        (State::Fallback, "seccomp argument rules on both pids, and the kernel's shield of PID 1")
    } else {
        (
            State::Fallback,
            "seccomp argument rules on both pids; ids of threads that the supervisor starts later are not covered",
        )
    }
}

fn tree_killable(facts: &Facts, other_uid: bool) -> (State, &'static str) {
    if other_uid && !holds(facts.capabilities, KILL) {
        (
            State::Missing,
            "the program has another uid (SUPERVISOR_AGENT_USER) and the supervisor lacks the capability KILL",
        )
    } else if facts.signals_are_scoped() {
        (State::Holds, "kill(-1) inside a Landlock signal scope")
    } else {
        (
            State::Fallback,
            "best effort: stop and sweep of all descendants in /proc; Landlock ABI 6 (Linux 6.12) does it at once",
        )
    }
}

fn files(facts: &Facts) -> (State, &'static str) {
    match facts.landlock_abi {
        abi if abi >= TRUNCATE_ABI => (State::Holds, "Landlock path rules"),
        abi if abi >= FIRST_ABI && facts.seccomp => (
            State::Fallback,
            "Landlock path rules; truncation, which they see from ABI 3 (Linux 6.2), is closed by seccomp",
        ),
        abi if abi >= FIRST_ABI => (State::Missing, "truncation needs Landlock ABI 3 (Linux 6.2) or seccomp"),
        _ => (State::Missing, NO_LANDLOCK),
    }
}

fn tcp_ports(facts: &Facts, policy: &Policy) -> (State, &'static str) {
    match (&policy.connect_ports, policy.class) {
        (None, _) => (State::NotAsked, "no port list is set"),
        (Some(_), ExecutionClass::Local | ExecutionClass::Readonly) => {
            (State::NotAsked, "the class has no inet sockets")
        }
        (Some(_), ExecutionClass::Networked) if facts.landlock_abi < PORTS_ABI => {
            (State::Missing, "needs Landlock ABI 4 (Linux 6.7)")
        }
        (Some(_), ExecutionClass::Networked) if !facts.seccomp => {
            (State::Missing, "without seccomp MPTCP and fast open pass Landlock's port rules by")
        }
        (Some(_), ExecutionClass::Networked) => {
            (State::Holds, "Landlock port rules; seccomp closes MPTCP and fast open")
        }
    }
}
