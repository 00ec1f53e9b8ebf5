//! Named promises of a confinement. Operators choose guarantees, never kernel layers; `docs/security.md` has
//! each one's mechanism, smallest kernel and fallback.

use serde::{Deserialize, Serialize};

/// A promise about what the program cannot do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Guarantee {
    /// No capability in any set, and none can be gained (`no_new_privs`).
    NoPrivileges,
    /// Tokens, configuration and hidden paths cannot be opened.
    TokenUnreadable,
    /// The supervisor's state cannot be opened, changed or removed.
    StateIntact,
    /// The supervisor's memory, environment and descriptors cannot be read, nor can it be traced.
    SupervisorNotTraced,
    /// No signal reaches the supervisor or the shim.
    SupervisorNotSignalled,
    /// Limits, priorities and oom scores of the supervisor and the shim cannot be changed.
    SupervisorNotThrottled,
    /// Every process of the tree can be ended, `setsid` escapees included.
    TreeKillable,
    /// Only listed system calls reach the kernel; x32 and i386 entries are closed.
    SyscallsFiltered,
    /// Only listed paths can be written.
    FilesConfined,
    /// Abstract Unix sockets of other trees cannot be reached.
    AbstractSocketsClosed,
    /// Classes `local` and `readonly`: no inet socket can be made.
    NoInet,
    /// Class `readonly`: the workspace cannot be changed, metadata included.
    WorkspaceReadOnly,
    /// A TCP port list holds.
    TcpPorts,
}

impl Guarantee {
    /// All, in the order in which tables print them.
    pub const ALL: [Guarantee; 13] = [
        Guarantee::NoPrivileges,
        Guarantee::TokenUnreadable,
        Guarantee::StateIntact,
        Guarantee::SupervisorNotTraced,
        Guarantee::SupervisorNotSignalled,
        Guarantee::SupervisorNotThrottled,
        Guarantee::TreeKillable,
        Guarantee::SyscallsFiltered,
        Guarantee::FilesConfined,
        Guarantee::AbstractSocketsClosed,
        Guarantee::NoInet,
        Guarantee::WorkspaceReadOnly,
        Guarantee::TcpPorts,
    ];

    /// Required unless the operator says otherwise: all that hold, if by fallback, from Landlock ABI 1 on.
    /// `abstract-sockets-closed` needs ABI 6 and `tcp-ports` ABI 4, so they are not among them.
    pub const DEFAULT: [Guarantee; 11] = [
        Guarantee::NoPrivileges,
        Guarantee::TokenUnreadable,
        Guarantee::StateIntact,
        Guarantee::SupervisorNotTraced,
        Guarantee::SupervisorNotSignalled,
        Guarantee::SupervisorNotThrottled,
        Guarantee::TreeKillable,
        Guarantee::SyscallsFiltered,
        Guarantee::FilesConfined,
        Guarantee::NoInet,
        Guarantee::WorkspaceReadOnly,
    ];

    /// The word used in settings, health, metrics and docs.
    pub const fn name(self) -> &'static str {
        match self {
            Guarantee::NoPrivileges => "no-privileges",
            Guarantee::TokenUnreadable => "token-unreadable",
            Guarantee::StateIntact => "state-intact",
            Guarantee::SupervisorNotTraced => "supervisor-not-traced",
            Guarantee::SupervisorNotSignalled => "supervisor-not-signalled",
            Guarantee::SupervisorNotThrottled => "supervisor-not-throttled",
            Guarantee::TreeKillable => "tree-killable",
            Guarantee::SyscallsFiltered => "syscalls-filtered",
            Guarantee::FilesConfined => "files-confined",
            Guarantee::AbstractSocketsClosed => "abstract-sockets-closed",
            Guarantee::NoInet => "no-inet",
            Guarantee::WorkspaceReadOnly => "workspace-read-only",
            Guarantee::TcpPorts => "tcp-ports",
        }
    }

    /// The guarantee of that name.
    pub fn from_name(name: &str) -> Option<Guarantee> {
        Self::ALL.into_iter().find(|g| g.name() == name)
    }
}

/// How a guarantee stands for one running program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Which guarantee.
    pub guarantee: Guarantee,
    /// Whether it holds.
    pub state: State,
    /// The mechanism that holds it, or what is missing; for people.
    pub by: String,
}

/// Whether a guarantee holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// By its first mechanism.
    Holds,
    /// By its stated fallback; counts as held.
    Fallback,
    /// It does not hold on this node.
    Missing,
    /// The policy does not ask for it (for instance `no-inet` for a networked program).
    NotAsked,
}

#[cfg(test)]
mod tests {
    use super::Guarantee;

    #[test]
    fn every_name_leads_back_to_its_guarantee() {
        for guarantee in Guarantee::ALL {
            assert_eq!(Guarantee::from_name(guarantee.name()), Some(guarantee));
        }
    }
}
