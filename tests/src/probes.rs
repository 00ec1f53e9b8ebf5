//! Escapes that an agent might try, one function each.
//!
//! `probe NAME` prints `escaped: …`, `denied: …` or `untried: …` and exits 0, 1 or 2. Each is run in several places: in the
//! control, where nothing confines it and it must escape; under the real supervisor as Pod Security `restricted`;
//! and as `baseline`. A probe that cannot escape in its control proves nothing.

use std::fmt;

use nix::errno::Errno;
use nix::unistd::{Pid, getppid};
use protocol::guarantee::Guarantee;
use protocol::policy::ExecutionClass;

mod descriptors;
mod files;
mod marked;
pub use marked::MARKED;
mod memory;
mod network;
pub mod outsider;
mod own;
mod privileges;
pub use privileges::{capable_child, setuid_child};
mod reached;
mod readonly;
mod signals;
pub mod stand_in;
mod syscalls;
pub mod terminal;
mod throttle;
pub mod trial;

/// One escape.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    /// What is tried, in a few words.
    pub name: &'static str,
    /// The promise that it would break.
    pub guards: Guarantee,
    /// Who escapes when nothing confines it.
    pub control: Control,
    /// The class that forbids it.
    pub class: ExecutionClass,
    /// In the control nobody holds the supervisor's port.
    pub free_port: bool,
    /// What the supervisor is told beside the class.
    pub settings: &'static [(&'static str, &'static str)],
    /// Known to be open in profile `restricted`, and why; `docs/security.md` says so too.
    pub open_in_restricted: Option<&'static str>,
    /// The attempt.
    pub run: fn(&Target) -> Outcome,
}

/// Who escapes when nothing confines it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// The supervisor's own uid, without any capability: so it is the shim that stops it.
    User,
    /// Root with this machine's capabilities.
    Root,
    /// Nobody on the kernels that CI has, and why: the probe counts for nothing there.
    Nobody(&'static str),
}

/// How an attempt went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It worked.
    Escaped(String),
    /// It was refused.
    Denied(String),
    /// It could not be tried.
    Untried(String),
}

/// Whom a probe attacks.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The supervisor, or who stands in for it.
    pub supervisor: Pid,
    /// The shim.
    pub shim: Pid,
    /// A process of the Pod that is not of the agent's tree.
    pub outsider: Option<Pid>,
}

impl Target {
    /// As seen from the program that the shim started.
    pub fn look() -> Target {
        let shim = getppid();
        Target { supervisor: outsider::parent(shim).unwrap_or(Pid::from_raw(1)), shim, outsider: outsider::find() }
    }

    /// The outsider, or pid 0 that no call accepts.
    fn outsider(&self) -> Result<Pid, Outcome> {
        self.outsider.ok_or_else(|| Outcome::Untried("there is no outsider".into()))
    }
}

const fn probe(name: &'static str, guards: Guarantee, run: fn(&Target) -> Outcome) -> Probe {
    let class = ExecutionClass::Networked;
    Probe {
        name,
        guards,
        control: Control::User,
        class,
        free_port: false,
        settings: &[],
        open_in_restricted: None,
        run,
    }
}

impl Probe {
    /// Whether anybody gets out when nothing confines it.
    pub fn has_control(&self) -> bool {
        !matches!(self.control, Control::Nobody(_))
    }

    const fn root(mut self) -> Probe {
        self.control = Control::Root;
        self
    }

    const fn nobody(mut self, why: &'static str) -> Probe {
        self.control = Control::Nobody(why);
        self
    }

    const fn only_x86(self) -> Probe {
        if cfg!(target_arch = "x86_64") { self } else { self.nobody("only x86 has it") }
    }

    const fn class(mut self, class: ExecutionClass) -> Probe {
        self.class = class;
        self
    }

    const fn free_port(mut self) -> Probe {
        self.free_port = true;
        self
    }

    const fn set(mut self, settings: &'static [(&'static str, &'static str)]) -> Probe {
        self.settings = settings;
        self
    }

    const fn open_in_restricted(mut self, why: &'static str) -> Probe {
        self.open_in_restricted = Some(why);
        self
    }
}

/// Every probe.
pub fn all() -> impl Iterator<Item = &'static Probe> {
    [
        privileges::PROBES,
        memory::PROBES,
        signals::PROBES,
        throttle::PROBES,
        files::PROBES,
        readonly::PROBES,
        network::PROBES,
        terminal::PROBES,
        syscalls::PROBES,
        reached::PROBES,
        descriptors::PROBES,
        own::PROBES,
    ]
    .into_iter()
    .flatten()
}

/// The probe of that name.
pub fn find(name: &str) -> Option<&'static Probe> {
    all().chain([&MARKED]).find(|p| p.name == name)
}

impl Outcome {
    /// Exit code of the probe program.
    pub const fn code(&self) -> u8 {
        match self {
            Outcome::Escaped(_) => 0,
            Outcome::Denied(_) => 1,
            Outcome::Untried(_) => 2,
        }
    }

    /// The reverse of the printed line.
    pub fn parse(line: &str) -> Option<Outcome> {
        let (word, reason) = line.split_once(": ")?;
        match word {
            "escaped" => Some(Outcome::Escaped(reason.into())),
            "denied" => Some(Outcome::Denied(reason.into())),
            "untried" => Some(Outcome::Untried(reason.into())),
            _ => None,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Escaped(how) => write!(f, "escaped: {how}"),
            Outcome::Denied(why) => write!(f, "denied: {why}"),
            Outcome::Untried(why) => write!(f, "untried: {why}"),
        }
    }
}

/// Success of the call is the escape.
fn judge<T, E: fmt::Display>(result: Result<T, E>) -> Outcome {
    match result {
        Ok(_) => Outcome::Escaped("the call succeeded".into()),
        Err(error) => Outcome::Denied(error.to_string()),
    }
}

/// Getting as far as one of these errors is the escape: the kernel judged the arguments, so nothing stood before it.
fn reaches<T>(result: Result<T, Errno>, errors: &[Errno]) -> Outcome {
    match result {
        Err(error) if errors.contains(&error) => Outcome::Escaped(format!("the kernel looked at it: {error}")),
        other => judge(other),
    }
}

/// A raw call, success of which is the escape.
fn call(number: i64, arguments: &[u64]) -> Outcome {
    judge(crate::kernel::call(number, arguments))
}

/// Whether something that took effect is the escape.
fn effect(happened: bool, what: &str) -> Outcome {
    if happened { Outcome::Escaped(what.into()) } else { Outcome::Denied(format!("not {what}")) }
}
