//! Everything that a test may want to be different.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use tempfile::TempDir;

use super::{Paths, Supervisor, inside, make, shell, spawn};
use crate::gateway::{self, Gateway};
use crate::output::Output;
use crate::stage::{Cut, Pids, Profile, Stage};
use crate::{binaries, scene};

/// A supervisor that has not been started.
pub struct Builder {
    stage: Stage,
    program: Option<PathBuf>,
    command: OsString,
    settings: Vec<(String, OsString)>,
    switches: Vec<String>,
    environment: Vec<(OsString, OsString)>,
    agent: Vec<OsString>,
    stdin: Stdio,
    held: bool,
    closed: bool,
    token: bool,
    dir: TempDir,
}

impl Default for Builder {
    fn default() -> Builder {
        Builder::new()
    }
}

impl Builder {
    /// As this test's own user, without namespaces, with everything in a scratch directory.
    pub fn new() -> Builder {
        let dir = binaries::scratch();
        let at = |name: &str| dir.path().join(name).into_os_string();
        let settings = [
            ("listen", "127.0.0.1:0".into()),
            ("state-dir", at("state")),
            ("workspace", at("workspace")),
            ("termination-log", at("termination-log")),
            ("log-format", "json".into()),
            ("grace", "10s".into()),
        ];
        let environment = vec![
            ("PATH".into(), std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into())),
            ("HOME".into(), at("home")),
            ("LLVM_PROFILE_FILE".into(), "/dev/null".into()),
        ];
        Builder {
            stage: Stage::default(),
            program: None,
            command: "run".into(),
            settings: settings.into_iter().map(|(k, v)| (k.to_string(), v)).collect(),
            switches: Vec::new(),
            environment,
            agent: Vec::new(),
            stdin: Stdio::null(),
            held: false,
            closed: false,
            token: false,
            dir,
        }
    }

    /// The supervisor is PID 1 of a pid namespace.
    pub fn first(mut self) -> Builder {
        self.stage.pids = Pids::First;
        self
    }

    /// The supervisor is some other process of a pid namespace.
    pub fn child(mut self) -> Builder {
        self.stage.pids = Pids::Child;
        self
    }

    /// Its ids and capabilities.
    pub fn profile(mut self, profile: Profile) -> Builder {
        self.stage.profile = profile;
        if profile == Profile::Baseline {
            return self.set("agent-user", format!("{0}:{0}", scene::AGENT_UID));
        }
        self
    }

    /// In a container, at the default paths and port, with the scene's secrets; nothing of it is seen from outside.
    pub fn container(mut self) -> Builder {
        let scratch = self.dir.path().join("root");
        fs::create_dir(&scratch).expect("our own directory");
        self.stage.container = Some((scratch, binaries::directory().into()));
        self.stage.outsider = true;
        if self.stage.pids == Pids::Host {
            self.stage.pids = Pids::First;
        }
        let paths = ["listen", "state-dir", "workspace", "termination-log"];
        self.settings.retain(|(name, _)| !paths.contains(&name.as_str()));
        self.environment.retain(|(name, _)| name != "HOME");
        self.env("HOME", "/home/codex").env(scene::SECRET_VARIABLE, scene::CANARY).set("api-token-file", scene::TOKEN)
    }

    /// A small memory file system at a path of the test's directory.
    pub fn tmpfs(mut self, name: &str, kib: u64) -> Builder {
        let path = self.dir.path().join(name);
        fs::create_dir_all(&path).expect("our own directory");
        self.stage.tmpfs.push((path, kib));
        self
    }

    /// This terminal becomes its standard input, output and error.
    pub fn terminal(mut self, path: PathBuf) -> Builder {
        self.stage.terminal = Some(path);
        if self.stage.pids == Pids::Host { self.first() } else { self }
    }

    /// As on an older kernel, which does not have this system call.
    pub fn without(mut self, call: i64) -> Builder {
        self.stage.without.push(call as u32);
        self
    }

    /// With these things left out of what the shim does.
    pub fn cut(mut self, cuts: &[Cut]) -> Builder {
        self.stage.cuts.extend_from_slice(cuts);
        self
    }

    /// Set a setting by its flag.
    pub fn set(mut self, flag: &str, value: impl Into<OsString>) -> Builder {
        self.settings.retain(|(name, _)| name != flag);
        self.settings.push((flag.into(), value.into()));
        self
    }

    /// Add one more of a flag that can be repeated.
    pub fn add(mut self, flag: &str, value: impl Into<OsString>) -> Builder {
        self.settings.push((flag.into(), value.into()));
        self
    }

    /// Leave a setting to its default.
    pub fn unset(mut self, flag: &str) -> Builder {
        self.settings.retain(|(name, _)| name != flag);
        self
    }

    /// A flag that takes no value.
    pub fn switch(mut self, flag: &str) -> Builder {
        self.switches.push(format!("--{flag}"));
        self
    }

    /// An environment variable of the supervisor.
    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Builder {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// The agent's argv.
    pub fn agent<A: Into<OsString>>(mut self, argv: impl IntoIterator<Item = A>) -> Builder {
        self.agent = argv.into_iter().map(Into::into).collect();
        self
    }

    /// An agent that is a shell script.
    pub fn shell(mut self, script: &str) -> Builder {
        self.agent = shell(script);
        self
    }

    /// Another supervisor than the one that was built.
    pub fn program(mut self, path: PathBuf) -> Builder {
        self.program = Some(path);
        self
    }

    /// Another subcommand than `run`.
    pub fn command(mut self, name: &str) -> Builder {
        self.command = name.into();
        self
    }

    /// Standard input; nothing by default.
    pub fn stdin(mut self, stdin: impl Into<Stdio>) -> Builder {
        self.stdin = stdin.into();
        self
    }

    /// Do not read standard output until it is released.
    pub fn hold_stdout(mut self) -> Builder {
        self.held = true;
        self
    }

    /// Nobody reads standard output: its other end is closed from the start.
    pub fn close_stdout(mut self) -> Builder {
        self.closed = true;
        self
    }

    /// Give it an API token.
    pub fn token(mut self) -> Builder {
        self.token = true;
        let path = self.path("token/api");
        self.set("api-token-file", path)
    }

    /// Link it to this gateway, as agent `a-1`, with a reconnect window that costs no time.
    pub fn link(self, gateway: &Gateway) -> Builder {
        let token = self.path("link/token");
        fs::create_dir_all(self.path("link")).expect("our own directory");
        fs::write(&token, gateway::TOKEN).expect("our own directory");
        self.set("gateway-url", gateway.url())
            .set("link-token-file", token)
            .set("link-window", "10ms")
            .set("agent-id", "a-1")
    }

    /// A path in the test's own directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Start it.
    pub fn start(mut self) -> Supervisor {
        let uid = self.stage.profile.uid();
        let agent = if self.stage.profile == Profile::Baseline { scene::AGENT_UID } else { uid };
        let paths = self.furnish(uid, agent);
        let container = self.stage.container.is_some();
        let built = || if container { inside("supervisor") } else { binaries::supervisor().into() };
        let program = self.program.take().map_or_else(built, PathBuf::into_os_string);
        self.stage.argv = vec![program, self.command.clone()];
        for (name, value) in &self.settings {
            self.stage.argv.extend([format!("--{name}").into(), value.clone()]);
        }
        self.stage.argv.extend(self.switches.iter().map(OsString::from));
        if !self.agent.is_empty() {
            self.stage.argv.push("--".into());
            self.stage.argv.append(&mut self.agent);
        }
        self.stage.pid_file = Some(self.path("pid"));
        let mut outer = spawn(&self.stage, &self.environment, self.stdin);
        let mut stdout = outer.stdout.take();
        if self.closed {
            stdout = None;
        }
        let stderr = outer.stderr.take().expect("a pipe was asked for");
        Supervisor {
            stdout: stdout.map_or_else(Output::default, |pipe| Output::read(pipe, self.held)),
            stderr: Output::read(stderr, false),
            outer,
            pids: self.stage.pids,
            dir: self.dir,
            paths,
            end: None,
        }
    }

    /// The directories and files that a Pod would mount.
    fn furnish(&self, uid: u32, agent: u32) -> Paths {
        let paths = Paths {
            state: self.path("state"),
            workspace: self.path("workspace"),
            home: self.path("home"),
            termination: self.path("termination-log"),
            token: self.path("token/api"),
        };
        if self.stage.container.is_some() {
            return paths;
        }
        if !paths.state.exists() {
            make(&paths.state, uid, 0o700);
        }
        make(&paths.workspace, agent, 0o775);
        make(&paths.home, agent, 0o755);
        if !paths.termination.exists() {
            fs::write(&paths.termination, "").expect("our own directory");
            let _ = std::os::unix::fs::chown(&paths.termination, Some(uid), None);
        }
        if self.token {
            make(&self.path("token"), uid, 0o755);
            fs::write(&paths.token, scene::CANARY).expect("our own directory");
            let _ = std::os::unix::fs::chown(&paths.token, Some(uid), None);
        }
        paths
    }
}
