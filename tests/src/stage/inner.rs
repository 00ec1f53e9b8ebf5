//! The half of the stage inside the namespaces: mounts, then terminal, then privileges, then ARGV.

use std::fs::OpenOptions;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, wait};
use nix::unistd::{Pid, dup2_stderr, dup2_stdin, dup2_stdout, setsid};

use super::{Pids, Stage, container, weaken};
use crate::scene::OUTSIDER;

const NOTHING: Option<&str> = None;

/// Prepare, then become ARGV. Returns an exit code only where the stage stays as init.
pub fn inner(stage: &Stage) -> Result<i32, String> {
    if stage.mounts() {
        mount(NOTHING, "/", NOTHING, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NOTHING)
            .map_err(|e| format!("make mounts private: {e}"))?;
    }
    if let Some((scratch, programs)) = &stage.container {
        container::enter(scratch, programs, stage.profile)?;
    } else if stage.pids != Pids::Host {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(Some("proc"), "/proc", Some("proc"), flags, NOTHING).map_err(|e| format!("mount /proc: {e}"))?;
    }
    for (path, kib) in &stage.tmpfs {
        let options = format!("size={kib}k,mode=0777");
        mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::MS_NOSUID, Some(options.as_str()))
            .map_err(|e| format!("mount a tmpfs at {}: {e}", path.display()))?;
    }
    if let Some(terminal) = &stage.terminal {
        take_terminal(terminal).map_err(|e| format!("terminal {}: {e}", terminal.display()))?;
    }
    if stage.pids != Pids::Host && stage.terminal.is_none() {
        // a container's first process leads a session and a group of its own
        setsid().map_err(|e| format!("new session: {e}"))?;
    }
    if let Some(ear) = stage.ear {
        // Root may do so without `no_new_privs`, which is the shim's to set.
        weaken::hand_over(ear, &stage.cuts).map_err(|e| format!("hand the shim's calls over: {e}"))?;
    }
    stage.profile.take_on()?;
    if stage.pids != Pids::Host {
        // a change of ids clears it, so it comes after that (prctl(2)); the outer half is the parent
        set_pdeathsig(Signal::SIGKILL).map_err(|e| format!("parent death signal: {e}"))?;
    }
    if !stage.without.is_empty() {
        crate::kernel::forget(&stage.without).map_err(|e| format!("take system calls away: {e}"))?;
    }
    if stage.outsider {
        start_outsider()?;
    }
    let mut command = Command::new(&stage.argv[0]);
    command.args(&stage.argv[1..]);
    if stage.pids != Pids::Child {
        return Err(format!("run {}: {}", stage.argv[0].display(), command.exec()));
    }
    let child = command.spawn().map_err(|e| format!("run {}: {e}", stage.argv[0].display()))?;
    Ok(reap_until(Pid::from_raw(child.id() as i32)))
}

/// A session of our own, with this terminal; opening it as session leader makes it the controlling one.
fn take_terminal(path: &std::path::Path) -> Result<(), std::io::Error> {
    setsid()?;
    let terminal = OpenOptions::new().read(true).write(true).open(path)?;
    dup2_stdin(&terminal)?;
    dup2_stdout(&terminal)?;
    dup2_stderr(&terminal)?;
    Ok(())
}

fn start_outsider() -> Result<(), String> {
    let myself = crate::scene::PROBE;
    let mut child = Command::new(myself)
        .arg(OUTSIDER)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| format!("start the outsider: {e}"))?;
    // it says when its socket listens
    let mut line = [0u8; 1];
    let mut output = child.stdout.take().ok_or("the outsider has no output")?;
    std::io::Read::read_exact(&mut output, &mut line).map_err(|e| format!("the outsider: {e}"))
}

/// The least that an init does; the exit code of `child`.
fn reap_until(child: Pid) -> i32 {
    loop {
        match wait() {
            Ok(WaitStatus::Exited(pid, code)) if pid == child => return code,
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == child => return 128 + signal as i32,
            Err(Errno::ECHILD) => return 1,
            _ => {}
        }
    }
}
