//! A control group for one sandbox, as the container runtime gives it one: what is measured there is its own.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::unistd::Pid;

use crate::wait::{self, LONG};

/// One directory for each hierarchy. Removed with this value, once nobody is in it.
pub struct Group(Vec<PathBuf>);

impl Group {
    /// `None` where this machine lets us make none; then why is printed.
    pub fn new() -> Option<Group> {
        let root = Path::new("/sys/fs/cgroup");
        let old: Vec<PathBuf> = ["memory", "pids", "cpuacct"].map(|controller| root.join(controller)).into();
        let hierarchies = if old.iter().all(|path| path.is_dir()) { old } else { vec![root.to_owned()] };
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let made = Group::make(&hierarchies, &format!("chaperone-test-{}-{number}", std::process::id()));
        made.inspect_err(|error| eprintln!("skipped: a control group cannot be made: {error}")).ok()
    }

    fn make(hierarchies: &[PathBuf], name: &str) -> io::Result<Group> {
        let mut group = Group(Vec::new());
        for hierarchy in hierarchies {
            fs::create_dir(hierarchy.join(name))?;
            group.0.push(hierarchy.join(name));
        }
        let there = |file: &str| group.0.iter().any(|path| path.join(file).exists());
        match (there("memory.current") || there("memory.usage_in_bytes")) && there("pids.current") {
            true => Ok(group),
            false => Err(io::Error::other("its parent passes no controllers on")),
        }
    }

    /// These processes, and whatever they start from now on, are in it.
    pub fn take(&self, pids: impl IntoIterator<Item = Pid>) {
        for pid in pids {
            for path in &self.0 {
                // It may just have ended.
                let _ = fs::write(path.join("cgroup.procs"), pid.to_string());
            }
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for path in &self.0 {
            wait::within(LONG, || fs::remove_dir(path).ok());
        }
    }
}
