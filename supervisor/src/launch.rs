//! Starts any child: always through the shim, which confines itself and stays as the init of that tree.
//!
//! Invariants: nothing of ours runs between fork and exec (`std::process::Command` does it); the policy travels on a
//! socket, so neither argv nor environment of the shim tells anything; the socket's end is close-on-exec except
//! while this one child is started, and only this thread starts children. The shims of dev-tasks and workers are forked
//! by one that is there already ([`zygote`]), which changes what they cost and nothing else.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command as Process, Stdio};
use std::sync::Arc;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use protocol::control::Exit;
use protocol::policy::{ExecutionClass, Limit, Resource, Session};
use protocol::zygote::STREAMS;
use tokio::sync::oneshot;

pub mod config;
pub mod environment;
pub mod files;
mod hidden;
pub mod output;
mod place;
pub mod policy;
pub mod program;
mod readable;
pub mod terminal;
pub mod tree;
mod zygote;

pub use config::{Config, Scratch};
pub use program::ProgramError;
pub use tree::{Event, Tree};

use crate::init::{Reaper, leftovers};
use crate::metrics::Metrics;
use readable::Remembered;
use zygote::Zygote;

/// Address space of one of our workers; each keeps well below it by itself.
const WORKER_MEMORY: u64 = 1 << 30;

/// Nothing was started.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The program cannot be what was meant.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// The control socket.
    #[error("cannot make the control socket of a shim")]
    Socket(#[source] io::Error),
    /// The shim itself.
    #[error("cannot start {}", path.display())]
    Shim {
        /// Where it was looked for.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The policy does not fit into a frame.
    #[error("arguments and environment are too large")]
    TooLarge(#[source] protocol::control::FrameError),
}

/// One thing to start.
#[derive(Debug)]
pub struct Request {
    /// argv; never empty.
    pub argv: Vec<OsString>,
    /// Variables beside those that the configuration lets through.
    pub env: Vec<(OsString, OsString)>,
    /// Working directory; `None` keeps the supervisor's.
    pub cwd: Option<PathBuf>,
    /// Where its standard streams go.
    pub streams: Streams,
}

/// Where a child's standard streams go.
#[derive(Debug)]
pub enum Streams {
    /// stdin is inherited, stdout and stderr go through our pipes, or are the terminal where ours are.
    Agent,
    /// A dev-task's own pipes; without `stdin` that is /dev/null.
    Task {
        /// What it reads.
        stdin: Option<OwnedFd>,
        /// What it writes.
        stdout: OwnedFd,
        /// What it complains to.
        stderr: OwnedFd,
    },
    /// A dev-task's own terminal: all three are this end of it.
    Terminal(OwnedFd),
    /// stdin is /dev/null, the other two are this.
    To(Arc<OwnedFd>),
    /// All three are /dev/null.
    Null,
}

/// What one dev-task has of its own.
#[derive(Clone, Debug)]
pub struct Task {
    /// Network and workspace class.
    pub class: ExecutionClass,
    /// TCP ports, empty for any.
    pub connect_ports: Vec<u16>,
    /// Limits, over the agent's.
    pub limits: Vec<Limit>,
    /// Its own directories.
    pub write: Vec<PathBuf>,
    /// Nothing but its own directories is writable.
    pub read_only: bool,
    /// A seeded task's own workspace, in place of the shared one.
    pub workspace: Option<PathBuf>,
    /// TERM to KILL when the supervisor is gone.
    pub grace: std::time::Duration,
}

/// Starts children. Cheap to clone.
#[derive(Clone)]
pub struct Launcher {
    inner: Arc<Inner>,
}

struct Inner {
    config: Config,
    shim: PathBuf,
    reaper: Reaper,
    metrics: Arc<Metrics>,
    zygote: Zygote,
    remembered: Arc<Remembered>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
}

impl Launcher {
    /// `stdout` and `stderr` are the agent's ends of our pipes; `None` where the agent gets ours directly, because
    /// it is a terminal.
    pub fn new(
        config: Config,
        shim: PathBuf,
        reaper: Reaper,
        metrics: Arc<Metrics>,
        (stdout, stderr): (Option<OwnedFd>, Option<OwnedFd>),
    ) -> Launcher {
        let remembered = Arc::new(Remembered::new());
        let zygote = Zygote::new(config.ready, remembered.clone());
        Launcher { inner: Arc::new(Inner { config, shim, reaper, metrics, zygote, remembered, stdout, stderr }) }
    }

    /// A launcher for our own workers: class `local`, and nothing writable but these.
    pub fn confined_to(&self, writable: Vec<PathBuf>) -> Launcher {
        let config = self.config();
        let config = Config {
            class: ExecutionClass::Local,
            connect_ports: Vec::new(),
            workspace: writable.first().cloned().unwrap_or_else(|| "/nonexistent".into()),
            write: writable,
            scratch: Scratch::None,
            ..config.clone()
        };
        self.with(config)
    }

    /// A launcher for work on what an agent can change: nothing is open to it but these paths.
    pub fn for_worker(&self, read: Vec<PathBuf>, write: Vec<PathBuf>) -> Launcher {
        let config = self.config();
        let class = if write.is_empty() { ExecutionClass::Readonly } else { ExecutionClass::Local };
        let moment = std::time::Duration::from_secs(5);
        let config = Config {
            class,
            connect_ports: Vec::new(),
            workspace: "/nonexistent".into(),
            write,
            scratch: Scratch::None,
            read,
            read_nothing_else: true,
            // The agent's keys are not for us.
            env_allow: Vec::new(),
            env: Vec::new(),
            limits: vec![Limit { resource: Resource::As, soft: WORKER_MEMORY, hard: WORKER_MEMORY }],
            grace: moment,
            leftover_grace: moment,
            ..config.clone()
        };
        self.with(config)
    }

    /// A launcher for one dev-task.
    pub fn for_task(&self, task: Task) -> Launcher {
        let config = self.config();
        let mut limits = config.limits.clone();
        limits.retain(|known| task.limits.iter().all(|limit| limit.resource != known.resource));
        limits.extend(task.limits);
        let config = Config {
            class: task.class,
            connect_ports: task.connect_ports,
            limits,
            read: task.workspace.iter().cloned().collect(),
            workspace: task.workspace.unwrap_or_else(|| config.workspace.clone()),
            write: config.write.iter().filter(|_| !task.read_only).cloned().chain(task.write).collect(),
            scratch: if task.read_only { Scratch::None } else { Scratch::Home },
            grace: config.grace.min(task.grace),
            leftover_grace: config.leftover_grace.min(std::time::Duration::from_millis(200)),
            ..config.clone()
        };
        self.with(config)
    }

    /// A launcher for something short beside the agent: when it is dropped its tree gets this long.
    pub fn with_grace(&self, grace: std::time::Duration) -> Launcher {
        self.with(Config { grace, ..self.config().clone() })
    }

    /// The same launcher for other children, which have neither of the agent's pipes.
    fn with(&self, config: Config) -> Launcher {
        let Inner { shim, reaper, metrics, zygote, remembered, .. } = &*self.inner;
        let (shim, reaper, metrics) = (shim.clone(), reaper.clone(), metrics.clone());
        let (zygote, remembered) = (zygote.clone(), remembered.clone());
        let inner = Inner { config, shim, reaper, metrics, zygote, remembered, stdout: None, stderr: None };
        Launcher { inner: Arc::new(inner) }
    }

    /// What children are started with.
    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    /// Start a shim and hand it the policy. Answers as soon as there is one; the tree's events tell the rest.
    pub async fn start(&self, request: &Request) -> Result<Tree, LaunchError> {
        let inner = &*self.inner;
        let session = match &request.streams {
            Streams::Agent if nix::unistd::isatty(io::stdin()).unwrap_or(false) => Session::Terminal,
            Streams::Terminal(_) => Session::OwnTerminal,
            _ => Session::Own,
        };
        let frame = |held| {
            let policy = policy::build(&inner.config, request, session, &inner.remembered, held)?;
            let start = protocol::control::Command::Start(Box::new(policy));
            protocol::control::encode(&start).map_err(LaunchError::TooLarge)
        };
        let follow = |shim: Shim, frame| {
            Tree::follow(shim.pid, shim.control, frame, shim.exit, inner.metrics.clone()).map_err(LaunchError::Socket)
        };
        if let Some(shim) = self.ready_shim(&request.streams).await {
            // Where there is no policy it ends with its control socket.
            let mut frame = frame(shim.held)?;
            // It may have been killed a moment ago; then one is started.
            if let Ok(shim) = shim.give(&mut frame, &request.streams) {
                return follow(shim, frame);
            }
        }
        let frame = frame(None)?;
        follow(self.start_shim(&request.streams)?, frame)
    }

    /// End what a lost shim left behind: its tree is ours now, and nobody else's children are touched.
    pub async fn end_leftovers(&self) {
        leftovers::end(&self.inner.reaper).await;
    }

    /// By the zygote; `None` where it cannot, or where the one shim of the agent is not worth having one.
    async fn ready_shim(&self, streams: &Streams) -> Option<Shim> {
        let Streams::Task { .. } = streams else { return None };
        let Inner { zygote, shim, reaper, .. } = &*self.inner;
        zygote.shim(shim, reaper).await
    }

    /// As a program of its own.
    fn start_shim(&self, streams: &Streams) -> Result<Shim, LaunchError> {
        let inner = &*self.inner;
        let (control, theirs) = control_socket().map_err(LaunchError::Socket)?;
        let mut process = Process::new(&inner.shim);
        let pipe = |end: &Option<OwnedFd>| -> io::Result<Stdio> {
            end.as_ref().map_or_else(|| Ok(Stdio::inherit()), |end| Ok(end.try_clone()?.into()))
        };
        match streams {
            Streams::Agent => {
                process.stdin(Stdio::inherit());
                process.stdout(pipe(&inner.stdout).map_err(LaunchError::Socket)?);
                process.stderr(pipe(&inner.stderr).map_err(LaunchError::Socket)?);
            }
            Streams::Task { stdin, stdout, stderr } => {
                let end = |end: &OwnedFd| end.try_clone().map(Stdio::from).map_err(LaunchError::Socket);
                process.stdin(stdin.as_ref().map_or_else(|| Ok(Stdio::null()), end)?);
                process.stdout(end(stdout)?).stderr(end(stderr)?);
            }
            Streams::Terminal(end) => {
                let end = || end.try_clone().map(Stdio::from).map_err(LaunchError::Socket);
                process.stdin(end()?).stdout(end()?).stderr(end()?);
            }
            Streams::To(end) => {
                let end = || end.try_clone().map(Stdio::from).map_err(LaunchError::Socket);
                process.stdin(Stdio::null()).stdout(end()?).stderr(end()?);
            }
            Streams::Null => {
                process.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            }
        }
        let failed = |source| LaunchError::Shim { path: inner.shim.clone(), source };
        let pid = spawn_with(&mut process, &theirs).map_err(failed)?;
        Ok(Shim { control, pid, exit: inner.reaper.own(pid), held: None })
    }
}

/// A shim that waits for its policy.
struct Shim {
    /// Our end of its control socket.
    control: UnixStream,
    pid: i32,
    /// How it will end.
    exit: oneshot::Receiver<Exit>,
    /// What its zygote holds open, by number.
    held: Option<u64>,
}

impl Shim {
    /// To one that was forked: its standard streams, and beside them what fits of its first frame. Something does, since
    /// its socket is empty.
    fn give(self, frame: &mut Vec<u8>, streams: &Streams) -> io::Result<Shim> {
        let Streams::Task { stdin, stdout, stderr } = streams else { return Err(io::ErrorKind::InvalidInput.into()) };
        let nothing = File::open("/dev/null")?;
        let stdin = stdin.as_ref().map_or(nothing.as_fd(), AsFd::as_fd);
        let numbers: [_; STREAMS] = [stdin, stdout.as_fd(), stderr.as_fd()].map(|end| end.as_raw_fd());
        let beside = [ControlMessage::ScmRights(&numbers)];
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        let sent = sendmsg::<()>(self.control.as_raw_fd(), &[IoSlice::new(frame)], &beside, flags, None)?;
        frame.drain(..sent);
        Ok(self)
    }
}

fn control_socket() -> io::Result<(UnixStream, UnixStream)> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    Ok((ours, theirs))
}

/// Start a shim with `socket` as its last argument, and with nothing in its environment.
fn spawn_with(process: &mut Process, socket: &UnixStream) -> io::Result<i32> {
    fcntl(socket, FcntlArg::F_SETFD(FdFlag::empty()))?;
    let child = process.arg(socket.as_raw_fd().to_string()).env_clear().spawn();
    // Back before anything else could be started on this thread.
    fcntl(socket, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    // Not waited for here: the reaper does, and dropping a `Child` neither waits nor kills.
    Ok(child?.id() as i32)
}

/// The shim lies beside the supervisor, wherever both are mounted.
pub fn find_shim() -> io::Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name("shim"))
}
