//! The child's steps, from fork to `execve`, in the one order that works.
//!
//! Each needs what a later one takes away: raising limits and emptying the bounding set need capabilities, which the
//! change of ids takes; paths and `/proc` must be opened before Landlock closes them; seccomp comes last, because it
//! closes calls that the steps before it use. Nothing is left to the program's goodwill.

use std::convert::Infallible;

use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{chdir, getpid, getppid};
use protocol::control::{Failure, Step};
use protocol::policy::Policy;

use crate::execute::Execution;
use crate::failure::{because, failed};
use crate::filesystem::Held;
use crate::guarantees::Facts;
use crate::readback::Status;
use crate::syscalls::generator::{Protected, Target, generate};
use crate::syscalls::profile::Architecture;
use crate::{capabilities, descriptors, filesystem, identity, limits, session, syscalls};

/// What the child inherits from the steps before the fork.
pub struct Child<'a> {
    /// What to obey.
    pub policy: &'a Policy,
    /// Path, argv and environment.
    pub execution: &'a Execution,
    /// What this kernel has.
    pub facts: &'a Facts,
    /// What its zygote holds open.
    pub held: &'a Held,
    /// The resident shim's pid.
    pub shim: i32,
    /// The supervisor's process group.
    pub supervisor_group: i32,
}

/// Give up everything and become the program; returns only to say which step failed.
pub fn become_program(child: &Child<'_>) -> Result<Infallible, Failure> {
    let Child { policy, facts, .. } = child;
    descriptors::close_on_exec()?;
    session::enter(policy.session)?;
    umask(Mode::from_bits_truncate(policy.program.umask));
    limits::apply(policy)?;
    if !facts.bounding_empty {
        capabilities::drop_bounding()?;
    }
    capabilities::clear_ambient()?;
    if let Some(identity) = &policy.identity {
        identity::assume(identity)?;
    }
    die_with(child.shim)?;
    enter_working_directory(policy)?;
    let status = Status::open()?;
    prctl::set_no_new_privs().map_err(because(Step::NoNewPrivileges, "no_new_privs"))?;
    filesystem::confine(policy, child.held, facts.landlock_abi)?;
    capabilities::drop_all()?;
    status.check(policy, facts.bounding_stays())?;
    let filter = generate(Architecture::NATIVE, &target(child));
    SigSet::empty().thread_set_mask().map_err(because(Step::Exec, "unblocking signals"))?;
    if facts.seccomp {
        syscalls::install(&filter)?;
    }
    child.execution.run()
}

/// A shim that is killed must not leave its program behind. Set after the change of ids, which clears it (prctl(2)).
fn die_with(shim: i32) -> Result<(), Failure> {
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(because(Step::Session, "PR_SET_PDEATHSIG"))?;
    // It may have died before the call.
    if getppid().as_raw() == shim { Ok(()) } else { Err(failed(Step::Session, 0, "the shim is gone")) }
}

/// With the program's own ids: the shim would enter directories that the program may not, and without
/// CAP_DAC_OVERRIDE could not enter some that it may.
fn enter_working_directory(policy: &Policy) -> Result<(), Failure> {
    let Some(cwd) = &policy.program.cwd else { return Ok(()) };
    let what = format!("working directory {}", std::path::Path::new(cwd).display());
    chdir(cwd.as_os_str()).map_err(because(Step::WorkingDirectory, what))
}

fn target(child: &Child<'_>) -> Target {
    let supervisor = child.policy.supervisor_pid;
    Target {
        class: child.policy.class,
        landlock_abi: child.facts.landlock_abi,
        protected: Protected::new(supervisor, child.supervisor_group, child.shim, getpid().as_raw()),
    }
}
