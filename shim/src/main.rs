//! `shim FD`: read a policy from the inherited socket FD, start its program, stay as the init of its tree.
//! `shim --zygote FD`: fork into such a shim for each order on FD.

use std::ffi::OsStr;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::process::ExitCode;

use nix::fcntl::OFlag;
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::SigSet;
use nix::unistd::{getpgid, getpid, pipe2, write};
use protocol::control::{Failure, Report, Step, encode};
use protocol::exit::{CONFINEMENT, USAGE};
use protocol::policy::Policy;
use protocol::zygote::FLAG;
use shim::confine::{Child, become_program};
use shim::control::Control;
use shim::execute::Execution;
use shim::failure::{because, failed};
use shim::filesystem::Held;
use shim::guarantees::{self, Facts};
use shim::kernel::{self, Fork};
use shim::oom::OomScore;
use shim::tree::{Program, Reach, Tree, wakeups};
use shim::{capabilities, descriptors, session, zygote};

fn main() -> ExitCode {
    // Handed down by every fork; all but what is ignored would be reset by `execve` anyway.
    kernel::default_signal_actions();
    let mut arguments = std::env::args_os().skip(1);
    let (first, second, more) = (arguments.next(), arguments.next(), arguments.next());
    match (first.as_deref().and_then(OsStr::to_str), second.as_deref().and_then(OsStr::to_str), more) {
        (Some("--version"), None, None) => {
            println!("shim {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        (Some(FLAG), Some(number), None) => inherited(number).map_or_else(usage, serve),
        (Some(number), None, None) => inherited(number).map_or_else(usage, |control| run(control, Facts::read(), None)),
        _ => usage(),
    }
}

fn usage() -> ExitCode {
    let _ = writeln!(std::io::stderr(), "usage: shim FD (a stream socket above 2, inherited from the supervisor)");
    ExitCode::from(USAGE)
}

fn inherited(number: &str) -> Option<OwnedFd> {
    let number: RawFd = number.parse().ok()?;
    if number > 2 { kernel::own(number).ok() } else { None }
}

/// Every shim that is forked comes back from the zygote's loop with its own control socket, and is one like any other.
fn serve(orders: OwnedFd) -> ExitCode {
    // Once for all of them: that of the programs goes anyway, and shims start none but these.
    let prepared = hide().and_then(|()| capabilities::drop_bounding());
    let facts = Facts::read();
    match prepared.and_then(|()| zygote::serve(orders)) {
        Ok(Some((control, held))) => run(control, facts, Some(held)),
        Ok(None) => ExitCode::SUCCESS,
        // Its supervisor starts shims the longer way, and says so.
        Err(_) => ExitCode::from(CONFINEMENT),
    }
}

/// `held` is what a shim that was forked has from its zygote.
fn run(socket: OwnedFd, facts: Facts, held: Option<Held>) -> ExitCode {
    let mut control = Control::new(socket);
    match start(&mut control, &facts, held) {
        Ok(tree) => tree.run(control),
        Err(failure) => {
            control.report(&Report::Failed(failure));
            control.send_all();
            ExitCode::from(CONFINEMENT)
        }
    }
}

/// Every step up to the fork, and the fork; the child never returns from here. What needs no policy comes first: a shim
/// that waits for one has it behind it.
fn start(control: &mut Control, facts: &Facts, held: Option<Held>) -> Result<Tree, Failure> {
    if held.is_none() {
        descriptors::close_all_but(control.as_fd().as_raw_fd())?;
    }
    let score = OomScore::open();
    hide()?;
    SigSet::all().thread_block().map_err(because(Step::Session, "blocking signals"))?;
    let wakeups = wakeups()?;
    prctl::set_child_subreaper(true).map_err(because(Step::Session, "becoming the tree's reaper"))?;
    prctl::set_no_new_privs().map_err(because(Step::NoNewPrivileges, "no_new_privs"))?;
    let reach = Reach::establish(facts)?;
    let (status, child_status) = pipe2(OFlag::O_CLOEXEC).map_err(because(Step::Fork, "making the status pipe"))?;

    let (policy, streams) = control.policy()?;
    if held.is_some() && streams.is_empty() {
        return Err(failed(Step::Descriptors, 0, "the streams of the program did not come with its policy"));
    }
    zygote::take_over(streams)?;
    if policy.held && held.is_none() {
        return Err(failed(Step::Policy, 0, "the policy counts on a zygote, and this shim has none"));
    }
    let held = held.unwrap_or_default();
    let execution = Execution::new(&policy.program)?;
    let guarantees = guarantees::standings(facts, &policy);
    guarantees::refuse(&policy, &guarantees)?;
    let supervisor_group = supervisor_group(&policy);
    let left = session::leave(policy.session);
    let shim = getpid().as_raw();
    let lent = score.lend(policy.oom_score_adj)?;
    match kernel::fork().map_err(because(Step::Fork, "fork (is the limit of processes reached?)"))? {
        Fork::Child => {
            let child = Child { policy: &policy, execution: &execution, facts, held: &held, shim, supervisor_group };
            let Err(failure) = become_program(&child);
            if let Ok(frame) = encode(&failure) {
                let _ = write(&child_status, &frame);
            }
            kernel::exit(CONFINEMENT.into())
        }
        Fork::Parent(pid) => {
            drop(child_status);
            lent.take_back()?;
            capabilities::keep_kill().map_err(because(Step::Capabilities, "dropping the shim's capabilities"))?;
            let landlock_abi = facts.landlock_abi;
            Tree::new(Program { pid, status, guarantees, landlock_abi, reach, left }, &policy, wakeups)
        }
    }
}

/// Neither memory nor descriptors of the shim are for others of its uid, and no core file is written.
fn hide() -> Result<(), Failure> {
    prctl::set_dumpable(false).map_err(because(Step::Session, "PR_SET_DUMPABLE"))?;
    let limit = getrlimit(Resource::RLIMIT_CORE).and_then(|(_, hard)| setrlimit(Resource::RLIMIT_CORE, 0, hard));
    limit.map_err(because(Step::Limits, "limit core"))
}

/// The group that `kill(2)` must not mean, 0 where it cannot be known (another PID namespace).
fn supervisor_group(policy: &Policy) -> i32 {
    getpgid(Some(nix::unistd::Pid::from_raw(policy.supervisor_pid))).map_or(0, |group| group.as_raw())
}
