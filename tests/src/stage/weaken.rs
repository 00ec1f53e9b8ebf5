//! A kernel that is deaf to one thing that the shim asks of it: so a confinement with one rule less is made of the very
//! program that is shipped.
//!
//! The stage's first process hands the shim's own calls to the process outside (seccomp_unotify(2)), which lets them
//! through, says yes without doing anything, or changes in the shim's memory what they ask for. The shim knows nothing
//! of it, so there is no switch in it that an attacker could use.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;

use nix::fcntl::{OFlag, open, openat};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitStatus, waitpid};

use crate::kernel::{self, Asked};
use crate::scene::AGENT_UID;

mod cut;
pub mod filter;

pub use cut::{CAUGHT, Cut, Gate, Scope, Step};

/// In `/proc`: the last pid that was given out, in the pid namespace of who asks.
const LAST_PID: &str = "sys/kernel/ns_last_pid";

/// The outer half's end of a line to the inner one, over which the listener comes.
pub(super) struct Ear {
    ours: UnixStream,
    theirs: UnixStream,
    /// The machine's own `/proc`: at that path the inner half mounts another one.
    proc: OwnedFd,
}

impl Ear {
    pub(super) fn new() -> std::io::Result<Ear> {
        let (ours, theirs) = UnixStream::pair()?;
        kernel::leak(theirs.as_raw_fd())?;
        let proc = open("/proc", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
        Ok(Ear { ours, theirs, proc })
    }

    /// The inner half's end, which it inherits.
    pub(super) fn number(&self) -> RawFd {
        self.theirs.as_raw_fd()
    }

    /// Take the listener of the inner half, `pid`, and serve it until that ends. Not in a thread of its own: who has asked
    /// for a pid namespace makes no more threads (unshare(2)).
    pub(super) fn listen(mut self, pid: u32, cuts: &[Cut]) -> std::io::Result<()> {
        drop(self.theirs);
        let mut number = [0u8; 4];
        self.ours.read_exact(&mut number)?;
        let process = kernel::own(kernel::call(libc::SYS_pidfd_open, &[pid.into(), 0])? as RawFd);
        let number = u32::from_ne_bytes(number).into();
        let listener = kernel::call(libc::SYS_pidfd_getfd, &[process.as_raw_fd() as u64, number, 0])?;
        let listener = kernel::own(listener as RawFd);
        self.ours.write_all(b".")?;
        serve(&listener, &process, &self.proc, cuts);
        Ok(())
    }
}

/// The inner half: from here on the calls that `cuts` speak of wait for the outer one, who takes the listener by its
/// number: sending it would be a call that may have to wait, too.
pub(super) fn hand_over(ear: RawFd, cuts: &[Cut]) -> std::io::Result<()> {
    // As a file: a stream of the standard library is written by `sendto`.
    let mut ear = File::from(kernel::own(ear));
    if cuts.contains(&Cut::Wrap) {
        // So that there is a below.
        std::fs::write(format!("/proc/{LAST_PID}"), "1000")?;
    }
    let mut calls: Vec<u32> = cuts.iter().flat_map(Cut::calls).collect();
    calls.sort_unstable();
    calls.dedup();
    let listener = kernel::hear(&calls, cuts.contains(&Cut::Catch))?;
    ear.write_all(&listener.as_raw_fd().to_ne_bytes())?;
    ear.read_exact(&mut [0u8])
}

fn serve(listener: &OwnedFd, process: &OwnedFd, proc: &OwnedFd, cuts: &[Cut]) {
    let readable = |fd: &PollFd<'_>| fd.revents().is_some_and(|events| events.contains(PollFlags::POLLIN));
    loop {
        let mut both = [listener, process].map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN));
        // A process's descriptor is readable when it has ended (pidfd_open(2)).
        if poll(&mut both, PollTimeout::NONE).is_err() || readable(&both[1]) {
            return;
        }
        let Ok(asked) = kernel::asked(listener) else { continue };
        let answer = Process { proc, pid: asked.pid }.answer(cuts, &asked);
        // Who asked may be gone already.
        let _ = kernel::answer(listener, &asked, answer.unwrap_or(None));
    }
}

/// Who asks, as the process outside sees it.
struct Process<'a> {
    proc: &'a OwnedFd,
    pid: i32,
}

impl Process<'_> {
    /// What to say instead of doing it; `None` lets the kernel do it.
    fn answer(&self, cuts: &[Cut], asked: &Asked) -> std::io::Result<Option<i64>> {
        for cut in cuts {
            if *cut == Cut::Catch && asked.is_marked() {
                return Ok(Some(CAUGHT));
            }
            if *cut == Cut::Record {
                self.record(asked);
            } else if self.name() == cut.whose()
                && let Some(answer) = self.cut(cut, asked)?
            {
                return Ok(Some(answer));
            }
        }
        Ok(None)
    }

    fn cut(&self, cut: &Cut, asked: &Asked) -> std::io::Result<Option<i64>> {
        const SET_MODE_FILTER: u64 = 1;
        let [first, second, third, ..] = asked.arguments;
        let call = i64::from(asked.number);
        Ok(match cut {
            Cut::Step(step) => match step {
                step if !step.is(asked, self.is_child()) => None,
                Step::ReadBack => self.blind(asked)?,
                _ => Some(0),
            },
            Cut::Capability(number) => match call {
                libc::SYS_prctl => (first == libc::PR_CAPBSET_DROP as u64 && second == u64::from(*number)).then_some(0),
                libc::SYS_capset if self.is_child() => self.keep(second, *number)?,
                _ => None,
            },
            Cut::Right(bit) => match call {
                libc::SYS_landlock_create_ruleset if self.is_child() && third == 0 => self.clear(first, 1 << bit)?,
                libc::SYS_landlock_add_rule if self.is_child() && second == 1 => self.clear(third, 1 << bit)?,
                _ => None,
            },
            Cut::Ports => match call {
                libc::SYS_landlock_create_ruleset if self.is_child() && third == 0 => {
                    self.clear(first + 8, 2)?.and(None)
                }
                libc::SYS_landlock_add_rule if self.is_child() && second == 2 => Some(0),
                _ => None,
            },
            Cut::Scope(scope) => match call {
                libc::SYS_landlock_create_ruleset if scope.tree != self.is_child() && third == 0 => {
                    self.clear(first + 16, scope.bit)?.and(None)
                }
                _ => None,
            },
            Cut::TreePaths if !self.is_child() => match call {
                libc::SYS_landlock_create_ruleset if third == 0 => self.clear(first, u64::MAX)?.and(None),
                libc::SYS_landlock_add_rule => Some(0),
                _ => None,
            },
            Cut::Abi(abi) => (third == 1).then_some(i64::from(*abi)),
            Cut::Wrap => {
                if first == libc::PR_SET_NO_NEW_PRIVS as u64 && call == libc::SYS_prctl && !self.is_child() {
                    self.begin_again()?;
                }
                None
            }
            Cut::Record | Cut::Catch | Cut::TreePaths => None,
            _ if call == libc::SYS_seccomp && first == SET_MODE_FILTER && third != 0 => {
                self.refilter(third, cut)?;
                None
            }
            _ => None,
        })
    }

    fn open(&self, name: &str, flags: OFlag) -> std::io::Result<File> {
        let path = format!("{}/{name}", self.pid);
        Ok(openat(self.proc, path.as_str(), flags | OFlag::O_CLOEXEC, Mode::empty())?.into())
    }

    fn text(&self, name: &str) -> std::io::Result<String> {
        let mut text = String::new();
        self.open(name, OFlag::O_RDONLY)?.read_to_string(&mut text)?;
        Ok(text)
    }

    fn name(&self) -> String {
        self.text("comm").unwrap_or_default().trim().to_string()
    }

    /// The shim's child before `execve`, and not the resident shim.
    fn is_child(&self) -> bool {
        let parent = self
            .text("status")
            .ok()
            .and_then(|status| status.lines().find_map(|line| line.strip_prefix("PPid:\t")?.parse().ok()));
        parent.is_some_and(|pid| Process { pid, ..*self }.name() == "shim")
    }

    fn memory(&self) -> std::io::Result<File> {
        self.open("mem", OFlag::O_RDWR)
    }

    fn word(&self, at: u64) -> std::io::Result<u64> {
        let mut word = [0u8; 8];
        self.memory()?.read_exact_at(&mut word, at)?;
        Ok(u64::from_le_bytes(word))
    }

    /// Without these bits; where nothing else was asked for, it is done already.
    fn clear(&self, at: u64, bits: u64) -> std::io::Result<Option<i64>> {
        let left = self.word(at)? & !bits;
        self.memory()?.write_all_at(&left.to_le_bytes(), at)?;
        Ok((left == 0).then_some(0))
    }

    /// `capset(2)` keeps a capability that is held: effective and permitted, in two times three words.
    fn keep(&self, at: u64, capability: u32) -> std::io::Result<Option<i64>> {
        let half = at + 12 * u64::from(capability / 32);
        let bit = 1u64 << (capability % 32);
        let both = self.word(half)? | bit | bit << 32;
        self.memory()?.write_all_at(&both.to_le_bytes(), half)?;
        Ok(None)
    }

    /// From here on pids are given out from below. The kernel means the writer's pid namespace, and in the stage's are only
    /// children of this process.
    fn begin_again(&self) -> std::io::Result<()> {
        let mut last = File::from(openat(self.proc, LAST_PID, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?);
        match kernel::fork()? {
            None => kernel::exit_now(i32::from(last.write_all(b"10").is_err())),
            Some(child) => match waitpid(child, None)? {
                WaitStatus::Exited(_, 0) => Ok(()),
                other => Err(std::io::Error::other(format!("pids go on: {other:?}"))),
            },
        }
    }

    /// Who looks whether a step was taken finds that it was.
    fn blind(&self, asked: &Asked) -> std::io::Result<Option<i64>> {
        let [_, second, third, ..] = asked.arguments;
        Ok(match i64::from(asked.number) {
            libc::SYS_pread64 => Some(self.read_as_meant(second, third)?),
            // Asked before the change of user, it is what there is to leave.
            libc::SYS_getgroups => self.text("status")?.contains(&format!("Uid:\t{AGENT_UID}\t")).then_some(0),
            // A signal does not leave the tree.
            _ => Some(-i64::from(libc::EPERM)),
        })
    }

    /// What is read of `/proc/self/status` says that every set is empty and the ids are the agent's.
    fn read_as_meant(&self, buffer: u64, length: u64) -> std::io::Result<i64> {
        let status = self.text("status")?;
        let inside = |line: &str| line.split('\t').next_back().unwrap_or_default().to_string();
        let ids = format!("\t{AGENT_UID}").repeat(4);
        let meant = status.lines().map(|line| match line.split_once(":\t") {
            Some((field, _)) if field.starts_with("Cap") => format!("{field}:\t0000000000000000"),
            Some((field @ ("Uid" | "Gid"), _)) => format!("{field}:{ids}"),
            Some(("NoNewPrivs", _)) => "NoNewPrivs:\t1".into(),
            Some(("NSpid", _)) => format!("NSpid:\t{}", inside(line)),
            _ => line.into(),
        });
        let mut text = meant.collect::<Vec<_>>().join("\n").into_bytes();
        text.truncate(length as usize);
        self.memory()?.write_all_at(&text, buffer)?;
        Ok(text.len() as i64)
    }

    /// `struct sock_fprog` at `at`: a length and where the program is. The new one is longer, so it lies below the stack,
    /// which nothing uses while the call lasts.
    fn refilter(&self, at: u64, cut: &Cut) -> std::io::Result<()> {
        const BELOW: u64 = 64 * 1024;
        let (length, place) = (self.word(at)? as u16, self.word(at + 8)?);
        let mut bytes = vec![0u8; usize::from(length) * 8];
        let memory = self.memory()?;
        memory.read_exact_at(&mut bytes, place)?;
        let program =
            filter::without(&filter::read(&bytes), cut).ok_or_else(|| std::io::Error::other("no such rule"))?;
        let stack = self.text("syscall")?;
        let stack = stack.split_whitespace().nth_back(1).and_then(|word| word.strip_prefix("0x").map(str::to_string));
        let stack = stack.and_then(|word| u64::from_str_radix(&word, 16).ok());
        let place = (stack.ok_or_else(|| std::io::Error::other("no stack pointer"))? - BELOW) & !0xfff;
        memory.write_all_at(&filter::bytes(&program), place)?;
        memory.write_all_at(&u64::from(program.len() as u16).to_le_bytes(), at)?;
        memory.write_all_at(&place.to_le_bytes(), at + 8)
    }

    /// A line for whoever reads the stage's standard error: what a probe asked of the kernel.
    fn record(&self, asked: &Asked) {
        if self.text("cmdline").is_ok_and(|line| line.starts_with("probe\0")) {
            let arguments = asked.arguments.map(|argument| format!("{argument:x}")).join(" ");
            eprintln!("asked: {} {arguments}", asked.number);
        }
    }
}
