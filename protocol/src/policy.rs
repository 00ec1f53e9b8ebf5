//! What the shim obeys: one policy starts one program.
//!
//! The supervisor writes it, the shim reads it once and holds every line of it or says which step failed.
//! Byte strings are [`OsString`], because neither argv nor a path has to be UTF-8.

use std::ffi::OsString;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::guarantee::Guarantee;

/// Everything one program is started with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// What is run.
    pub program: Program,
    /// Whose session the program belongs to.
    pub session: Session,
    /// The ids the program runs as; `None` keeps the supervisor's own (profile *restricted*).
    pub identity: Option<Identity>,
    /// Resource limits, applied in this order (`setrlimit(2)`).
    pub limits: Vec<Limit>,
    /// `oom_score_adj` of the program, -1000 to 1000; lowering below the inherited value needs privilege.
    pub oom_score_adj: Option<i16>,
    /// Nice value, -20 to 19; lowering needs privilege.
    pub nice: Option<i8>,
    /// What the program may do with which path. A path that no rule covers cannot be opened at all.
    pub files: Vec<FileRule>,
    /// It may also read what the shim's zygote holds open ([`crate::zygote::HOLD`]).
    pub held: bool,
    /// Network and workspace class, enforced by seccomp and Landlock.
    pub class: ExecutionClass,
    /// For `networked`: the TCP ports the program may connect to (`None`: any). A guard rail, not a boundary.
    pub connect_ports: Option<Vec<u16>>,
    /// The supervisor's pid as the shim sees it: never a target of signal, limit or scheduling calls.
    pub supervisor_pid: i32,
    /// Refuse to start when a required guarantee does not hold, or start and say so.
    pub enforcement: Enforcement,
    /// The guarantees that must hold under [`Enforcement::Required`].
    pub required: Vec<Guarantee>,
    /// TERM to KILL when the lifeline breaks, that is, when the supervisor is gone.
    pub lifeline_grace: Duration,
    /// TERM to KILL for processes that the main program left behind when it ended by itself.
    pub leftover_grace: Duration,
}

/// The program itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Absolute path of the file to execute; the supervisor has already searched `PATH`.
    pub path: OsString,
    /// argv, `argv[0]` included; never empty.
    pub argv: Vec<OsString>,
    /// The whole environment, `KEY=VALUE`; nothing is inherited.
    pub env: Vec<OsString>,
    /// Working directory, entered before confinement; `None` keeps the supervisor's.
    pub cwd: Option<OsString>,
    /// File mode creation mask.
    pub umask: u32,
}

/// Whose session the program belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Session {
    /// A session of its own, without a terminal.
    Own,
    /// Standard input is a terminal: same session, its own process group, in the foreground.
    Terminal,
    /// A session of its own, whose terminal standard input is.
    OwnTerminal,
}

/// Ids to change to. Supplementary groups are replaced by `groups`, never kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary group ids.
    pub groups: Vec<u32>,
}

/// One resource limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// Which.
    pub resource: Resource,
    /// Soft limit, `u64::MAX` for unlimited.
    pub soft: u64,
    /// Hard limit, `u64::MAX` for unlimited.
    pub hard: u64,
}

/// The limits of `setrlimit(2)` that can be set; names as in limits.conf(5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Resource {
    Core,
    Cpu,
    Data,
    Fsize,
    Nofile,
    Nproc,
    As,
    Stack,
    Memlock,
}

/// One path beneath which the program may do something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRule {
    /// Absolute path; a file, or a directory with everything beneath it.
    pub path: OsString,
    /// What is allowed.
    pub access: Access,
}

/// What a [`FileRule`] allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Access {
    /// Read files, list directories, execute.
    Read,
    /// Device nodes and the like: read, write and ioctl on what is there, nothing made or removed.
    Device,
    /// Everything: also make, remove, rename, truncate.
    Write,
}

/// The network and workspace class of design.md's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExecutionClass {
    /// No inet sockets; the workspace is writable.
    Local,
    /// No inet sockets; the workspace is read-only.
    Readonly,
    /// What the Pod's NetworkPolicy lets through.
    Networked,
}

impl ExecutionClass {
    /// All, from the narrowest network to the widest.
    pub const ALL: [ExecutionClass; 3] = [ExecutionClass::Local, ExecutionClass::Readonly, ExecutionClass::Networked];

    /// The word in settings, requests and answers.
    pub const fn name(self) -> &'static str {
        match self {
            ExecutionClass::Local => "local",
            ExecutionClass::Readonly => "readonly",
            ExecutionClass::Networked => "networked",
        }
    }

    /// The class of that name.
    pub fn from_name(name: &str) -> Option<ExecutionClass> {
        Self::ALL.into_iter().find(|class| class.name() == name)
    }
}

/// What happens when a guarantee cannot be held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Enforcement {
    /// Do not start the program.
    Required,
    /// Start it, and show what does not hold in health, metrics and log.
    BestEffort,
}
