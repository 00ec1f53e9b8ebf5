//! One gateway under test: the real program with a database and token files of its own.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use crate::output::Output;
use crate::tasks::Api;
use crate::wait::wait_for;
use crate::{binaries, http};

/// The token of the only user.
pub const USER: &str = "user-token-0123456789";

/// A running gateway; it ends with this value.
pub struct Gateway {
    /// Its log.
    pub stderr: Output,
    /// Where it listens, also after [`Gateway::start_again`].
    pub address: SocketAddr,
    child: Child,
    dir: TempDir,
    settings: BTreeMap<String, String>,
}

/// The token of a sandbox, which the token file has as a hash where its id begins with `hashed-`.
pub fn token_of(sandbox: &str) -> String {
    format!("token-of-{sandbox}")
}

/// A gateway that has not been started.
pub struct Builder {
    dir: TempDir,
    settings: BTreeMap<String, String>,
}

impl Builder {
    /// A setting by its variable without `GATEWAY_`, in lower case.
    pub fn set(mut self, name: &str, value: &str) -> Builder {
        self.settings.insert(format!("GATEWAY_{}", name.to_uppercase()), value.into());
        self
    }

    /// A variable of its environment that is no setting.
    pub fn env(mut self, name: &str, value: &str) -> Builder {
        self.settings.insert(name.into(), value.into());
        self
    }

    /// What was set, or nothing.
    pub fn setting(&self, name: &str) -> String {
        self.settings.get(&format!("GATEWAY_{}", name.to_uppercase())).cloned().unwrap_or_default()
    }

    /// One of several on this PostgreSQL database, which reach each other on loopback.
    pub fn among_several(self, database_url: &str) -> Builder {
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let address = free.local_addr().expect("it is bound");
        self.set("database_url", database_url)
            .set("listen", &address.to_string())
            .set("advertise_url", &format!("http://{address}"))
    }

    /// The directory of its database and token files.
    pub fn directory(&self) -> &Path {
        self.dir.path()
    }

    /// A command with its settings, for instance `migrate status`; exit code, standard output, standard error.
    pub fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let output = command(&self.settings).args(arguments).output().expect("the gateway runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
    }

    /// Make the schema and start.
    #[track_caller]
    pub fn start(self) -> Gateway {
        let (code, _, stderr) = self.run(&["migrate", "up"]);
        assert_eq!(code, 0, "{stderr}");
        let (child, stderr) = spawn(&self.settings);
        let address = address(&stderr);
        Gateway { stderr, address, child, dir: self.dir, settings: self.settings }
    }
}

fn command(settings: &BTreeMap<String, String>) -> Command {
    let mut command = Command::new(binaries::gateway());
    command.env_clear().envs(settings).stdin(Stdio::null());
    command
}

fn spawn(settings: &BTreeMap<String, String>) -> (Child, Output) {
    let mut child =
        command(settings).arg("serve").stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the gateway runs");
    let stderr = Output::read(child.stderr.take().expect("piped"), false);
    (child, stderr)
}

#[track_caller]
fn address(stderr: &Output) -> SocketAddr {
    wait_for("the gateway listens", || {
        let text = stderr.text();
        assert!(!stderr.closed(), "the gateway ended: {text}");
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut addresses = lines.filter_map(|line| line["address"].as_str()?.parse().ok());
        addresses.next()
    })
}

impl Gateway {
    /// Sandboxes `a` to `t` and one user may come; everything else can be set.
    pub fn build() -> Builder {
        let dir = tempfile::tempdir().expect("a scratch directory");
        let file = |name: &str, text: String| {
            let path = dir.path().join(name);
            fs::write(&path, text).expect("our own directory");
            path.display().to_string()
        };
        let users = file("users", format!("# people\nann {USER}\n"));
        let sandboxes: String = ('a'..='t').map(|id| format!("{id} {}\n", token_of(&id.to_string()))).collect();
        let sandboxes = file("sandboxes", sandboxes);
        let settings = [
            ("GATEWAY_LISTEN", "127.0.0.1:0".to_string()),
            ("GATEWAY_DATABASE_URL", format!("sqlite:{}", dir.path().join("gateway.db").display())),
            ("GATEWAY_USER_TOKENS_FILE", users),
            ("GATEWAY_SANDBOX_TOKENS_FILE", sandboxes),
            ("GATEWAY_LOG_LEVEL", "debug".to_string()),
        ];
        let settings = settings.into_iter().map(|(name, value)| (name.to_string(), value)).collect();
        Builder { dir, settings }
    }

    /// With default settings.
    #[track_caller]
    pub fn start() -> Gateway {
        Gateway::build().start()
    }

    /// A client of its API.
    pub fn api(&self) -> Api {
        Api::at(self.address, USER)
    }

    /// The directory of its database and token files.
    pub fn directory(&self) -> &Path {
        self.dir.path()
    }

    /// Its database.
    pub fn database(&self) -> PathBuf {
        self.dir.path().join("gateway.db")
    }

    /// Its process.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    /// Send a signal.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("our own child");
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("our own child").is_some()
    }

    /// Without this setting from its next start on.
    pub fn unset(&mut self, name: &str) {
        self.settings.remove(&format!("GATEWAY_{}", name.to_uppercase()));
    }

    /// Wait for its end; the exit code, or 128 + signal.
    pub fn wait(&mut self) -> i32 {
        use std::os::unix::process::ExitStatusExt;
        let status = wait_for("the gateway ends", || self.child.try_wait().expect("our own child"));
        status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(-1)
    }

    /// kill -9, where it has not ended by itself.
    pub fn kill(&mut self) {
        if !self.has_ended() {
            self.signal(Signal::SIGKILL);
        }
        self.wait();
    }

    /// At the same address, with the same files.
    #[track_caller]
    pub fn start_again(&mut self) {
        self.settings.insert("GATEWAY_LISTEN".into(), self.address.to_string());
        (self.child, self.stderr) = spawn(&self.settings);
        assert_eq!(address(&self.stderr), self.address);
    }

    /// A counter or gauge of `/metrics`, 0 where it is not there.
    pub fn metric(&self, name: &str) -> f64 {
        self.metrics().and_then(|page| http::metric(&page, name)).unwrap_or(0.0)
    }

    /// A counter of `/metrics` over all of its labels; `None` where the gateway does not answer.
    pub fn sum(&self, name: &str) -> Option<f64> {
        let value = |line: &str| {
            let rest = line.strip_prefix(name).filter(|rest| rest.starts_with([' ', '{']))?;
            rest.rsplit(' ').next()?.parse::<f64>().ok()
        };
        Some(self.metrics()?.lines().filter_map(value).sum())
    }

    fn metrics(&self) -> Option<String> {
        Some(http::get(self.address, "/metrics").ok()?.body)
    }

    /// All events of a sandbox.
    #[track_caller]
    pub fn events(&self, sandbox: &str) -> Vec<Value> {
        events(&self.api(), sandbox)
    }
}

/// All events of a sandbox that this gateway has, page by page.
#[track_caller]
pub fn events(api: &Api, sandbox: &str) -> Vec<Value> {
    let (mut all, mut cursor) = (Vec::new(), "0".to_string());
    loop {
        let answer = api.get(&format!("/v1/sandboxes/{sandbox}/events?limit=1000&cursor={cursor}"));
        assert_eq!(answer.status(), 200, "{}", answer.json());
        let page = answer.json();
        cursor = page["cursor"].as_str().expect("a cursor").to_string();
        match page["events"].as_array() {
            Some(events) if !events.is_empty() => all.extend(events.iter().cloned()),
            _ => return all,
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
