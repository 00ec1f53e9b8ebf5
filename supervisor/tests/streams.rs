//! The program's own words and signals, on the real binary.

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// With an environment of its own.
fn supervisor(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_supervisor"));
    command.args(arguments).env_clear().stdin(Stdio::null());
    command
}

fn message(log: &Path) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(log).expect("a termination message")).expect("json")
}

#[test]
fn an_unknown_flag_leaves_a_termination_message() {
    for command in [&["run"][..], &["bootstrap"], &["install", "/no/such"]] {
        let dir = tempfile::tempdir().expect("scratch");
        let log = dir.path().join("log");
        let arguments = [command, &["--no-such-flag=hunter2"]].concat();
        let output = supervisor(&arguments).env("SUPERVISOR_TERMINATION_LOG", &log).output().expect("runs");
        assert_eq!(output.status.code(), Some(64));
        let message = message(&log);
        assert_eq!((&message["state"], &message["exit"]), (&"fault".into(), &64.into()));
        let reason = message["reason"].as_str().expect("text");
        assert!(reason.contains("--no-such-flag") && !reason.contains("hunter2"), "{reason}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("--no-such-flag"));
    }
}

#[test]
fn what_runs_beside_a_container_s_supervisor_leaves_that_one_s_message_alone() {
    let dir = tempfile::tempdir().expect("scratch");
    let log = dir.path().join("log");
    std::fs::write(&log, "kept").expect("written");
    for command in ["probe", "preflight", "settings"] {
        let output =
            supervisor(&[command, "--no-such-flag"]).env("SUPERVISOR_TERMINATION_LOG", &log).output().expect("runs");
        assert_eq!(output.status.code(), Some(64));
        assert_eq!(std::fs::read(&log).expect("there"), b"kept");
    }
}

/// With standard output, and standard error too, on a pipe that nobody reads.
fn unheard(mut command: Command) -> Output {
    let (reader, writer) = std::io::pipe().expect("pipe");
    drop(reader);
    command.stdout(writer).stderr(Stdio::piped()).output().expect("runs")
}

#[test]
fn nobody_listening_is_no_trouble() {
    for arguments in [&["settings"][..], &["--help"], &["run", "--help"]] {
        let output = unheard(supervisor(arguments));
        assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]), "{arguments:?}");
    }
    let (reader, writer) = std::io::pipe().expect("pipe");
    drop(reader);
    let status = supervisor(&["probe", "live", "--listen", "nonsense"]).stderr(writer).status().expect("runs");
    assert_eq!(status.code(), Some(78), "a mistake that nobody hears keeps its code");
}

#[test]
fn a_full_disk_is_told_by_the_code() {
    for arguments in [&["settings"][..], &["--help"]] {
        let full = File::options().write(true).open("/dev/full").expect("linux");
        let output = supervisor(arguments).stdout(full).stderr(Stdio::piped()).output().expect("runs");
        assert_eq!(output.status.code(), Some(75));
        assert!(String::from_utf8_lossy(&output.stderr).contains("standard output"), "{output:?}");
    }
}

/// A FIFO among the source's files would be refused, so what holds bootstrap up is the reader of its own words.
#[test]
fn bootstrap_ends_on_term() {
    let dir = tempfile::tempdir().expect("scratch");
    let source = dir.path().join("defaults");
    std::fs::create_dir(&source).expect("made");
    std::fs::write(source.join("x"), "x").expect("written");
    let (reader, mut writer) = std::io::pipe().expect("pipe");
    fill(&mut writer);
    let mut child = supervisor(&["bootstrap"])
        .env("SUPERVISOR_BOOTSTRAP_SOURCE", &source)
        .env("SUPERVISOR_BOOTSTRAP_TARGET", dir.path().join("target"))
        .stdout(writer)
        .spawn()
        .expect("runs");
    // The marker is the last thing before its words.
    while !dir.path().join("target/.version").exists() {
        std::thread::yield_now();
    }
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).expect("ours");
    // Where TERM does not end it, the closed pipe does, with another answer.
    drop(reader);
    assert_eq!(child.wait().expect("ends").signal(), Some(libc::SIGTERM));
}

/// Until not one byte more fits.
fn fill(writer: &mut std::io::PipeWriter) {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    use std::io::Write;
    fcntl(&*writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("ours");
    for size in [4096, 1] {
        while writer.write(&vec![b'.'; size]).is_ok() {}
    }
    fcntl(&*writer, FcntlArg::F_SETFL(OFlag::empty())).expect("ours");
}
