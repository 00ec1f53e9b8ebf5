//! A program whose standard input is a terminal gets it, with its foreground group, and gives it back.

mod common;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command as Process, Stdio};

use common::script;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::pty::openpty;
use protocol::control::{Command, Decoder, Exit, Report, Step, encode};
use protocol::policy::{Access, FileRule, Policy, Session};

/// A shim whose terminal is a new one: `setsid -c` makes the session that a login shell has.
fn on_a_terminal(policy: &Policy) -> (UnixStream, File, std::process::Child) {
    let pty = openpty(None, None).expect("a pseudo terminal");
    let (mine, theirs) = UnixStream::pair().expect("a socket pair");
    fcntl(&theirs, FcntlArg::F_SETFD(FdFlag::empty())).expect("F_SETFD");
    let end = |fd: &OwnedFd| Stdio::from(fd.try_clone().expect("a copy"));
    let process = Process::new("/usr/bin/setsid")
        .args(["--ctty", "--wait", env!("CARGO_BIN_EXE_shim"), &theirs.as_raw_fd().to_string()])
        .stdin(end(&pty.slave))
        .stdout(end(&pty.slave))
        .stderr(end(&pty.slave))
        .spawn()
        .expect("the shim starts");
    mine.set_read_timeout(Some(common::LIMIT)).expect("a time limit");
    let frame = encode(&Command::Start(Box::new(policy.clone()))).expect("a policy encodes");
    (&mine).write_all(&frame).expect("the shim reads");
    (mine, File::from(pty.master), process)
}

fn reports(mut control: UnixStream) -> Vec<Report> {
    let mut bytes = Vec::new();
    control.read_to_end(&mut bytes).expect("the shim ends");
    let mut decoder = Decoder::default();
    decoder.push(&bytes);
    std::iter::from_fn(|| decoder.next().expect("reports decode")).collect()
}

fn terminal(text: &str) -> Policy {
    let mut policy = script(text);
    policy.session = Session::Terminal;
    policy.files.push(FileRule { path: "/dev/tty".into(), access: Access::Device });
    policy.files.push(FileRule { path: "/dev/pts".into(), access: Access::Device });
    policy
}

fn read_until(terminal: &mut File, word: &str) -> String {
    let mut text = String::new();
    let mut bytes = [0; 1024];
    while !text.contains(word) {
        let count = terminal.read(&mut bytes).expect("the program writes");
        text.push_str(&String::from_utf8_lossy(&bytes[..count]));
    }
    text
}

#[test]
fn a_program_on_a_terminal_is_its_foreground_group_and_hears_what_is_typed() {
    // ps names the program's group and the terminal's foreground group.
    let (control, mut master, mut process) =
        on_a_terminal(&terminal("ps -o pgid=,tpgid= -p $$; read line; echo got $line; exec sleep 100"));
    let groups = read_until(&mut master, "\n");
    let words: Vec<&str> = groups.split_whitespace().collect();
    assert_eq!(words[0], words[1], "{groups:?}");
    master.write_all(b"hello\n").expect("typing");
    read_until(&mut master, "got hello");
    // The terminal's own interrupt: it goes to the foreground group, and the shim is not in it.
    master.write_all(b"\x03").expect("typing");
    let reports = reports(control);
    assert!(matches!(reports.last(), Some(Report::Ended { exit: Exit::Signal(libc::SIGINT), .. })), "{reports:?}");
    assert_eq!(process.wait().expect("the shim ends").code(), Some(0));
}

#[test]
fn a_terminal_session_without_a_terminal_is_refused() {
    let failure = common::Shim::start(&terminal("true")).failed();
    assert_eq!(failure.step, Step::Session);
    assert!(failure.message.contains("standard input is not"), "{}", failure.message);
}

#[test]
fn a_session_of_its_own_has_no_terminal() {
    let mut policy = terminal("ps -o tty= -p $$; (: < /dev/tty) 2>/dev/null || echo no terminal");
    policy.session = Session::Own;
    let (control, mut master, mut process) = on_a_terminal(&policy);
    let text = read_until(&mut master, "no terminal");
    assert!(text.starts_with('?'), "{text:?}");
    reports(control);
    process.wait().expect("the shim ends");
}
