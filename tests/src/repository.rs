//! Git repositories of tests, and other programs of this machine that have to succeed.

use std::path::Path;
use std::process::{Command, Stdio};

/// Make a repository of this directory, with all of it in one commit.
#[track_caller]
pub fn commit(at: &Path) {
    run(at, "git", &["init", "-q", "."]);
    run(at, "git", &["add", "-A"]);
    run(at, "git", &["-c", "user.name=t", "-c", "user.email=t@example.com", "commit", "-qm", "first commit"]);
}

/// What a program writes that is run there; panics where it fails.
#[track_caller]
pub fn run(at: &Path, program: &str, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new(program).args(arguments).current_dir(at).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}
