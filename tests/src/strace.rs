//! What a running program asks of the kernel, in order, as strace(1) sees it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::{binaries, needs, wait};

/// How long it may take to let go.
const LET_GO: Duration = Duration::from_secs(5);

/// A program that is being watched, until this value goes.
pub struct Strace {
    child: Child,
    directory: TempDir,
}

/// One line: a call that begins, one that ends, or both.
#[derive(Clone, Debug)]
pub struct Line {
    /// The thread.
    pub thread: String,
    /// The call, its arguments and its result; descriptors with their paths.
    pub text: String,
}

impl Line {
    /// Whether it is only the beginning of a call that takes its time.
    pub fn is_unfinished(&self) -> bool {
        self.text.ends_with("<unfinished ...>")
    }
}

/// A program in `directory` that is the supervisor, but that has no memory for the first of these calls on this path, as the call names it. Where
/// nobody may do that, why is printed.
pub fn supervisor_without_memory(directory: &Path, calls: &str, path: &str) -> Option<PathBuf> {
    supervisor_with(directory, &format!("-P {path} -e trace={calls} -e inject={calls}:error=ENOMEM:when=1"))
}

/// The same with these options of strace's.
pub fn supervisor_with(directory: &Path, options: &str) -> Option<PathBuf> {
    if !needs::commands(&["strace"]) {
        return None;
    }
    let tried = Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).output().expect("strace is there");
    if !tried.status.success() {
        eprintln!("skipped: strace may not watch: {}", String::from_utf8_lossy(&tried.stderr));
        return None;
    }
    let command = format!("strace -D -f -qq -o /dev/null {options} {}", binaries::supervisor().display());
    let program = directory.join("under-strace");
    binaries::script(&program, &format!("exec {command} \"$@\""));
    Some(program)
}

impl Strace {
    /// Watch these calls of all threads of `pid`. Where nobody may, why is printed.
    #[track_caller]
    pub fn attach(pid: Pid, calls: &str) -> Option<Strace> {
        Strace::attach_with(pid, calls, &[])
    }

    /// The same, and more of strace's options: `inject=…` makes calls fail or last.
    #[track_caller]
    pub fn attach_with(pid: Pid, calls: &str, more: &[String]) -> Option<Strace> {
        Strace::attach_at(pid, calls, &[], more)
    }

    /// The same for those calls alone that are of one of these paths, where there are any; a pipe's is `pipe:[…]`, as in `/proc`.
    #[track_caller]
    pub fn attach_at(pid: Pid, calls: &str, paths: &[String], more: &[String]) -> Option<Strace> {
        if !needs::commands(&["strace"]) {
            return None;
        }
        let directory = tempfile::tempdir().expect("a scratch directory");
        let stderr = fs::File::create(directory.path().join("stderr")).expect("our own directory");
        let mut command = Command::new("strace");
        command.args(["-f", "-y", "-s", "512", "-e", &format!("trace={calls}"), "-p", &pid.to_string()]);
        command.args(paths.iter().flat_map(|path| ["-P", path]));
        command.args(more.iter().flat_map(|option| ["-e", option]));
        command.arg("-o").arg(directory.path().join("calls")).stdin(Stdio::null()).stderr(stderr);
        let mut child = command.spawn().expect("strace is there");
        let said = || fs::read_to_string(directory.path().join("stderr")).unwrap_or_default();
        let ended = wait::wait_for("strace is attached", || match child.try_wait().expect("our own child") {
            Some(_) => Some(true),
            None => said().contains("attached").then_some(false),
        });
        if ended {
            eprintln!("skipped: strace may not watch: {}", said());
            return None;
        }
        Some(Strace { child, directory })
    }

    /// How many calls an `inject=…` has changed so far.
    pub fn injected(&self) -> usize {
        self.lines().iter().filter(|line| line.text.ends_with("(INJECTED)")).count()
    }

    /// What was seen so far.
    pub fn lines(&self) -> Vec<Line> {
        let text = fs::read_to_string(self.directory.path().join("calls")).unwrap_or_default();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let split =
            |line: &str| line.split_once(' ').map(|(thread, text)| (thread.to_string(), text.trim().to_string()));
        whole.lines().filter_map(split).map(|(thread, text)| Line { thread, text }).collect()
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        // By TERM it lets go of what it watches; but not where that is just in vfork(2), whose parent it waits for, and which waits for the child that
        // it holds. Whose tracer is killed goes on (ptrace(2)).
        let _ = kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM);
        let ended = wait::within(LET_GO, || self.child.try_wait().is_ok_and(|end| end.is_some()).then_some(()));
        if ended.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
