//! `gateway dev` under test: the real programs in one directory, with a home of their own and nothing configured.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use crate::output::Output;
use crate::tasks::Api;
use crate::wait::{wait_for, wait_until};
use crate::{binaries, control_plane, processes};

/// A home, and what runs in it. Its processes end with this value.
pub struct Home {
    dir: TempDir,
    running: Option<(Child, Output)>,
    variables: BTreeMap<String, String>,
}

/// How a command ended and what it wrote.
#[derive(Debug)]
pub struct Said {
    /// Exit code.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Said {
    /// Standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl Home {
    /// With the programs in it, and nothing else.
    #[track_caller]
    pub fn new() -> Home {
        let dir = binaries::scratch();
        let programs = dir.path().join("programs");
        fs::create_dir(&programs).expect("our own directory");
        for program in
            [binaries::directory().join("supervisor"), binaries::directory().join("shim"), binaries::gateway()]
        {
            let to = programs.join(program.file_name().expect("a program's name"));
            fs::hard_link(&program, &to).or_else(|_| fs::copy(&program, &to).map(|_| ())).expect("cargo has built it");
        }
        Home { dir, running: None, variables: BTreeMap::new() }
    }

    /// A variable of this user's environment.
    pub fn set(&mut self, name: &str, value: &str) {
        self.variables.insert(name.into(), value.into());
    }

    /// A command of this user, not started yet.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.dir.path().join("programs/gateway"));
        command.args(arguments).env_clear().stdin(Stdio::null());
        command.env("HOME", self.dir.path().join("home")).env("XDG_STATE_HOME", self.dir.path().join("state"));
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).envs(&self.variables);
        command
    }

    /// Run a command to its end.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> Said {
        said(self.command(arguments))
    }

    /// Start `gateway dev` and wait until it says what to try next; that.
    #[track_caller]
    pub fn start(&mut self, arguments: &[&str]) -> String {
        assert!(self.running.is_none(), "it runs already");
        let listen: &[&str] = if arguments.contains(&"--listen") { &[] } else { &["--listen", "127.0.0.1:0"] };
        let mut command = self.command(&[&["dev"], listen, arguments].concat());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().expect("the gateway runs");
        let stdout = Output::read(child.stdout.take().expect("piped"), false);
        self.running = Some((child, stdout.clone()));
        stdout.wait_text("Ctrl-C stops everything");
        stdout.text()
    }

    /// Its process.
    #[track_caller]
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.running.as_ref().expect("it runs").0.id() as i32)
    }

    /// Send it a signal and wait for its end; the exit code, or 128 + signal.
    #[track_caller]
    pub fn end(&mut self, signal: Signal) -> i32 {
        use std::os::unix::process::ExitStatusExt;
        kill(self.pid(), signal).expect("our own child");
        let (mut child, _) = self.running.take().expect("it runs");
        let status = wait_for("the end of gateway dev", || child.try_wait().expect("our own child"));
        status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(-1)
    }

    /// The directory of `gateway dev`.
    pub fn directory(&self) -> PathBuf {
        self.dir.path().join("state/chaperone/dev")
    }

    /// All events of a sandbox, as the API tells them to this user.
    #[track_caller]
    pub fn events(&self, sandbox: &str) -> Vec<Value> {
        let read = |name| fs::read_to_string(self.directory().join(name)).expect("it has been started");
        let address = read("address").trim().parse().expect("an address");
        control_plane::events(&Api::at(address, read("token").trim()), sandbox)
    }

    /// The running supervisor of a sandbox.
    pub fn supervisor(&self, sandbox: &str) -> Option<Pid> {
        holder(&self.directory().join("sandboxes").join(sandbox))
    }

    /// The status of a sandbox, empty where there is none.
    pub fn status(&self, sandbox: &str) -> String {
        let said = self.run(&["sandbox", "show", sandbox, "--output", "json"]);
        let json: Value = serde_json::from_str(&said.stdout).unwrap_or_default();
        json["status"].as_str().unwrap_or_default().into()
    }
}

impl Default for Home {
    fn default() -> Home {
        Home::new()
    }
}

/// The supervisor that wrote its pid into the lock, where that is one still.
fn holder(sandbox: &Path) -> Option<Pid> {
    let text = fs::read_to_string(sandbox.join("state/lock")).ok()?;
    let pid = Pid::from_raw(text.split_whitespace().next()?.parse().ok()?);
    (processes::name(pid) == "supervisor" && processes::alive(pid)).then_some(pid)
}

/// A person at a terminal who enters this command, with `redirected` behind it: script(1). Its keyboard is the child's standard input,
/// its screen is read.
#[track_caller]
pub fn at_a_terminal(command: &Command, redirected: &str) -> (Child, Output) {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<String> = words.map(|word| format!("'{}'", word.to_string_lossy())).collect();
    let mut script = Command::new("script");
    script.args(["-qec", &format!("{} {redirected}", words.join(" ")), "/dev/null"]);
    script.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    script.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut person = script.spawn().expect("script of util-linux");
    let screen = Output::read(person.stdout.take().expect("piped"), false);
    (person, screen)
}

/// Run a command to its end.
#[track_caller]
pub fn said(mut command: Command) -> Said {
    let output = command.output().expect("the gateway runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Said { code: output.status.code().unwrap_or(-1), stdout: text(&output.stdout), stderr: text(&output.stderr) }
}

impl Drop for Home {
    fn drop(&mut self) {
        if let Some((mut child, _)) = self.running.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        // They outlive a gateway that was killed.
        let sandboxes = fs::read_dir(self.directory().join("sandboxes")).into_iter().flatten().flatten();
        for pid in sandboxes.filter_map(|entry| holder(&entry.path())) {
            let _ = kill(pid, Signal::SIGKILL);
            if !std::thread::panicking() {
                wait_until("the end of a supervisor", || !processes::alive(pid));
            }
        }
    }
}
