//! One supervisor under test: the real program, on a stage, with its output read and its end awaited.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use crate::http::{self, Answer};
use crate::output::Output;
use crate::stage::{Pids, Stage};
use crate::wait::{self, wait_for};
use crate::{binaries, processes, scene};

mod builder;

pub use builder::Builder;

/// How the supervisor ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It exited with this code.
    Code(i32),
    /// A signal ended it.
    Signal(i32),
}

/// A running supervisor. Its processes die with this value.
pub struct Supervisor {
    /// What it and the agent wrote to standard output.
    pub stdout: Output,
    /// The same for standard error; our own log lines are there too.
    pub stderr: Output,
    outer: Child,
    pids: Pids,
    dir: TempDir,
    paths: Paths,
    end: Option<End>,
}

/// Where a supervisor keeps its things, as the test sees them.
#[derive(Clone, Debug)]
pub struct Paths {
    /// State directory.
    pub state: PathBuf,
    /// Workspace.
    pub workspace: PathBuf,
    /// The agent's HOME.
    pub home: PathBuf,
    /// Termination message.
    pub termination: PathBuf,
    /// API token.
    pub token: PathBuf,
}

impl Supervisor {
    /// A supervisor to configure.
    #[allow(clippy::new_ret_no_self)]
    pub fn new() -> Builder {
        Builder::new()
    }

    /// Where its things are.
    pub fn paths(&self) -> &Paths {
        &self.paths
    }

    /// A path in the test's own directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Where it listens, from its own log.
    #[track_caller]
    pub fn address(&self) -> SocketAddr {
        let line = self.wait_log("listening");
        let address = line["address"].as_str().and_then(|a| a.parse().ok());
        address.unwrap_or_else(|| panic!("no address in {line}"))
    }

    /// GET a path of it.
    #[track_caller]
    pub fn get(&self, path: &str) -> Answer {
        http::get(self.address(), path).unwrap_or_else(|e| panic!("GET {path}: {e}\n{}", self.stderr.text()))
    }

    /// The body of `/healthz`.
    #[track_caller]
    pub fn health(&self) -> Value {
        self.get("/healthz").json()
    }

    /// The agent's state, in health's word.
    #[track_caller]
    pub fn agent_state(&self) -> String {
        self.health()["agent"]["state"].as_str().unwrap_or_default().to_string()
    }

    /// The value of a metric; labels are part of the name.
    #[track_caller]
    pub fn metric(&self, name: &str) -> Option<f64> {
        http::metric(&self.get("/metrics").body, name)
    }

    /// Wait until the agent is ready.
    #[track_caller]
    pub fn wait_ready(&self) -> &Self {
        wait_for("readiness", || (self.get("/readyz").status == 200).then_some(()));
        self
    }

    /// Wait until health shows the agent in this state.
    #[track_caller]
    pub fn wait_state(&self, state: &str) -> &Self {
        wait::wait_until(&format!("agent state {state}"), || self.agent_state() == state);
        self
    }

    /// Our own log lines so far.
    pub fn log(&self) -> Vec<Value> {
        log_lines(&self.stderr.text())
    }

    /// The first log line with this message.
    #[track_caller]
    pub fn wait_log(&self, message: &str) -> Value {
        self.stderr.wait_for(&format!("log line {message:?}"), |text| {
            log_lines(text).into_iter().find(|line| line["message"].as_str() == Some(message))
        })
    }

    /// The termination message; null where nothing has been written.
    #[track_caller]
    pub fn termination(&self) -> Value {
        let text = fs::read_to_string(&self.paths.termination).unwrap_or_default();
        if text.is_empty() {
            return Value::Null;
        }
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("termination message {text:?}: {e}"))
    }

    /// Its pid as this machine sees it.
    #[track_caller]
    pub fn pid(&self) -> Pid {
        match self.pids {
            Pids::Host => self.outer(),
            Pids::First => self.first().expect("the stage wrote its pid"),
            Pids::Child => wait_for("the supervisor on stage", || {
                let children = processes::children(self.first()?);
                children.into_iter().find(|&pid| processes::name(pid) == "supervisor")
            }),
        }
    }

    /// The process that stays outside, or the supervisor itself where there is no pid namespace.
    fn outer(&self) -> Pid {
        Pid::from_raw(self.outer.id() as i32)
    }

    /// The first process of the pid namespace.
    pub fn first(&self) -> Option<Pid> {
        let text = wait::within(wait::LONG, || fs::read_to_string(self.dir.path().join("pid")).ok())?;
        text.parse().ok().map(Pid::from_raw)
    }

    /// Send it a signal from outside.
    #[track_caller]
    pub fn signal(&self, signal: Signal) -> &Self {
        kill(self.pid(), signal).expect("the supervisor is there");
        self
    }

    /// Wait for its end.
    #[track_caller]
    pub fn wait_exit(&mut self) -> End {
        if self.end.is_none() {
            self.end = wait::within(wait::LONG, || self.poll());
        }
        self.end.unwrap_or_else(|| panic!("it does not end; its log:\n{}", self.stderr.text()))
    }

    /// Its exit code; panics where a signal ended it.
    #[track_caller]
    pub fn wait_code(&mut self) -> i32 {
        match self.wait_exit() {
            End::Code(code) => code,
            End::Signal(signal) => panic!("signal {signal} ended it; its log:\n{}", self.stderr.text()),
        }
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.end = self.end.or_else(|| self.poll());
        self.end.is_some()
    }

    fn poll(&mut self) -> Option<End> {
        use std::os::unix::process::ExitStatusExt;
        let status = self.outer.try_wait().expect("our own child")?;
        Some(status.signal().map_or_else(|| End::Code(status.code().unwrap_or(-1)), End::Signal))
    }

    /// Processes of the stage other than its first, its supervisor and zombies' parents: what the agent left.
    pub fn processes(&self) -> Vec<Pid> {
        match self.pids {
            Pids::Host => processes::descendants(self.outer()),
            _ => self.first().map(processes::in_namespace_of).unwrap_or_default(),
        }
    }

    /// Run a command in its pid and mount namespace, as `kubectl exec` does, without any confinement.
    #[track_caller]
    pub fn enter(&self, command: &[&str]) -> std::process::Output {
        let target = self.pid().to_string();
        let mut nsenter = Command::new("nsenter");
        nsenter.args(["--target", &target, "--pid", "--mount"]).stdin(Stdio::null());
        if !nix::unistd::geteuid().is_root() {
            nsenter.args(["--user", "--preserve-credentials"]);
        }
        nsenter.arg("--").args(command);
        nsenter.output().expect("nsenter of util-linux")
    }

    /// Standard input of the supervisor, where the builder asked for a pipe.
    pub fn stdin(&mut self) -> Option<std::process::ChildStdin> {
        self.outer.stdin.take()
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        if self.has_ended() {
            return;
        }
        let mut ours = vec![];
        if self.pids == Pids::Host {
            ours.extend(processes::descendants(self.outer()));
        } else if let Ok(text) = fs::read_to_string(self.dir.path().join("pid")) {
            ours.extend(text.parse().ok().map(Pid::from_raw));
        }
        ours.push(self.outer());
        for pid in ours {
            let _ = kill(pid, Signal::SIGKILL);
        }
        let _ = self.outer.wait();
    }
}

/// The lines of this text that are our own log.
pub fn log_lines(text: &str) -> Vec<Value> {
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).filter(|v: &Value| v["level"].is_string()).collect()
}

/// A shell that runs this script.
pub fn shell(script: &str) -> Vec<OsString> {
    ["/bin/sh", "-c", script].map(OsString::from).to_vec()
}

fn spawn(stage: &Stage, environment: &[(OsString, OsString)], stdin: Stdio) -> Child {
    let mut command = Command::new(binaries::helper("stage"));
    command.args(stage.arguments()).env_clear().envs(environment.iter().map(|(k, v)| (k, v)));
    command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("cargo has built the stage")
}

fn make(path: &Path, uid: u32, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::create_dir_all(path).expect("a directory in our scratch directory");
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("our own directory");
    let _ = std::os::unix::fs::chown(path, Some(uid), Some(uid));
}

fn inside(name: &str) -> OsString {
    OsStr::new(scene::PROGRAMS).to_os_string().into_string().map(|p| format!("{p}/{name}").into()).unwrap_or_default()
}
