//! What the process outside says to a call of the shim's instead of the kernel, or changes in the caller's memory before the kernel reads it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitStatus, waitpid};

use super::{CAUGHT, Cut, LAST_PID, Step, filter};
use crate::kernel::{self, Asked};
use crate::scene::AGENT_UID;

/// Who asks, as the process outside sees it.
pub(super) struct Process<'a> {
    /// The machine's own `/proc`.
    pub(super) proc: &'a OwnedFd,
    pub(super) pid: i32,
}

impl Process<'_> {
    /// What to say instead of doing it; `None` lets the kernel do it.
    pub(super) fn answer(&self, cuts: &[Cut], asked: &Asked) -> std::io::Result<Option<i64>> {
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
            Cut::Abi(abi) => (call == libc::SYS_landlock_create_ruleset && third == 1).then_some(i64::from(*abi)),
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
