//! The resident shim: init of one tree of processes.
//!
//! - Every process of the tree ends here: the shim is their subreaper, so who loses its parent becomes its child.
//!   When it has no child left, nobody of the tree is left.
//! - Reaping never waits for the supervisor, and nothing but ends is waited for.
//! - Once a deadline is set it only comes nearer. Behind it everyone gets KILL until nobody is left.

use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use protocol::control::{Command, Exit, Failure, Report, Scope, Step, Usage};
use protocol::guarantee::Standing;
use protocol::policy::Policy;

use crate::control::Control;
use crate::failure::because;
use crate::kernel;
use crate::session::Left;

mod launch;
pub(crate) mod reach;

use launch::{Launch, Outcome};

pub use reach::Reach;

/// What the fork left in the shim's hands.
pub struct Program {
    /// The main program's pid.
    pub pid: i32,
    /// Where the child says which step failed; it closes at `execve`.
    pub status: OwnedFd,
    /// What was promised.
    pub guarantees: Vec<Standing>,
    /// Landlock's ABI in force.
    pub landlock_abi: u32,
    /// How all of its tree are reached.
    pub reach: Reach,
    /// Where the terminal goes back to.
    pub left: Left,
}

/// A descriptor that is readable when a child has ended.
pub fn wakeups() -> Result<SignalFd, Failure> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGCHLD);
    SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
        .map_err(because(Step::Session, "making a signal descriptor"))
}

/// Orphans are reported this often at most: a build reaps thousands, and every report wakes the supervisor.
const ORPHANS_EVERY: Duration = Duration::from_millis(50);
/// KILL is repeated after this, then twice this, up to [`KILL_AGAIN_AT_MOST`]: a process may be between two parents.
const KILL_AGAIN: Duration = Duration::from_millis(5);
const KILL_AGAIN_AT_MOST: Duration = Duration::from_millis(200);

/// A running tree.
pub struct Tree {
    main: i32,
    launch: Launch,
    reach: Reach,
    wakeups: SignalFd,
    left: Left,
    lifeline_grace: Duration,
    leftover_grace: Duration,
    /// The supervisor's end is open.
    lifeline: bool,
    exit: Option<Exit>,
    /// Every process has been asked to end.
    told: bool,
    deadline: Option<Instant>,
    /// Behind the deadline: when to send KILL again, and how long to wait after that.
    killing: Option<(Instant, Duration)>,
    orphans: u64,
    orphans_due: Option<Instant>,
    killed: u64,
}

impl Tree {
    /// For the program that was just forked.
    pub fn new(program: Program, policy: &Policy, wakeups: SignalFd) -> Result<Tree, Failure> {
        let Program { pid, status, guarantees, landlock_abi, reach, left } = program;
        Ok(Tree {
            main: pid,
            reach,
            launch: Launch::new(pid, status, guarantees, landlock_abi)?,
            wakeups,
            left,
            lifeline_grace: policy.lifeline_grace,
            leftover_grace: policy.leftover_grace,
            lifeline: true,
            exit: None,
            told: false,
            deadline: None,
            killing: None,
            orphans: 0,
            orphans_due: None,
            killed: 0,
        })
    }

    /// Until nobody is left.
    pub fn run(mut self, mut control: Control) -> ExitCode {
        loop {
            self.wait(&control);
            if let Outcome::Failed(failure) = self.launch.look(&mut control) {
                return self.not_started(control, failure);
            }
            // Emptied before reaping: an end that comes afterwards makes it readable again.
            while let Ok(Some(_)) = self.wakeups.read_signal() {}
            let nobody_left = self.reap(&mut control);
            if nobody_left {
                return self.end(control);
            }
            self.obey(&mut control);
            self.keep_deadline();
            self.report_orphans(&mut control, false);
            control.send_what_fits();
        }
    }

    fn wait(&self, control: &Control) {
        let mut interest = PollFlags::POLLIN;
        interest.set(PollFlags::POLLOUT, control.has_unsent());
        let mut descriptors = vec![PollFd::new(self.wakeups.as_fd(), PollFlags::POLLIN)];
        if self.lifeline {
            descriptors.push(PollFd::new(control.as_fd(), interest));
        }
        if let Some(status) = self.launch.status() {
            descriptors.push(PollFd::new(status, PollFlags::POLLIN));
        }
        let kill = self.killing.map(|(at, _)| at);
        let next = [self.deadline, kill, self.orphans_due].into_iter().flatten().min();
        let timeout = next.map_or(PollTimeout::NONE, |at| {
            // A millisecond more: poll rounds down, and a turn before the deadline would only wait again.
            let left = at.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
        });
        let _ = poll(&mut descriptors, timeout);
    }

    /// Reap all that have ended; whether nobody is left.
    fn reap(&mut self, control: &mut Control) -> bool {
        let had_exited = self.exit.is_some();
        let nobody_left = loop {
            match kernel::reap() {
                Ok(Some(child)) if child.pid == self.main && self.exit.is_none() => {
                    self.killed += u64::from(self.killing.is_some() && child.exit == Exit::Signal(libc::SIGKILL));
                    self.exit = Some(child.exit);
                }
                Ok(Some(_)) => {
                    self.orphans += 1;
                    self.orphans_due.get_or_insert_with(|| Instant::now() + ORPHANS_EVERY);
                    self.killed += u64::from(self.killing.is_some() || (had_exited && self.told));
                }
                Ok(None) => break false,
                Err(Errno::EINTR) => {}
                Err(_) => break true,
            }
        };
        if let (Some(exit), false) = (self.exit, had_exited) {
            self.left.give_back_terminal(self.main);
            control.report(&Report::Exited(exit));
            if !nobody_left {
                self.ask_everyone_to_end(self.leftover_grace);
            }
        }
        nobody_left
    }

    fn obey(&mut self, control: &mut Control) {
        if !self.lifeline {
            return;
        }
        let mut open = control.receive_what_is_there().is_ok();
        loop {
            match control.command() {
                Ok(Some(command)) => self.obey_one(&command),
                Ok(None) => break,
                Err(_) => {
                    open = false;
                    break;
                }
            }
        }
        if !open {
            self.lifeline = false;
            self.ask_everyone_to_end(self.lifeline_grace);
        }
    }

    fn obey_one(&mut self, command: &Command) {
        match *command {
            Command::Signal(signal) => self.signal_main(signal),
            Command::Stop { signal, scope, grace } => {
                match scope {
                    Scope::Main => self.signal_main(signal),
                    Scope::Tree => {
                        self.told = true;
                        self.reach.signal_everyone(signal);
                    }
                }
                self.end_within(grace);
            }
            // The policy comes once, first.
            Command::Start(_) => {}
        }
    }

    /// Not after it was reaped: its pid may be another process by now.
    fn signal_main(&self, signal: i32) {
        if self.exit.is_none() {
            let _ = kernel::kill(self.main, signal);
        }
    }

    fn ask_everyone_to_end(&mut self, grace: Duration) {
        if !self.told {
            self.told = true;
            self.reach.signal_everyone(libc::SIGTERM);
            // A stopped process acts on TERM only when it continues.
            self.reach.signal_everyone(libc::SIGCONT);
        }
        self.end_within(grace);
    }

    fn end_within(&mut self, grace: Duration) {
        let at = Instant::now() + grace;
        self.deadline = Some(self.deadline.map_or(at, |before| before.min(at)));
    }

    fn keep_deadline(&mut self) {
        let now = Instant::now();
        let due = match (self.killing, self.deadline) {
            (Some((at, _)), _) => now >= at,
            (None, Some(deadline)) => now >= deadline,
            (None, None) => false,
        };
        if due {
            self.deadline = None;
            let pause = self.killing.map_or(KILL_AGAIN, |(_, before)| (before * 2).min(KILL_AGAIN_AT_MOST));
            self.reach.signal_everyone(libc::SIGKILL);
            self.killing = Some((Instant::now() + pause, pause));
        }
    }

    fn report_orphans(&mut self, control: &mut Control, now: bool) {
        let due = self.orphans_due.is_some_and(|at| now || (at <= Instant::now() && !control.has_unsent()));
        if due {
            control.report(&Report::Orphans(self.orphans));
            self.orphans = 0;
            self.orphans_due = None;
        }
    }

    fn not_started(mut self, mut control: Control, failure: Failure) -> ExitCode {
        // The child has nothing left to do but to exit.
        while !self.reap_silently() {
            let _ = poll(&mut [PollFd::new(self.wakeups.as_fd(), PollFlags::POLLIN)], PollTimeout::from(10u8));
        }
        self.left.give_back_terminal(self.main);
        control.report(&Report::Failed(failure));
        control.send_all();
        ExitCode::from(71)
    }

    fn reap_silently(&mut self) -> bool {
        while let Ok(Some(_)) = self.wakeups.read_signal() {}
        loop {
            match kernel::reap() {
                Ok(Some(_)) | Err(Errno::EINTR) => {}
                Ok(None) => return false,
                Err(_) => return true,
            }
        }
    }

    fn end(mut self, mut control: Control) -> ExitCode {
        self.report_orphans(&mut control, true);
        let exit = self.exit.unwrap_or(Exit::Signal(libc::SIGKILL));
        control.report(&Report::Ended { exit, usage: usage(), killed: self.killed });
        control.send_all();
        ExitCode::SUCCESS
    }
}

/// What all that were reaped here have used.
fn usage() -> Usage {
    let Ok(used) = getrusage(UsageWho::RUSAGE_CHILDREN) else { return Usage::default() };
    let microseconds =
        |time: nix::sys::time::TimeVal| time.tv_sec().cast_unsigned() * 1_000_000 + time.tv_usec().cast_unsigned();
    Usage {
        user_us: microseconds(used.user_time()),
        system_us: microseconds(used.system_time()),
        max_rss_kib: used.max_rss().cast_unsigned(),
    }
}
