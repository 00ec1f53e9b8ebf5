//! What can be left out of a confinement, and how it is said on a command line.

use std::fmt;
use std::str::FromStr;

use crate::kernel::Asked;

/// One thing left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cut {
    /// The filter lets this call through, whatever its arguments.
    Call(u32),
    /// This clause of the call's rule.
    Clause(u32, u32),
    /// This test of that clause.
    Test(u32, u32, u32),
    /// This bit of the mask that the clause tests.
    Bit(u32, u32, u32),
    /// What keeps foreign numbers out.
    Gate(Gate),
    /// This file system right, by the number of its bit, is not handled.
    Right(u32),
    /// Connecting to TCP ports is not handled.
    Ports,
    /// A scope.
    Scope(Scope),
    /// This capability stays in every set that it is in.
    Capability(u32),
    /// The domain around the tree speaks of no path.
    TreePaths,
    /// Landlock is of this ABI, which is an answer and no deafness.
    Abi(u32),
    /// A whole step.
    Step(Step),
    /// Nothing: between the shim and its program pids begin again from below (pid_namespaces(7)).
    Wrap,
    /// Nothing: what the probe asks of the kernel is written to standard error.
    Record,
    /// Nothing: calls that are marked ([`crate::kernel::MARK`]) and let through are not done, and answered [`CAUGHT`].
    Catch,
}

/// The answer to a marked call that every filter lets through. No call answers so, and no errno is that large.
pub const CAUGHT: i64 = 0x00ca_0047;

/// What keeps foreign numbers out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Gate {
    /// Calls of another architecture end the process.
    Architecture,
    /// Numbers from 0x4000_0000 on are unknown.
    X32,
    /// Numbers that no list has are unknown.
    Unknown,
}

/// A scope of a Landlock domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Scope {
    /// Of the shim's own domain, around the program's.
    pub tree: bool,
    /// `LANDLOCK_SCOPE_*`: 1 abstract sockets, 2 signals.
    pub bit: u64,
}

macro_rules! steps {
    ($($(#[$doc:meta])* $name:ident = $word:literal,)*) => {
        /// A step that the kernel says yes to and does not take.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Step { $($(#[$doc])* $name,)* }

        impl Step {
            /// All.
            pub const ALL: &[Step] = &[$(Step::$name,)*];

            /// The word on the command line.
            pub const fn name(self) -> &'static str {
                match self { $(Step::$name => $word,)* }
            }
        }
    };
}

steps! {
    /// The filter.
    Filter = "filter",
    /// The program's Landlock domain.
    Domain = "domain",
    /// The domain around the tree.
    TreeDomain = "tree-domain",
    /// `no_new_privs`.
    NoNewPrivs = "no-new-privs",
    /// The shim hides.
    Hide = "hide",
    /// The supervisor hides.
    HideSupervisor = "hide-supervisor",
    /// No core file of the shim.
    Core = "core",
    /// No core file of the supervisor.
    CoreSupervisor = "core-supervisor",
    /// The bounding set is emptied.
    Bounding = "bounding",
    /// The ambient set is emptied.
    Ambient = "ambient",
    /// The other sets are emptied.
    Capabilities = "capabilities",
    /// What was done is read back.
    ReadBack = "read-back",
    /// Inherited descriptors are closed.
    Close = "close",
    /// The rest is closed by `execve`.
    CloseOnExec = "close-on-exec",
    /// The control socket is closed by `execve`.
    OwnControl = "own-control",
    /// A session of its own.
    Session = "session",
    /// Supplementary groups.
    Groups = "groups",
    /// The group.
    Group = "group",
    /// The user.
    User = "user",
    /// The program dies with its shim.
    ParentDeath = "parent-death",
    /// The program's limits.
    Limits = "limits",
}

impl Step {
    /// Whether this call is the step. `child`: the shim's child asks, and not the resident shim.
    pub(super) fn is(self, asked: &Asked, child: bool) -> bool {
        let [first, second, third, ..] = asked.arguments;
        let call = i64::from(asked.number);
        let option = |option: i32| call == libc::SYS_prctl && first == option as u64;
        match self {
            Step::Filter => call == libc::SYS_seccomp && first == 1 && third != 0,
            Step::Domain => call == libc::SYS_landlock_restrict_self && child,
            Step::TreeDomain => call == libc::SYS_landlock_restrict_self && !child,
            Step::NoNewPrivs => option(libc::PR_SET_NO_NEW_PRIVS),
            Step::Hide | Step::HideSupervisor => option(libc::PR_SET_DUMPABLE),
            Step::Core | Step::CoreSupervisor => {
                call == libc::SYS_prlimit64 && !child && second == libc::RLIMIT_CORE as u64 && third != 0
            }
            Step::Limits => call == libc::SYS_prlimit64 && child && third != 0,
            Step::Bounding => option(libc::PR_CAPBSET_DROP),
            Step::Ambient => option(libc::PR_CAP_AMBIENT),
            Step::Capabilities => call == libc::SYS_capset && child,
            Step::ReadBack => match call {
                libc::SYS_pread64 | libc::SYS_getgroups => child,
                libc::SYS_kill => !child && second == 0,
                _ => false,
            },
            Step::Close => call == libc::SYS_close_range && third == 0,
            Step::CloseOnExec => call == libc::SYS_close_range && third != 0,
            Step::OwnControl => call == libc::SYS_fcntl && second == libc::F_SETFD as u64,
            Step::Session => call == libc::SYS_setsid && child,
            Step::Groups => call == libc::SYS_setgroups,
            Step::Group => call == libc::SYS_setresgid,
            Step::User => call == libc::SYS_setresuid,
            Step::ParentDeath => option(libc::PR_SET_PDEATHSIG),
        }
    }

    fn calls(self) -> &'static [i64] {
        match self {
            Step::Filter => &[libc::SYS_seccomp],
            Step::Domain | Step::TreeDomain => &[libc::SYS_landlock_restrict_self],
            Step::NoNewPrivs
            | Step::Hide
            | Step::HideSupervisor
            | Step::Bounding
            | Step::Ambient
            | Step::ParentDeath => &[libc::SYS_prctl],
            Step::Core | Step::CoreSupervisor | Step::Limits => &[libc::SYS_prlimit64],
            Step::Capabilities => &[libc::SYS_capset],
            Step::ReadBack => &[libc::SYS_pread64, libc::SYS_getgroups, libc::SYS_kill],
            Step::Close | Step::CloseOnExec => &[libc::SYS_close_range],
            Step::OwnControl => &[libc::SYS_fcntl],
            Step::Session => &[libc::SYS_setsid],
            Step::Groups => &[libc::SYS_setgroups],
            Step::Group => &[libc::SYS_setresgid],
            Step::User => &[libc::SYS_setresuid],
        }
    }
}

impl Cut {
    /// The system calls that have to be heard.
    pub(super) fn calls(&self) -> Vec<u32> {
        let calls: &[i64] = match self {
            Cut::Call(_) | Cut::Clause(..) | Cut::Test(..) | Cut::Bit(..) | Cut::Gate(_) => &[libc::SYS_seccomp],
            Cut::Abi(_) => &[libc::SYS_landlock_create_ruleset],
            Cut::Right(_) | Cut::Ports | Cut::Scope(_) | Cut::TreePaths => {
                &[libc::SYS_landlock_create_ruleset, libc::SYS_landlock_add_rule]
            }
            Cut::Capability(_) => &[libc::SYS_prctl, libc::SYS_capset],
            Cut::Wrap => &[libc::SYS_prctl],
            Cut::Step(step) => step.calls(),
            Cut::Record => return super::filter::judged(),
            Cut::Catch => &[],
        };
        calls.iter().map(|&call| call as u32).collect()
    }

    /// The program whose calls are meant, by the kernel's name of it.
    pub(super) fn whose(&self) -> &'static str {
        if matches!(self, Cut::Step(Step::HideSupervisor | Step::CoreSupervisor)) { "supervisor" } else { "shim" }
    }
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cut::Call(number) => write!(f, "call:{number}"),
            Cut::Clause(number, clause) => write!(f, "clause:{number}:{clause}"),
            Cut::Test(number, clause, test) => write!(f, "test:{number}:{clause}:{test}"),
            Cut::Bit(number, clause, bit) => write!(f, "bit:{number}:{clause}:{bit}"),
            Cut::Gate(Gate::Architecture) => write!(f, "gate:architecture"),
            Cut::Gate(Gate::X32) => write!(f, "gate:x32"),
            Cut::Gate(Gate::Unknown) => write!(f, "gate:unknown"),
            Cut::Right(bit) => write!(f, "right:{bit}"),
            Cut::Ports => write!(f, "ports"),
            Cut::Scope(Scope { tree, bit }) => write!(f, "scope:{}:{bit}", u8::from(*tree)),
            Cut::Capability(number) => write!(f, "capability:{number}"),
            Cut::TreePaths => write!(f, "tree-paths"),
            Cut::Abi(abi) => write!(f, "abi:{abi}"),
            Cut::Step(step) => write!(f, "step:{}", step.name()),
            Cut::Wrap => write!(f, "wrap"),
            Cut::Record => write!(f, "record"),
            Cut::Catch => write!(f, "catch"),
        }
    }
}

impl FromStr for Cut {
    type Err = String;

    fn from_str(text: &str) -> Result<Cut, String> {
        let words: Vec<&str> = text.split(':').collect();
        let number = |word: &str| word.parse::<u32>().map_err(|error| format!("{text}: {error}"));
        Ok(match words[..] {
            ["call", call] => Cut::Call(number(call)?),
            ["clause", call, clause] => Cut::Clause(number(call)?, number(clause)?),
            ["test", call, clause, test] => Cut::Test(number(call)?, number(clause)?, number(test)?),
            ["bit", call, clause, bit] => Cut::Bit(number(call)?, number(clause)?, number(bit)?),
            ["gate", "architecture"] => Cut::Gate(Gate::Architecture),
            ["gate", "x32"] => Cut::Gate(Gate::X32),
            ["gate", "unknown"] => Cut::Gate(Gate::Unknown),
            ["right", bit] => Cut::Right(number(bit)?),
            ["ports"] => Cut::Ports,
            ["scope", tree, bit] => Cut::Scope(Scope { tree: tree == "1", bit: number(bit)?.into() }),
            ["capability", capability] => Cut::Capability(number(capability)?),
            ["tree-paths"] => Cut::TreePaths,
            ["abi", abi] => Cut::Abi(number(abi)?),
            ["wrap"] => Cut::Wrap,
            ["record"] => Cut::Record,
            ["catch"] => Cut::Catch,
            ["step", word] => Step::ALL
                .iter()
                .find(|step| step.name() == word)
                .map(|step| Cut::Step(*step))
                .ok_or_else(|| format!("{text}: there is no such step"))?,
            _ => return Err(format!("{text}: nothing that can be left out")),
        })
    }
}
