//! The half of the stage that stays outside: it makes the namespaces and ends as the inner half ends.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitStatus};

use nix::fcntl::{OFlag, openat, renameat};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, raise};
use nix::sys::stat::Mode;
use nix::unistd::{getegid, geteuid};

use super::{Pids, Stage, weaken};

/// Make the namespaces and run the inner half in them. Returns only with a problem.
pub fn outer(stage: &Stage) -> Result<i32, String> {
    let mut flags = CloneFlags::empty();
    if stage.mounts() {
        flags |= CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS;
    }
    if stage.pids != Pids::Host {
        flags |= CloneFlags::CLONE_NEWPID;
    }
    if stage.container.is_some() {
        flags |= CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWIPC;
    }
    let (uid, gid) = (geteuid(), getegid());
    if !uid.is_root() && (!flags.is_empty() || stage.profile.needs_root()) {
        flags |= CloneFlags::CLONE_NEWUSER;
    }
    if !flags.is_empty() {
        unshare(flags).map_err(|e| format!("unshare {flags:?}: {e}"))?;
    }
    if flags.contains(CloneFlags::CLONE_NEWUSER) {
        map_ids(0, uid.as_raw(), gid.as_raw())?;
    }

    let myself = std::env::current_exe().map_err(|e| format!("own path: {e}"))?;
    let ear = (!stage.cuts.is_empty()).then(weaken::Ear::new).transpose().map_err(|e| format!("an ear: {e}"))?;
    let stage = Stage { ear: ear.as_ref().map(weaken::Ear::number), ..stage.clone() };
    let mut command = Command::new(myself);
    command.arg0("stage-inner").arg("inner").args(stage.arguments());
    if stage.pids == Pids::Host {
        return Err(format!("exec: {}", command.exec()));
    }
    // Before there is a child, which turns the root of us both into that of the container.
    let folder = stage.pid_file.as_deref().and_then(Path::parent).map(File::open).transpose();
    let folder = folder.map_err(|e| format!("the folder of the pid: {e}"))?;
    let mut child = command.spawn().map_err(|e| format!("start the inner stage: {e}"))?;
    if let (Some(folder), Some(name)) = (folder, stage.pid_file.as_deref().and_then(Path::file_name)) {
        write_beside(&folder, name, &child.id().to_string()).map_err(|e| format!("write the pid: {e}"))?;
    }
    if let Some(ear) = ear {
        ear.listen(child.id(), &stage.cuts).map_err(|e| format!("hear the shim: {e}"))?;
    }
    let status = child.wait().map_err(|e| format!("wait: {e}"))?;
    Ok(end_like(status))
}

/// A file that is there with its text, or not at all.
fn write_beside(folder: &File, name: &OsStr, text: &str) -> io::Result<()> {
    let whole = Path::new(name).with_extension("new");
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_CLOEXEC;
    File::from(openat(folder, &whole, flags, Mode::from_bits_truncate(0o644))?).write_all(text.as_bytes())?;
    Ok(renameat(folder, &whole, folder, name)?)
}

/// One outer id becomes `inside` in the user namespace just made.
pub(super) fn map_ids(inside: u32, uid: u32, gid: u32) -> Result<(), String> {
    for (file, line) in [
        ("setgroups", "deny".to_string()),
        ("uid_map", format!("{inside} {uid} 1")),
        ("gid_map", format!("{inside} {gid} 1")),
    ] {
        fs::write(format!("/proc/self/{file}"), line).map_err(|e| format!("write {file}: {e}"))?;
    }
    Ok(())
}

/// Exit code of the child, or the child's own signal for us.
fn end_like(status: ExitStatus) -> i32 {
    if let Some(signal) = status.signal() {
        if let Ok(signal) = Signal::try_from(signal) {
            // a core file of this process would tell nothing
            let _ = nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_CORE, 0, 0);
            let _ = raise(signal);
        }
        return 128 + signal;
    }
    status.code().unwrap_or(1)
}
