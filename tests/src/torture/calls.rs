//! A supervisor whose kernel refuses calls while it works: of each kind every third or so, with each error that this kind may have, until
//! enough of them were refused; then the next. strace(1) refuses them, and the call does not happen.

use std::fs;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use super::account::Account;
use super::chance::Chance;
use super::load::Sandbox;
use crate::balancer::Balancer;
use crate::bench::Line;
use crate::control_plane::Gateway;
use crate::strace::Strace;
use crate::supervisor::End;
use crate::tasks::Api;
use crate::wait::{LONG, within};
use crate::{needs, processes, scene};

/// So many refusals of one kind are enough.
const ENOUGH: usize = 40;
/// What is not asked for often enough by then is seldom asked for.
const MOST: Duration = Duration::from_secs(1);
/// At least this many refusals for each kind, on average: a run that refuses nothing shows nothing.
const AVERAGE: usize = 5;
/// What the supervisor says of a panic of one of its parts.
const PANIC: &str = "a part of the supervisor panicked";
/// Where these last, another try is the answer, and so an exit by 75: docs/operations.md.
const TEMPORARY: [&str; 6] = ["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM", "ENOSPC", "EAGAIN"];

/// Of which descriptors a call is refused. No kernel refuses a write to an eventfd, or a read of a signalfd, in these ways.
#[derive(Clone, Copy)]
enum Of {
    Any,
    /// Files that are open when it begins.
    Files,
    /// Pipes that are.
    Pipes,
}

/// Calls of one kind, which programs and machines call by one name or another, and the errors. futex(2) is not among them: no program
/// can go on without.
const KINDS: &[(&[&str], Of, &[&str])] = &[
    (&["socket"], Of::Any, &["EMFILE", "ENOBUFS"]),
    (&["connect"], Of::Any, &["ECONNREFUSED", "ETIMEDOUT", "EINTR"]),
    (&["accept4"], Of::Any, &["EMFILE", "ECONNABORTED"]),
    (&["sendto"], Of::Any, &["EPIPE", "ECONNRESET", "ENOBUFS"]),
    (&["sendmsg"], Of::Any, &["EPIPE", "ECONNRESET", "ENOBUFS"]),
    (&["writev"], Of::Any, &["EPIPE", "ECONNRESET", "ENOBUFS"]),
    (&["recvfrom"], Of::Any, &["ECONNRESET", "EINTR"]),
    (&["read", "readv"], Of::Files, &["EIO"]),
    (&["read", "readv"], Of::Pipes, &["EINTR"]),
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

/// Calls of one kind, and one error.
#[derive(Clone, Copy)]
struct Pair {
    calls: &'static [&'static str],
    of: Of,
    error: &'static str,
}

/// At most so many pairs, evenly over all of them.
pub fn measure(most: usize) -> Vec<Line> {
    if !needs::commands(&["strace"]) {
        return Vec::new();
    }
    let mut chance = Chance::seeded(0x3c6e_f372_fe94_f82b);
    let errors = |&(calls, of, errors): &'static (_, _, &'static [_])| {
        errors.iter().map(move |&error| Pair { calls, of, error })
    };
    let all: Vec<Pair> = KINDS.iter().flat_map(errors).collect();
    let (most, first) = (most.min(all.len()), chance.below(all.len()));
    let mut site = Site::start();
    for number in 0..most {
        let pair = all[(first + number * all.len() / most) % all.len()];
        if !site.suffer(pair, &mut chance) {
            return Vec::new();
        }
    }
    site.lines(most)
}

/// One sandbox at a gateway, and what was seen of it.
struct Site {
    gateway: Gateway,
    front: Balancer,
    sandbox: Sandbox,
    refused: usize,
    exits: usize,
    again: usize,
    aborts: usize,
    panics: usize,
    stuck: usize,
}

impl Site {
    fn start() -> Site {
        let gateway = Gateway::start();
        let front = Balancer::before(&[gateway.address]);
        let sandbox = Sandbox::start("a", front.address);
        Site { gateway, front, sandbox, refused: 0, exits: 0, again: 0, aborts: 0, panics: 0, stuck: 0 }
    }

    /// Whether strace may; why not, is printed.
    fn suffer(&mut self, pair: Pair, chance: &mut Chance) -> bool {
        let panics = self.panics_said();
        let pid = self.sandbox.supervisor.pid();
        let Some(strace) = pair.begin(pid, chance) else { return false };
        within(MOST, || {
            self.ask();
            (strace.injected() >= ENOUGH || self.sandbox.supervisor.has_ended()).then_some(())
        });
        let refused = strace.injected();
        drop(strace);
        self.refused += refused;
        println!("{} {}: {refused} refused", pair.calls.join("|"), pair.error);
        self.judge(pair, panics);
        true
    }

    /// What the load alone seldom asks for: another connection, another zygote, and the end of a task's folders.
    fn ask(&self) {
        self.front.reset();
        if let Some(zygote) = processes::zygote(self.sandbox.supervisor.pid()) {
            let _ = kill(zygote, Signal::SIGKILL);
        }
        let api = Api::at(self.sandbox.supervisor.address(), scene::CANARY);
        let body = json!({"argv": ["true"]}).to_string();
        let made = api.try_call("POST", "/dev-tasks?wait=1s", &[], body.as_bytes());
        if let Some(id) = made.ok().and_then(|answer| Some(answer.json()["task_id"].as_str()?.to_owned())) {
            let _ = api.try_call("DELETE", &format!("/dev-tasks/{id}"), &[], b"");
        }
    }

    /// Whether it has ended, panicked, or does not work any more; it works again on return.
    fn judge(&mut self, pair: Pair, panics: usize) {
        if self.sandbox.supervisor.has_ended() {
            let end = self.sandbox.supervisor.wait_exit();
            let kind = match end {
                End::Code(75) if TEMPORARY.contains(&pair.error) => &mut self.again,
                End::Signal(libc::SIGABRT) if pair.error == "ENOMEM" => &mut self.aborts,
                _ => &mut self.exits,
            };
            *kind += 1;
            println!("  the supervisor ended with {end:?}: {}", self.last_words());
        }
        let panicked = self.panics_said() - panics;
        if panicked > 0 {
            self.panics += panicked;
            println!("  {panicked} panics: {}", self.last_words());
        }
        if self.sandbox.supervisor.has_ended() {
            self.sandbox.kill_and_start_again();
        } else if !self.works() {
            self.stuck += 1;
            println!("  not all works again: {}", self.last_words());
            self.sandbox.kill_and_start_again();
        }
    }

    /// A task runs, and the sandbox is at the gateway.
    fn works(&self) -> bool {
        let there = || (self.gateway.metric("gateway_sessions") == 1.0).then_some(());
        self.sandbox.works() && within(LONG, there).is_some()
    }

    fn panics_said(&self) -> usize {
        self.sandbox.supervisor.stderr.text().matches(PANIC).count()
    }

    /// The last errors of its log, and what is no log.
    fn last_words(&self) -> String {
        let text = self.sandbox.supervisor.stderr.text();
        let lines: Vec<&str> = text.lines().filter(|l| !l.starts_with('{') || l.contains("\"ERROR\"")).collect();
        lines[lines.len().saturating_sub(5)..].join("\n    ")
    }

    fn lines(mut self, pairs: usize) -> Vec<Line> {
        let of = format!("{} calls of {pairs} kinds that were refused", self.refused);
        let mut account = Account::default();
        account.settle(std::slice::from_mut(&mut self.sandbox), &self.gateway);
        let mut lines = account.lines(&of);
        let refused = (AVERAGE * pairs) as f64;
        lines.extend([
            Line::new(
                format!("exits of the supervisor that nobody asked for, after {of}"),
                0.0,
                self.exits as f64,
                "exits",
            ),
            Line::at_least(
                format!("exits by 75, where another try is the answer, after {of}"),
                0.0,
                self.again as f64,
                "exits",
            ),
            Line::at_least(
                format!("aborts of the allocator, which has no other answer, after {of}"),
                0.0,
                self.aborts as f64,
                "exits",
            ),
            Line::new(format!("panics of parts after {of}"), 0.0, self.panics as f64, "panics"),
            Line::new(format!("kinds after which not all works again, of {of}"), 0.0, self.stuck as f64, "kinds"),
            Line::at_least(format!("really refused, of {pairs} kinds"), refused, self.refused as f64, "calls"),
        ]);
        lines
    }
}

impl Pair {
    /// From now on every third or so of these is refused, until what is returned goes.
    fn begin(&self, pid: Pid, chance: &mut Chance) -> Option<Strace> {
        // Not every machine has all of them.
        let calls = self.calls.iter().map(|call| format!("?{call}")).collect::<Vec<_>>().join(",");
        let (first, every) = (1 + chance.below(3), 2 + chance.below(3));
        let inject = format!("inject={calls}:error={}:when={first}+{every}", self.error);
        Strace::attach_at(pid, &calls, &self.paths(pid), &[inject])
    }

    fn paths(&self, pid: Pid) -> Vec<String> {
        let is_meant = |path: &str| match self.of {
            Of::Any => false,
            Of::Files => path.starts_with('/') && !path.starts_with("/dev/") && !path.starts_with("/proc/"),
            Of::Pipes => path.starts_with("pipe:"),
        };
        let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        let paths = open.filter_map(|entry| fs::read_link(entry.path()).ok()?.into_os_string().into_string().ok());
        paths.filter(|path| is_meant(path)).collect()
    }
}
