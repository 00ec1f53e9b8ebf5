//! One supervisor as a process: started here or found, its end awaited, its pid never mistaken for another's.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::Config;
use crate::backend::words::cut;

/// The last words that are told of a log.
const LAST_WORDS: i64 = 4096;

/// A supervisor that ran when it was looked at.
#[derive(Debug)]
pub(super) struct Process {
    /// The process itself, whatever becomes of its number (pidfd_open(2)).
    pidfd: AsyncFd<OwnedFd>,
    /// Where we are its parent.
    child: Option<Child>,
}

impl Process {
    /// Start a supervisor in this sandbox's directory, with the settings of this process and those that are the backend's.
    pub(super) fn start(config: &Config, directory: &Path, id: &str) -> io::Result<Process> {
        let log = directory.join("log");
        // The one before is kept, so that the log does not grow for ever.
        let _ = std::fs::rename(&log, directory.join("log.1"));
        let log = OpenOptions::new().create(true).append(true).mode(0o600).open(log)?;
        let mut command = Command::new(&config.supervisor);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("GATEWAY_") || name == "DATABASE_URL" {
                command.env_remove(name);
            }
        }
        command
            .arg("run")
            .env("HOME", directory.join("home"))
            .env("SUPERVISOR_AGENT_ID", id)
            .env("SUPERVISOR_DEPLOYMENT_BACKEND", "local")
            .env("SUPERVISOR_GATEWAY_URL", &config.gateway_url)
            .env("SUPERVISOR_LINK_TOKEN_FILE", directory.join("token"))
            // A fleet of a few needs no spreading.
            .env("SUPERVISOR_LINK_WINDOW", "20ms")
            .env("SUPERVISOR_LISTEN", "127.0.0.1:0")
            .env("SUPERVISOR_STATE_DIR", directory.join("state"))
            .env("SUPERVISOR_WORKSPACE", directory.join("workspace"))
            .current_dir(directory)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Ctrl-C at our terminal is for us; a supervisor is stopped by us, or goes on.
            .process_group(0);
        if std::env::var_os("SUPERVISOR_GRACE").is_none() {
            command.env("SUPERVISOR_GRACE", "5s");
        }
        let child = command.spawn()?;
        let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
        Process::of(pid, Some(child))
    }

    /// The supervisor that holds this state directory.
    pub(super) fn find(state: &Path) -> Option<Process> {
        let pid = running(state)?;
        let process = Process::of(pid, None).ok()?;
        // The number was the holder's before the descriptor was had, and is now: so it was meanwhile.
        (running(state) == Some(pid)).then_some(process)
    }

    fn of(pid: i32, child: Option<Child>) -> io::Result<Process> {
        let known = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
        let pidfd = pidfd_open(known, PidfdFlags::empty())?;
        Ok(Process { pidfd: watch(pidfd)?, child })
    }

    /// Its exit code, or 128 + signal; `None` where only its parent is told. May be dropped and called again.
    pub(super) async fn ended(&mut self) -> Option<i32> {
        // Readable when it has ended; a descriptor that cannot be polled is no running process either.
        let _ = self.pidfd.readable().await;
        let status = self.child.as_mut()?.wait().ok()?;
        status.code().or_else(|| Some(128 + status.signal()?))
    }

    /// Ask it to stop.
    pub(super) fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// End it; its trees end with it, because their lifelines close.
    pub(super) fn kill(&self) {
        self.signal(Signal::KILL);
    }

    fn signal(&self, signal: Signal) {
        // It may have ended.
        let _ = pidfd_send_signal(&self.pidfd, signal);
    }
}

/// Readable when the process has ended.
#[allow(unsafe_code)]
fn watch(pidfd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the number that tokio registers must be this descriptor's until it is dropped. `OwnedFd` has one number for
    // all its life, and it lives inside of the `AsyncFd`, from which nothing here takes it out.
    Ok(unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) }?)
}

/// Who holds the lock of this state directory, by what the holder wrote into it.
pub(super) fn running(state: &Path) -> Option<i32> {
    let mut lock = File::open(state.join("lock")).ok()?;
    match lock.try_lock() {
        Err(TryLockError::WouldBlock) => {}
        // Nobody, then; the lock that we have now goes with this function.
        Ok(()) | Err(TryLockError::Error(_)) => return None,
    }
    let mut text = String::new();
    (&mut lock).take(256).read_to_string(&mut text).ok()?;
    text.split_whitespace().next()?.parse().ok()
}

/// The last line of a log: why a supervisor ended.
pub(super) fn last_words(log: &Path) -> String {
    let read = || {
        let mut file = File::open(log)?;
        let length = i64::try_from(file.metadata()?.len()).unwrap_or(i64::MAX);
        file.seek(SeekFrom::End(-length.min(LAST_WORDS)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        io::Result::Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    told(&read().unwrap_or_default())
}

/// What the end of a log tells of that. Anybody in the sandbox may have written the line.
pub(crate) fn told(text: &str) -> String {
    let line = text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
    let value: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
    cut(value["message"].as_str().unwrap_or_else(|| line.trim_start_matches("supervisor: ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_directory_without_a_holder_has_no_supervisor() {
        let directory = tempfile::tempdir().expect("a scratch directory");
        assert_eq!(running(directory.path()), None);
        let path = directory.path().join("lock");
        std::fs::write(&path, format!("{} on here\n", std::process::id())).expect("our own file");
        assert_eq!(running(directory.path()), None, "nobody holds it");
        let held = File::open(&path).expect("our own file");
        held.try_lock().expect("nobody else has it");
        assert_eq!(running(directory.path()), i32::try_from(std::process::id()).ok());
    }

    #[test]
    fn last_words_are_a_message_or_the_last_line() {
        let directory = tempfile::tempdir().expect("a scratch directory");
        let log = directory.path().join("log");
        assert_eq!(last_words(&log), "it said nothing");
        std::fs::write(&log, "{\"message\":\"starting\"}\nsupervisor: the workspace is missing\n")
            .expect("our own file");
        assert_eq!(last_words(&log), "the workspace is missing");
        std::fs::write(&log, "{\"level\":\"ERROR\",\"message\":\"no\"}\n\n").expect("our own file");
        assert_eq!(last_words(&log), "no");
        std::fs::write(&log, "\x1b[2J\x07gone\n").expect("our own file");
        assert_eq!(last_words(&log), "[2J gone", "they do not steer a terminal");
    }
}
