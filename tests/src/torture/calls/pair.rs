//! Which calls a kernel may refuse, and how: one kind of call, and one of the errors that its manual page has.

use std::fmt;
use std::fs;
use std::path::PathBuf;

use nix::unistd::Pid;

use crate::strace::Strace;
use crate::torture::chance::Chance;

/// Calls of one kind, and one error.
#[derive(Clone, Copy)]
pub(super) struct Pair {
    /// Who asks.
    pub who: Who,
    calls: &'static [&'static str],
    of: Of,
    error: &'static str,
}

/// Whose calls they are.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Who {
    Supervisor,
    Gateway,
}

/// Calls by the names that programs and machines have for them, of which descriptors, and the errors.
type Kind = (&'static [&'static str], Of, &'static [&'static str]);

/// Of which descriptors. No kernel refuses a write to an eventfd, or a read of a signalfd, in these ways.
#[derive(Clone, Copy)]
enum Of {
    Any,
    /// Files that are open when it begins, and secrets, which are opened again and again.
    Files,
    /// Pipes that are open.
    Pipes,
}

/// futex(2) is not among them: no program can go on without.
const OF_SUPERVISOR: &[Kind] = &[
    (&["socket"], Of::Any, &["EMFILE", "ENOBUFS"]),
    (&["connect"], Of::Any, &["ECONNREFUSED", "ETIMEDOUT", "EINTR"]),
    (&["accept4"], Of::Any, &["EMFILE", "ECONNABORTED"]),
    (&["sendto"], Of::Any, &["EPIPE", "ECONNRESET", "ENOBUFS"]),
    (&["sendmsg"], Of::Any, &["EPIPE", "ECONNRESET", "ENOBUFS"]),
    (&["writev"], Of::Any, &["EPIPE", "ECONNRESET", "ENOBUFS"]),
    (&["recvfrom"], Of::Any, &["ECONNRESET", "EINTR"]),
    (&["read", "readv"], Of::Files, &["EIO", "EINTR"]),
    (&["write"], Of::Files, &["ENOSPC", "EIO"]),
    (&["write"], Of::Pipes, &["EPIPE"]),
    (&["pwrite64"], Of::Any, &["ENOSPC", "EIO"]),
    (&["pread64"], Of::Any, &["EIO"]),
    (&["fsync", "fdatasync"], Of::Any, &["EIO"]),
    (&["pipe2"], Of::Any, &["EMFILE"]),
    (&["socketpair"], Of::Any, &["EMFILE"]),
    (&["openat"], Of::Any, &["EMFILE", "ENFILE", "EIO"]),
    (&["openat2"], Of::Any, &["EMFILE", "ENFILE", "EIO"]),
    (&["rename", "renameat", "renameat2"], Of::Any, &["EIO"]),
    (&["unlink", "unlinkat", "rmdir"], Of::Any, &["EIO"]),
    (&["mkdir", "mkdirat"], Of::Any, &["ENOSPC"]),
    (&["statx", "newfstatat"], Of::Any, &["EIO"]),
    (&["getdents64"], Of::Any, &["EIO"]),
    (&["clone", "clone3", "fork", "vfork"], Of::Any, &["EAGAIN"]),
    (&["mmap"], Of::Any, &["ENOMEM"]),
    (&["epoll_wait", "epoll_pwait"], Of::Any, &["EINTR"]),
    (&["epoll_ctl"], Of::Any, &["ENOMEM"]),
    (&["poll", "ppoll"], Of::Any, &["EINTR"]),
];

/// What it asks for while sessions begin and end and records are stored and read, with its database in a file. fcntl(2) is not among them: strace
/// cannot tell a lock from its end, and no kernel refuses to take back what it has locked.
const OF_GATEWAY: &[Kind] = &[
    (&["accept4"], Of::Any, &["EMFILE", "ENOBUFS", "ECONNABORTED"]),
    (&["sendto"], Of::Any, &["EPIPE", "ECONNRESET", "ENOBUFS"]),
    (&["writev"], Of::Any, &["EPIPE", "ECONNRESET", "ENOBUFS"]),
    (&["recvfrom"], Of::Any, &["ECONNRESET", "EINTR"]),
    (&["pwrite64"], Of::Any, &["ENOSPC", "EIO"]),
    (&["pread64"], Of::Any, &["EIO"]),
    (&["fsync", "fdatasync"], Of::Any, &["EIO"]),
    (&["openat"], Of::Any, &["EMFILE", "ENFILE", "EIO"]),
    (&["read"], Of::Files, &["EIO", "EINTR"]),
    (&["statx", "newfstatat"], Of::Any, &["EIO"]),
    (&["epoll_wait", "epoll_pwait"], Of::Any, &["EINTR"]),
    (&["epoll_ctl"], Of::Any, &["ENOMEM"]),
];

/// Each of them is refused: they are few, and what asks for them asks again.
const FEW: [(Who, &str); 4] =
    [(Who::Supervisor, "socket"), (Who::Supervisor, "connect"), (Who::Supervisor, "clone"), (Who::Gateway, "openat")];
/// Asked for by threads of the supervisor that begin, and one that rests is used before another begins.
const OF_THREADS: [&str; 2] = ["clone", "mmap"];

impl Pair {
    /// Those that have this in their names.
    pub(super) fn all(name: &str) -> Vec<Pair> {
        let of = |who, kinds: &'static [Kind]| {
            kinds
                .iter()
                .flat_map(move |&(calls, of, errors)| errors.iter().map(move |error| Pair { who, calls, of, error }))
        };
        let pairs = of(Who::Supervisor, OF_SUPERVISOR).chain(of(Who::Gateway, OF_GATEWAY));
        pairs.filter(|pair| pair.to_string().contains(name)).collect()
    }

    /// From now on some of these calls are refused, until what is returned goes; `again` are files that are opened again and again. `None` where
    /// nobody may, which is printed.
    pub(super) fn begin(&self, pid: Pid, again: &[PathBuf], chance: &mut Chance) -> Option<Strace> {
        // Not every machine has all of them.
        let calls = self.calls.iter().map(|call| format!("?{call}")).collect::<Vec<_>>().join(",");
        // Of each thread.
        let when = match FEW.contains(&(self.who, self.calls[0])) {
            true => "1+".to_owned(),
            false => format!("{}+{}", 1 + chance.below(3), 2 + chance.below(3)),
        };
        let inject = format!("inject={calls}:error={}:when={when}", self.error);
        Strace::attach_at(pid, &calls, &self.paths(pid, again), &[inject])
    }

    /// Whether it may only be seen where no thread rests.
    pub(super) fn is_of_threads(&self) -> bool {
        self.who == Who::Supervisor && OF_THREADS.contains(&self.calls[0])
    }

    /// Whether it is memory that is refused: an allocator can only abort, and so can a thread that begins.
    pub(super) fn is_of_memory(&self) -> bool {
        self.calls == ["mmap"]
    }

    fn paths(&self, pid: Pid, again: &[PathBuf]) -> Vec<String> {
        let is_meant = |path: &PathBuf| match self.of {
            Of::Any => false,
            Of::Files => path.is_file() && !path.starts_with("/proc"),
            Of::Pipes => path.to_string_lossy().starts_with("pipe:"),
        };
        let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        let open = open.filter_map(|entry| fs::read_link(entry.path()).ok());
        let paths = open.chain(again.iter().cloned()).filter(is_meant);
        paths.map(|path| path.display().to_string()).collect()
    }
}

impl fmt::Display for Pair {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whose = if self.who == Who::Gateway { "gateway: " } else { "" };
        write!(out, "{whose}{} {}", self.calls.join("|"), self.error)
    }
}
