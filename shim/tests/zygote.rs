//! A shim that a zygote forked is one like any other, and the zygote keeps nothing of it.

mod common;

use std::ffi::OsString;
use std::fs::File;
use std::io::{IoSlice, Read as _, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command as Process, Stdio};

use common::{LIMIT, NOBODY, Shim, for_user, root, script, wait_until};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use protocol::control::{Command, Decoder, Exit, Report, Step, encode};
use protocol::policy::Access::Read;
use protocol::policy::{FileRule, Policy};
use protocol::zygote::{FLAG, HOLD, ORDER, read_answer};

struct Zygote {
    process: Child,
    orders: UnixStream,
}

impl Zygote {
    fn start() -> Zygote {
        Zygote::start_by(Process::new(env!("CARGO_BIN_EXE_shim")))
    }

    /// As another user.
    fn start_as(uid: u32) -> Zygote {
        let (_directory, command) = for_user(uid);
        Zygote::start_by(command)
    }

    fn start_by(mut command: Process) -> Zygote {
        let (orders, theirs) = UnixStream::pair().expect("a socket pair");
        fcntl(&theirs, FcntlArg::F_SETFD(FdFlag::empty())).expect("F_SETFD");
        command.args([FLAG, &theirs.as_raw_fd().to_string()]).stdin(Stdio::null());
        let process = command.spawn().expect("the zygote starts");
        orders.set_read_timeout(Some(LIMIT)).expect("a time limit");
        Zygote { process, orders }
    }

    fn hold(&self, paths: &[&Path]) {
        let paths: Vec<OsString> = paths.iter().map(|path| path.as_os_str().into()).collect();
        let frame = encode(&paths).expect("paths encode");
        // In parts, as a full socket would take it.
        for part in [&HOLD[..], &frame[..3], &frame[3..]] {
            send(&self.orders, part, &[]);
        }
    }

    fn order(&self, descriptors: &[OwnedFd]) {
        send(&self.orders, &ORDER, descriptors);
    }

    /// A shim that has been given `policy`: its pid, its control socket, and what its program writes.
    fn fork(&mut self, policy: &Policy) -> (i32, UnixStream, std::io::PipeReader) {
        let (mut control, theirs) = UnixStream::pair().expect("a socket pair");
        let (output, write) = std::io::pipe().expect("a pipe");
        let error = write.try_clone().expect("a duplicate");
        self.order(&[theirs.into()]);
        let mut answer = [0; 4];
        self.orders.read_exact(&mut answer).expect("an answer");
        let pid = read_answer(answer).expect("a fork");
        control.set_read_timeout(Some(LIMIT)).expect("a time limit");
        let frame = encode(&Command::Start(Box::new(policy.clone()))).expect("commands encode");
        // In two parts: the streams come with the first.
        let (first, rest) = frame.split_at(7);
        send(&control, first, &[null(), write.into(), error.into()]);
        control.write_all(rest).expect("the shim reads");
        (pid, control, output)
    }
}

fn send(socket: &UnixStream, bytes: &[u8], descriptors: &[OwnedFd]) {
    let numbers: Vec<_> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let beside = [ControlMessage::ScmRights(&numbers)];
    sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(bytes)], &beside, MsgFlags::empty(), None).expect("it reads");
}

fn null() -> OwnedFd {
    File::open("/dev/null").expect("/dev/null").into()
}

impl Drop for Zygote {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn reports(mut control: UnixStream) -> Vec<Report> {
    let mut bytes = Vec::new();
    control.read_to_end(&mut bytes).expect("reports");
    let mut decoder = Decoder::default();
    decoder.push(&bytes);
    std::iter::from_fn(|| decoder.next().expect("reports decode")).collect()
}

#[test]
fn a_forked_shim_is_the_starters_child_and_runs_its_program_as_any_other() {
    let mut zygote = Zygote::start();
    // Twice: nothing of the first is left for the second.
    for code in [3, 4] {
        let text =
            format!("n=0; while [ $n -lt 200 ]; do [ -e /proc/$$/fd/$n ] && echo $n; n=$((n+1)); done; exit {code}");
        let (pid, control, mut output) = zygote.fork(&script(&text));
        let reports = reports(control);
        let is_last = matches!(reports.last(), Some(Report::Ended { exit, .. }) if *exit == Exit::Code(code));
        assert!(matches!(reports.first(), Some(Report::Started { .. })) && is_last, "{reports:?}");
        let mut said = String::new();
        // To its end: neither the zygote nor the shim kept the pipe.
        output.read_to_string(&mut said).expect("output");
        assert_eq!(said, "0\n1\n2\n");
        assert_eq!(waitpid(Pid::from_raw(pid), None), Ok(WaitStatus::Exited(Pid::from_raw(pid), 0)));
    }
}

#[test]
fn a_forked_shim_outlives_the_zygote_and_ends_with_its_own_lifeline() {
    let mut zygote = Zygote::start();
    let (pid, control, mut output) = zygote.fork(&script("echo up; exec sleep 1000"));
    output.read_exact(&mut [0; 3]).expect("it is up");
    drop(zygote);
    assert!(std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "shim\n"));
    drop(control);
    output.read_to_string(&mut String::new()).expect("the end of its program");
    assert!(matches!(waitpid(Pid::from_raw(pid), None), Ok(WaitStatus::Exited(..))));
}

#[test]
fn a_shim_without_a_policy_ends_when_its_control_socket_closes() {
    let zygote = Zygote::start();
    let (control, theirs) = UnixStream::pair().expect("a socket pair");
    zygote.order(&[theirs.into()]);
    let mut answer = [0; 4];
    (&zygote.orders).read_exact(&mut answer).expect("an answer");
    let pid = read_answer(answer).expect("a fork");
    wait_until("it waits", || std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "ready\n"));
    drop(control);
    assert!(matches!(waitpid(Pid::from_raw(pid), None), Ok(WaitStatus::Exited(..))));
}

#[test]
fn what_a_zygote_holds_is_readable_by_whom_the_policy_says_and_stays_the_file_that_it_was() {
    let directory = tempfile::tempdir_in("/var/tmp").expect("a directory");
    let path = directory.path().join("held");
    std::fs::write(&path, "first").expect("a file");
    let mut zygote = Zygote::start();
    zygote.hold(&[&path, &directory.path().join("missing")]);
    let read = |zygote: &mut Zygote, held: bool| {
        let mut policy = script(&format!("cat {} 2>&1", path.display()));
        policy.files.retain(|rule| rule.path != "/");
        policy
            .files
            .extend(["/bin", "/usr", "/lib", "/lib64"].map(|path| FileRule { path: path.into(), access: Read }));
        policy.held = held;
        let (pid, _control, mut output) = zygote.fork(&policy);
        let mut said = String::new();
        output.read_to_string(&mut said).expect("output");
        assert!(matches!(waitpid(Pid::from_raw(pid), None), Ok(WaitStatus::Exited(..))));
        said
    };
    assert_eq!(read(&mut zygote, true), "first");
    assert!(read(&mut zygote, false).contains("Permission denied"));
    // Another file by the same name is none that is held, until somebody says so.
    std::fs::write(directory.path().join("new"), "second").expect("a file");
    std::fs::rename(directory.path().join("new"), &path).expect("its name");
    assert!(read(&mut zygote, true).contains("Permission denied"));
    zygote.hold(&[&path]);
    assert_eq!(read(&mut zygote, true), "second");
    zygote.hold(&[]);
    assert!(read(&mut zygote, true).contains("Permission denied"));
}

#[test]
fn a_shim_that_was_started_holds_nothing_and_refuses_to_count_on_it() {
    let mut policy = script("true");
    policy.held = true;
    assert_eq!(Shim::start(&policy).failed().step, Step::Policy);
}

#[test]
fn the_zygote_ends_with_its_orders_and_at_what_is_no_order() {
    let mut zygote = Zygote::start();
    zygote.orders.shutdown(std::net::Shutdown::Write).expect("shut down");
    assert_eq!(zygote.process.wait().expect("it ends").code(), Some(0));

    let mut zygote = Zygote::start();
    zygote.order(&[null(), null()]);
    assert_ne!(zygote.process.wait().expect("it ends").code(), Some(0));
}

#[test]
fn zygote_and_forked_shim_hide_from_others_of_their_own_uid() {
    if !root("a shim of another uid") {
        return;
    }
    let mut zygote = Zygote::start_as(NOBODY);
    let mut policy = script("cat /proc/self/oom_score_adj; echo; exec sleep 1000");
    policy.oom_score_adj = Some(500);
    let (shim, control, mut output) = zygote.fork(&policy);
    let mut score = [0; 3];
    output.read_exact(&mut score).expect("it is up");
    assert_eq!(&score, b"500", "the program's");
    for (pid, name) in [(zygote.process.id(), "zygote"), (shim as u32, "shim")] {
        let path = |file: &str| format!("/proc/{pid}/{file}");
        let read = |file: &str| std::fs::read_to_string(path(file)).unwrap_or_default();
        assert_eq!(read("comm").trim_end(), name);
        // The files of a process that is not dumpable belong to root, whoever it runs as (proc(5)).
        let owner = std::fs::metadata(path("environ")).expect("it lives").uid();
        assert_eq!(owner, 0, "{name}");
        assert_eq!(read("oom_score_adj"), std::fs::read_to_string("/proc/self/oom_score_adj").expect("our own"));
        let limits = read("limits");
        let core = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).expect("a line");
        assert_eq!(core.split_whitespace().next(), Some("0"), "{name}: {core}");
        assert_eq!(read("stat").split(' ').nth(5), Some(pid.to_string().as_str()), "a session of its own");
    }
    drop(control);
    assert!(matches!(waitpid(Pid::from_raw(shim), None), Ok(WaitStatus::Exited(..))));
}
