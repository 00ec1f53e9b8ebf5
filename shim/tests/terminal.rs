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
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpgid, getppid, setpgid};
use protocol::control::{Command, Decoder, Exit, Report, Step, encode};
use protocol::policy::{Access, FileRule, Policy, Session};

/// A shim whose terminal is a new one: `setsid -c` makes the session that a login shell has.
fn on_a_terminal(policy: &Policy) -> (UnixStream, File, std::process::Child) {
    on_a_terminal_by(&[env!("CARGO_BIN_EXE_shim")], |_| policy.clone())
}

/// As above, started by these words; the policy may need to know the pid of the session's leader.
fn on_a_terminal_by(words: &[&str], policy: impl Fn(u32) -> Policy) -> (UnixStream, File, std::process::Child) {
    let pty = openpty(None, None).expect("a pseudo terminal");
    let (mine, theirs) = UnixStream::pair().expect("a socket pair");
    fcntl(&theirs, FcntlArg::F_SETFD(FdFlag::empty())).expect("F_SETFD");
    let end = |fd: &OwnedFd| Stdio::from(fd.try_clone().expect("a copy"));
    let process = Process::new("/usr/bin/setsid")
        .args(["--ctty", "--wait"])
        .args(words)
        .arg(theirs.as_raw_fd().to_string())
        .stdin(end(&pty.slave))
        .stdout(end(&pty.slave))
        .stderr(end(&pty.slave))
        .spawn()
        .expect("the shim starts");
    mine.set_read_timeout(Some(common::LIMIT)).expect("a time limit");
    let frame = encode(&Command::Start(Box::new(policy(process.id())))).expect("a policy encodes");
    (&mine).write_all(&frame).expect("the shim reads");
    (mine, File::from(pty.master), process)
}

/// A shim with this terminal as its standard streams, in the session of the test.
fn start_shim(policy: &Policy, slave: &OwnedFd) -> (UnixStream, std::process::Child) {
    let (mine, theirs) = UnixStream::pair().expect("a socket pair");
    fcntl(&theirs, FcntlArg::F_SETFD(FdFlag::empty())).expect("F_SETFD");
    let end = || Stdio::from(slave.try_clone().expect("a copy"));
    let mut process = Process::new(env!("CARGO_BIN_EXE_shim"));
    process.arg(theirs.as_raw_fd().to_string()).stdin(end()).stdout(end()).stderr(end());
    let process = process.spawn().expect("the shim starts");
    mine.set_read_timeout(Some(common::LIMIT)).expect("a time limit");
    let frame = encode(&Command::Start(Box::new(policy.clone()))).expect("a policy encodes");
    (&mine).write_all(&frame).expect("the shim reads");
    (mine, process)
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

#[test]
fn a_session_of_its_own_is_given_a_terminal_that_nobody_has() {
    let pty = openpty(None, None).expect("a pseudo terminal");
    let mut policy = terminal("ps -o pid=,pgid=,sid=,tpgid= -p $$; echo $$; : < /dev/tty && exec sleep 100");
    policy.session = Session::OwnTerminal;
    let (control, mut process) = start_shim(&policy, &pty.slave);
    drop(pty.slave);
    let mut master = File::from(pty.master);
    let text = read_until(&mut master, "\n");
    let text = if text.matches('\n').count() < 2 { text + &read_until(&mut master, "\n") } else { text };
    let words: Vec<&str> = text.split_whitespace().collect();
    assert!(words.len() == 5 && words.iter().all(|word| word == &words[4]), "it leads them all: {text:?}");
    master.write_all(b"\x03").expect("typing");
    let reports = reports(control);
    assert!(matches!(reports.last(), Some(Report::Ended { exit: Exit::Signal(libc::SIGINT), .. })), "{reports:?}");
    assert_eq!(process.wait().expect("the shim ends").code(), Some(0));
}

#[test]
fn what_is_no_terminal_or_another_sessions_controls_no_session() {
    let mut policy = terminal("true");
    policy.session = Session::OwnTerminal;
    let failure = common::Shim::start(&policy).failed();
    assert!(failure.step == Step::Session && failure.message.contains("that nobody else has"), "{}", failure.message);
    // setsid --ctty has made it its own.
    let (control, _master, mut process) = on_a_terminal(&policy);
    let reports = reports(control);
    assert!(matches!(&reports[..], [Report::Failed(failure)] if failure.step == Step::Session), "{reports:?}");
    process.wait().expect("the shim ends");
}

/// Not a test: the program of the next one.
#[test]
fn as_the_program() {
    let Ok(group) = std::env::var("GROUP") else { return };
    let (own, shim) = (Pid::from_raw(0), getppid());
    println!("\nshim leads: {}", getpgid(Some(shim)) == Ok(shim));
    for group in [Pid::from_raw(group.parse().expect("a group")), shim] {
        let joined = setpgid(own, group);
        println!("joined: {joined:?}");
        if joined.is_ok() {
            let _ = kill(own, Signal::SIGKILL);
        }
    }
    println!("own: {:?}", setpgid(own, own));
}

#[test]
fn below_abi_6_the_group_of_the_supervisor_cannot_be_joined_and_killed() {
    let Some(strace) = common::strace("an older Landlock") else { return };
    let this = std::env::current_exe().expect("our own path");
    let this = this.to_str().expect("our own path is UTF-8").to_owned();
    let prober = |supervisor: u32| {
        let mut policy = terminal("");
        policy.program.path = this.clone().into();
        policy.program.argv = [&this, "--exact", "as_the_program", "--nocapture"].map(Into::into).to_vec();
        policy.program.env.push(format!("GROUP={supervisor}").into());
        policy.supervisor_pid = supervisor as i32;
        policy
    };
    // The shell stands for the supervisor: it leads the session, and the shim is born in its group.
    let inject = "inject=landlock_create_ruleset:retval=5:when=1";
    let stand_in = ["/bin/sh", "-c", "\"$@\"; echo supervisor lives", "sh", &strace, "-qq", "-o", "/dev/null", "-e"];
    let traced = ["trace=landlock_create_ruleset", "-e", inject, env!("CARGO_BIN_EXE_shim")];
    let (control, mut master, mut process) = on_a_terminal_by(&[&stand_in[..], &traced[..]].concat(), prober);
    let text = read_until(&mut master, "supervisor lives");
    assert!(text.contains("shim leads: true"), "{text}");
    assert_eq!(text.matches("joined: Err(EPERM)").count(), 2, "{text}");
    assert!(text.contains("own: Ok(())"), "{text}");
    reports(control);
    process.wait().expect("the stand-in ends");
}
