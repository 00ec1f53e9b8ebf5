//! A small supervisor for one shim: sends a policy, reads reports, waits for conditions.
//!
//! Every wait has a limit, far above what anything here takes, so that a hang is a failure with a name.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::ffi::OsString;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command as Process, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use protocol::control::{Command, Decoder, Exit, Failure, Report, Scope, Usage, encode};
use protocol::guarantee::{Guarantee, Standing, State};
use protocol::policy::{Access, Enforcement, ExecutionClass, FileRule, Identity, Policy, Program, Session};
use tempfile::TempDir;

/// Longer than anything takes.
pub const LIMIT: Duration = Duration::from_secs(60);
/// A uid that owns nothing, for tests that run as root.
pub const NOBODY: u32 = 65534;

/// A policy that runs `argv` (searched nowhere: absolute) with the whole file system readable and `/tmp` writable.
pub fn policy(argv: &[&str]) -> Policy {
    let rule = |path: &str, access| FileRule { path: path.into(), access };
    Policy {
        program: Program {
            path: argv[0].into(),
            argv: argv.iter().map(OsString::from).collect(),
            env: vec!["PATH=/usr/bin:/bin".into()],
            cwd: None,
            umask: 0o022,
        },
        session: Session::Own,
        identity: None,
        limits: Vec::new(),
        oom_score_adj: None,
        nice: None,
        files: vec![
            rule("/", Access::Read),
            rule("/tmp", Access::Write),
            rule("/dev/null", Access::Device),
            rule("/dev/zero", Access::Device),
            rule("/dev/urandom", Access::Device),
        ],
        held: false,
        class: ExecutionClass::Networked,
        connect_ports: None,
        supervisor_pid: std::process::id() as i32,
        enforcement: Enforcement::Required,
        required: Guarantee::DEFAULT.to_vec(),
        lifeline_grace: Duration::from_secs(1),
        leftover_grace: Duration::from_secs(1),
    }
}

/// `policy` for a shell script.
pub fn script(text: &str) -> Policy {
    policy(&["/bin/sh", "-c", text])
}

/// Nobody's ids.
pub fn nobody() -> Option<Identity> {
    Some(Identity { uid: NOBODY, gid: NOBODY, groups: Vec::new() })
}

/// Whether this is root, which some tests need; says why not otherwise.
pub fn root(what: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        println!("skipped: {what} needs root");
    }
    root
}

/// The path of strace, which some tests need to pretend an older kernel.
pub fn strace(what: &str) -> Option<String> {
    let found = ["/usr/bin/strace", "/bin/strace"].into_iter().find(|path| std::path::Path::new(path).exists());
    if found.is_none() {
        println!("skipped: {what} needs strace");
    }
    found.map(str::to_owned)
}

/// A running shim.
pub struct Shim {
    pub process: Child,
    control: Option<UnixStream>,
    decoder: Decoder,
    pub output: Option<ChildStdout>,
}

/// How a whole run went.
#[derive(Debug)]
pub struct Run {
    pub pid: i32,
    pub guarantees: Vec<Standing>,
    pub landlock_abi: u32,
    pub exit: Exit,
    pub usage: Usage,
    pub killed: u64,
    pub orphans: u64,
    pub output: String,
}

impl Run {
    pub fn state(&self, guarantee: Guarantee) -> State {
        self.guarantees.iter().find(|standing| standing.guarantee == guarantee).expect("every guarantee is told").state
    }
}

/// The shim as another user, from a copy that this user can execute; the directory that the copy lies in.
pub fn for_user(uid: u32) -> (TempDir, Process) {
    let directory = tempfile::tempdir_in("/tmp").expect("a directory");
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).expect("its mode");
    let copy = directory.path().join("shim");
    // By another process: a descriptor of ours that writes it could be in a child that another test forks at this instant, and
    // then nobody may execute it (ETXTBSY, execve(2)).
    let copied = Process::new("cp").arg(env!("CARGO_BIN_EXE_shim")).arg(&copy).status();
    assert!(copied.expect("cp(1) is there").success());
    let mut command = Process::new(copy);
    command.uid(uid).gid(uid);
    (directory, command)
}

impl Shim {
    /// Start one; its program's output is collected.
    pub fn start(policy: &Policy) -> Shim {
        Shim::start_by(Process::new(env!("CARGO_BIN_EXE_shim")), policy)
    }

    /// Start one as another user.
    pub fn start_as(uid: u32, policy: &Policy) -> Shim {
        let (directory, command) = for_user(uid);
        let shim = Shim::start_by(command, policy);
        drop(directory);
        shim
    }

    /// Start one on a kernel that says it has this Landlock ABI; `None` without strace.
    pub fn start_with_abi(abi: u32, policy: &Policy) -> Option<Shim> {
        let inject = format!("inject=landlock_create_ruleset:retval={abi}:when=1");
        // Only the first call of the shim is answered so; children are not traced.
        Shim::start_traced(&["-o", "/dev/null", "-e", "trace=landlock_create_ruleset", "-e", &inject], policy)
    }

    /// Start one under strace with these options; `None` without strace.
    pub fn start_traced(options: &[&str], policy: &Policy) -> Option<Shim> {
        let mut command = Process::new(strace("looking at or changing what the kernel answers")?);
        command.arg("-qq").args(options).arg(env!("CARGO_BIN_EXE_shim"));
        Some(Shim::start_by(command, policy))
    }

    fn start_by(mut command: Process, policy: &Policy) -> Shim {
        let (mine, theirs) = UnixStream::pair().expect("a socket pair");
        fcntl(&theirs, FcntlArg::F_SETFD(FdFlag::empty())).expect("F_SETFD");
        command.arg(theirs.as_raw_fd().to_string()).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = command.spawn().expect("the shim starts");
        drop(theirs);
        mine.set_read_timeout(Some(LIMIT)).expect("a time limit");
        let output = process.stdout.take();
        let mut shim = Shim { process, control: Some(mine), decoder: Decoder::default(), output };
        shim.send(&Command::Start(Box::new(policy.clone())));
        shim
    }

    pub fn send(&mut self, command: &Command) {
        let frame = encode(command).expect("commands encode");
        self.control.as_mut().expect("the lifeline is open").write_all(&frame).expect("the shim reads");
    }

    pub fn stop(&mut self, scope: Scope, grace: Duration) {
        self.send(&Command::Stop { signal: libc::SIGTERM, scope, grace });
    }

    /// The next report, `None` when the shim has closed its end.
    pub fn next(&mut self) -> Option<Report> {
        loop {
            if let Some(report) = self.decoder.next().expect("reports decode") {
                return Some(report);
            }
            let mut bytes = [0; 4096];
            match self.control.as_mut().expect("the lifeline is open").read(&mut bytes) {
                Ok(0) => return None,
                Ok(count) => self.decoder.push(&bytes[..count]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("no report within {LIMIT:?}: {error}"),
            }
        }
    }

    /// The pid, once the program runs.
    pub fn started(&mut self) -> i32 {
        match self.next() {
            Some(Report::Started { pid, .. }) => pid,
            other => panic!("not started: {other:?}"),
        }
    }

    /// The failure, when nothing must start.
    pub fn failed(mut self) -> Failure {
        let failure = match self.next() {
            Some(Report::Failed(failure)) => failure,
            other => panic!("expected a failure, got {other:?}"),
        };
        assert_eq!(self.next(), None, "nothing comes after a failure");
        assert_ne!(self.process.wait().expect("the shim ends").code(), Some(0));
        failure
    }

    /// Read one line of the program's output.
    pub fn line(&mut self) -> String {
        let output = self.output.as_mut().expect("output is piped");
        let mut line = Vec::new();
        let mut byte = [0];
        while output.read(&mut byte).expect("output is readable") == 1 && byte[0] != b'\n' {
            line.push(byte[0]);
        }
        String::from_utf8_lossy(&line).into_owned()
    }

    /// Until the last report.
    pub fn finish(mut self) -> Run {
        let mut run = Run {
            pid: 0,
            guarantees: Vec::new(),
            landlock_abi: 0,
            exit: Exit::Code(-1),
            usage: Usage::default(),
            killed: 0,
            orphans: 0,
            output: String::new(),
        };
        let mut ended = false;
        while let Some(report) = self.next() {
            match report {
                Report::Started { pid, guarantees, landlock_abi } => {
                    (run.pid, run.guarantees, run.landlock_abi) = (pid, guarantees, landlock_abi);
                }
                Report::Failed(failure) => panic!("not started: {failure:?}"),
                Report::Exited(exit) => run.exit = exit,
                Report::Orphans(count) => run.orphans += count,
                Report::Ended { exit, usage, killed } => {
                    assert_eq!(exit, run.exit, "the last report repeats how the main program ended");
                    (run.usage, run.killed, ended) = (usage, killed, true);
                }
            }
        }
        assert!(ended, "the shim closed its end without its last report");
        assert_eq!(self.process.wait().expect("the shim ends").code(), Some(0), "the shim's own exit code");
        if let Some(mut output) = self.output.take() {
            let mut bytes = Vec::new();
            output.read_to_end(&mut bytes).expect("output is readable");
            run.output = String::from_utf8_lossy(&bytes).into_owned();
        }
        run
    }

    /// Break the lifeline, as a supervisor that is killed does.
    pub fn cut(&mut self) {
        self.control = None;
    }
}

/// Run to the end.
pub fn run(policy: &Policy) -> Run {
    Shim::start(policy).finish()
}

/// Wait until `condition` holds.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < LIMIT, "waited {LIMIT:?} until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Processes of which `/proc/PID/cmdline` contains `mark`, zombies not counted.
pub fn alive(mark: &str) -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").expect("/proc is there");
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid: &i32| {
            std::fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| line.windows(mark.len()).any(|window| window == mark.as_bytes()))
        })
        .collect()
}
