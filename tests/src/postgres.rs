//! A real PostgreSQL server of a test's own, on loopback, where the Debian package is installed.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use tempfile::TempDir;

use crate::processes;
use crate::wait::wait_until;

/// The server refuses to be root, so there it is nobody.
const NOBODY: u32 = 65534;

/// A running server; it ends with this value.
pub struct Postgres {
    programs: PathBuf,
    directory: TempDir,
    port: u16,
    child: Child,
}

impl Postgres {
    /// With one empty database, `gateway`. Where the package is not there, why is printed and nothing is started.
    #[track_caller]
    pub fn start() -> Option<Postgres> {
        let Some(programs) = programs() else {
            eprintln!("skipped: there is no PostgreSQL on this machine (apt-get install postgresql)");
            return None;
        };
        let directory = tempfile::tempdir().expect("a scratch directory");
        if geteuid().is_root() {
            chown(directory.path(), Some(NOBODY), Some(NOBODY)).expect("root may");
        }
        let data = directory.path().join("data");
        let made = as_nobody(&programs.join("initdb"))
            .args(["--auth=trust", "--username=gateway", "--encoding=UTF8", "--locale=C", "--no-sync", "--pgdata"])
            .arg(&data)
            .stdout(Stdio::null())
            .status();
        assert!(made.expect("initdb runs").success());
        let port = TcpListener::bind("127.0.0.1:0").expect("loopback").local_addr().expect("bound").port();
        let child = serve(&programs, directory.path(), port);
        let mut server = Postgres { programs, directory, port, child };
        server.wait_up();
        server.sql("postgres", "CREATE DATABASE gateway");
        Some(server)
    }

    /// Of its database.
    pub fn url(&self) -> String {
        format!("postgres://gateway@127.0.0.1:{}/gateway", self.port)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    /// Run a statement; what it answers, without headings.
    #[track_caller]
    pub fn sql(&self, database: &str, statement: &str) -> String {
        let output = self.psql(database, statement).output().expect("psql runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// A client that has sent a statement which takes its time.
    #[track_caller]
    pub fn hold(&self, database: &str, statement: &str) -> Child {
        let child = self.psql(database, statement).stdout(Stdio::null()).spawn().expect("psql runs");
        let begun = format!("SELECT count(*) FROM pg_stat_activity WHERE query = '{statement}' AND state = 'active'");
        wait_until("the server works on it", || self.sql(database, &begun) == "1");
        child
    }

    /// kill -9 of all its processes: nothing is finished, and what was committed is there after the next start.
    pub fn kill(&mut self) {
        // Nobody comes to them from here on.
        self.freeze();
        let trees = processes::descendants(Pid::from_raw(self.child.id() as i32));
        self.signal_all(Signal::SIGKILL);
        self.child.wait().expect("our own child");
        // Its memory is theirs as well, and another server would not begin beside them.
        wait_until("the end of its processes", || !trees.iter().any(|&pid| processes::alive(pid)));
    }

    /// It is there and takes connections, and says nothing any more: as behind a network that drops everything.
    pub fn freeze(&self) {
        self.signal_all(Signal::SIGSTOP);
    }

    /// It goes on.
    pub fn thaw(&self) {
        self.signal_all(Signal::SIGCONT);
    }

    fn signal_all(&self, signal: Signal) {
        let server = Pid::from_raw(self.child.id() as i32);
        for pid in processes::descendants(server).into_iter().chain([server]) {
            // One that serves a connection may have ended meanwhile.
            let _ = kill(pid, signal);
        }
    }

    /// At the same address, with the same data.
    pub fn start_again(&mut self) {
        self.child = serve(&self.programs, self.directory.path(), self.port);
        self.wait_up();
    }

    #[track_caller]
    fn wait_up(&mut self) {
        wait_until("the server answers", || {
            let ended = self.child.try_wait().expect("our own child");
            assert!(ended.is_none(), "the server has ended: another one may have taken its port");
            self.psql("postgres", "SELECT 1").output().is_ok_and(|output| output.status.success())
        });
    }

    fn psql(&self, database: &str, statement: &str) -> Command {
        let mut command = Command::new(self.programs.join("psql"));
        command.args([
            "--no-psqlrc",
            "--quiet",
            "--tuples-only",
            "--no-align",
            "--username=gateway",
            "--host=127.0.0.1",
        ]);
        command.args(["--port", &self.port.to_string(), "--dbname", database, "--command", statement]);
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // One that was waited for has no number any more.
        if let Ok(None) = self.child.try_wait() {
            self.thaw();
            let _ = kill(Pid::from_raw(self.child.id() as i32), Signal::SIGQUIT);
            let _ = self.child.wait();
        }
    }
}

fn serve(programs: &Path, directory: &Path, port: u16) -> Child {
    let log = fs::File::options().append(true).create(true).open(directory.join("log")).expect("our own directory");
    as_nobody(&programs.join("postgres"))
        .args(["-c", "listen_addresses=127.0.0.1", "-c", "shared_buffers=16MB", "-c", "max_connections=32"])
        .arg("-p")
        .arg(port.to_string())
        .arg("-k")
        .arg(directory)
        .arg("-D")
        .arg(directory.join("data"))
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("the server starts")
}

fn as_nobody(program: &Path) -> Command {
    if !geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args([format!("--reuid={NOBODY}"), format!("--regid={NOBODY}"), "--clear-groups".into(), "--".into()]);
    command.arg(program).current_dir("/");
    command
}

/// Debian keeps the server's programs of each version apart and out of PATH.
fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?.flatten();
    let mut found: Vec<PathBuf> = versions.map(|version| version.path().join("bin")).collect();
    found.retain(|programs| programs.join("postgres").exists() && programs.join("psql").exists());
    found.sort();
    found.pop()
}
