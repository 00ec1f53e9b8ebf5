//! What the program cannot do, tried by the program: this test binary starts itself under the shim and calls the kernel.
//!
//! Each probe is also run unconfined, where it must not get the same answer: a probe that fails anyway proves nothing.

mod common;
mod probe;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command as Process, Stdio};
use std::time::Duration;

use common::{Shim, nobody, policy, root, run, script, strace};
use protocol::control::{Exit, Scope, Step};
use protocol::guarantee::{Guarantee, State};
use protocol::policy::{Access, Enforcement, ExecutionClass, FileRule, Policy};

/// Not a test: what the program does when this binary is started as one.
#[test]
fn as_the_program() {
    if let Ok(target) = std::env::var("PROBE_TARGET") {
        probe::all(target.parse().expect("a pid"));
    }
}

/// This binary as a program that probes, with `target` to aim at.
fn prober(target: i32, class: ExecutionClass) -> Policy {
    let this = std::env::current_exe().expect("our own path");
    let this = this.to_str().expect("our own path is UTF-8");
    let mut policy = policy(&[this, "--exact", "as_the_program", "--nocapture", "--test-threads=1"]);
    policy.program.env.push(format!("PROBE_TARGET={target}").into());
    policy.class = class;
    policy
}

/// What each probe said: `name=ok` or `name=ERRNO` lines among the test harness's own.
fn answers(output: &str) -> BTreeMap<String, String> {
    let lines = output.lines().filter_map(|line| line.split_once("probe:")?.1.split_once('='));
    lines.map(|(name, answer)| (name.to_owned(), answer.to_owned())).collect()
}

fn unconfined(target: i32) -> BTreeMap<String, String> {
    unconfined_with(target, None)
}

fn unconfined_with(target: i32, thread: Option<i32>) -> BTreeMap<String, String> {
    let output = Process::new(std::env::current_exe().expect("our own path"))
        .args(["--exact", "as_the_program", "--nocapture", "--test-threads=1"])
        .env("PROBE_TARGET", target.to_string())
        .envs(thread.map(|thread| ("PROBE_THREAD", thread.to_string())))
        .output()
        .expect("this binary starts");
    answers(&String::from_utf8_lossy(&output.stdout))
}

/// A process of the same uid outside the tree; it stands for the supervisor, so that no probe can hurt the test.
struct Outsider(std::process::Child);

impl Outsider {
    fn new() -> Outsider {
        Outsider(Process::new("/bin/sleep").arg("1000").stdout(Stdio::null()).spawn().expect("a bystander"))
    }

    fn pid(&self) -> i32 {
        self.0.id() as i32
    }

    fn lives(&mut self) -> bool {
        self.0.try_wait().expect("our own child").is_none()
    }
}

impl Drop for Outsider {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn expect(found: &BTreeMap<String, String>, control: &BTreeMap<String, String>, wanted: &[(&str, &str)]) {
    for (name, answer) in wanted {
        assert_eq!(found.get(*name).map(String::as_str), Some(*answer), "{name} confined, all: {found:?}");
        assert_ne!(control.get(*name).map(String::as_str), Some(*answer), "{name} must differ unconfined");
    }
}

/// Closed in every class on this kernel.
const CLOSED: [(&str, &str); 14] = [
    ("signal_0", "EPERM"),
    ("pidfd_signal_0", "EPERM"),
    ("ptrace_seize", "EPERM"),
    ("read_memory", "EPERM"),
    ("prlimit_other", "EPERM"),
    ("setpriority_other", "EPERM"),
    ("setpriority_user", "EPERM"),
    ("ioprio_other", "EPERM"),
    ("affinity_other", "EPERM"),
    ("unshare_user", "EPERM"),
    ("clone_user", "EPERM"),
    ("clone3", "ENOSYS"),
    ("tiocsti_with_high_bits", "EPERM"),
    ("write_outside", "EACCES"),
];

#[test]
fn an_outsider_of_the_same_uid_cannot_be_reached() {
    let mut outsider = Outsider::new();
    let control = unconfined(outsider.pid());
    let mut policy = prober(outsider.pid(), ExecutionClass::Networked);
    policy.supervisor_pid = outsider.pid();
    let found = answers(&run(&policy).output);
    expect(&found, &control, &CLOSED);
    assert!(outsider.lives());
    for open in ["inet", "inet6", "netlink_route", "unix", "prlimit_self", "setpriority_self", "affinity_self", "chmod"]
    {
        assert_eq!(found.get(open).map(String::as_str), Some("ok"), "{open}: {found:?}");
    }
    let refused = [("packet", "EAFNOSUPPORT"), ("vsock", "EAFNOSUPPORT"), ("alg", "EAFNOSUPPORT"), ("raw", "EPERM")];
    for (name, errno) in refused.into_iter().chain([("mptcp", "EPROTONOSUPPORT"), ("io_uring", "ENOSYS")]) {
        assert_eq!(found.get(name).map(String::as_str), Some(errno), "{name}: {found:?}");
    }
}

#[test]
fn classes_without_network_make_no_inet_socket() {
    let outsider = Outsider::new();
    let control = unconfined(outsider.pid());
    for class in [ExecutionClass::Local, ExecutionClass::Readonly] {
        let ended = run(&prober(outsider.pid(), class));
        let closed = [("inet", "EAFNOSUPPORT"), ("inet6", "EAFNOSUPPORT"), ("netlink_route", "EAFNOSUPPORT")];
        expect(&answers(&ended.output), &control, &closed);
        assert_eq!(ended.state(Guarantee::NoInet), State::Holds);
        assert_eq!(answers(&ended.output)["unix"], "ok");
    }
}

#[test]
fn class_readonly_loses_metadata_and_tracing() {
    let outsider = Outsider::new();
    let control = unconfined(outsider.pid());
    let found = answers(&run(&prober(outsider.pid(), ExecutionClass::Readonly)).output);
    let closed = [("chmod", "EPERM"), ("utimens", "EPERM"), ("setxattr", "EPERM")];
    expect(&found, &control, &closed);
}

#[test]
fn neither_the_shim_nor_a_sibling_tree_can_be_signalled_or_traced() {
    let mut sibling = Shim::start(&script("echo up; while :; do sleep 0.05; done"));
    let program = sibling.started();
    assert_eq!(sibling.line(), "up");
    let closed =
        [("signal_0", "EPERM"), ("pidfd_signal_0", "EPERM"), ("ptrace_seize", "EPERM"), ("read_memory", "EPERM")];
    for target in [program, sibling.process.id() as i32] {
        let found = answers(&run(&prober(target, ExecutionClass::Networked)).output);
        for (name, errno) in closed {
            assert_eq!(found.get(name).map(String::as_str), Some(errno), "{name}: {found:?}");
        }
    }
    // The program's own shim.
    let own = run(&script("kill -0 $PPID || echo refused; cat /proc/$PPID/environ || echo closed")).output;
    assert_eq!(own, "refused\nclosed\n");
    sibling.stop(Scope::Tree, Duration::ZERO);
    sibling.finish();
}

#[test]
fn a_program_that_makes_the_shim_its_tracer_only_stops_itself() {
    let mut policy = prober(1, ExecutionClass::Networked);
    policy.program.env.push("PROBE_TRACEME=1".into());
    let mut shim = Shim::start(&policy);
    shim.started();
    while shim.line() != "probe:traceme=ok" {}
    shim.stop(Scope::Tree, Duration::from_millis(50));
    assert!(matches!(shim.finish().exit, Exit::Signal(libc::SIGTERM | libc::SIGKILL)));
}

#[test]
fn an_i386_call_ends_the_process() {
    if !cfg!(target_arch = "x86_64") {
        println!("skipped: only x86_64 has another entry");
        return;
    }
    let mut policy = prober(1, ExecutionClass::Networked);
    policy.program.env.push("PROBE_I386=1".into());
    assert_eq!(run(&policy).exit, Exit::Signal(libc::SIGSYS));
}

#[test]
fn only_listed_paths_can_be_opened() {
    let directory = tempfile::tempdir_in("/tmp").expect("a directory");
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o777)).expect("its mode");
    for name in ["token", "workspace", "read"] {
        std::fs::write(directory.path().join(name), "content\n").expect("a file");
    }
    let path = |name: &str| directory.path().join(name).into_os_string();
    let text =
        "cat token; cat read; echo more >> read; echo more >> workspace; cat workspace; : > token; mv read x; ls .";
    let mut policy = script(&format!("exec 2>/dev/null; {text}"));
    policy.program.cwd = Some(directory.path().into());
    let rule = |path, access| FileRule { path, access };
    policy.files = ["/usr", "/bin", "/lib", "/lib64", "/etc"].map(|path| rule(path.into(), Access::Read)).to_vec();
    policy.files.push(rule("/dev/null".into(), Access::Device));
    policy.files.push(rule(path("read"), Access::Read));
    policy.files.push(rule(path("workspace"), Access::Write));
    assert_eq!(run(&policy).output, "content\ncontent\nmore\n");
    assert_eq!(std::fs::read_to_string(directory.path().join("token")).expect("it is there"), "content\n");
}

#[test]
fn a_rule_opens_nothing_behind_a_symlink_and_lets_nobody_write_the_kernels_files() {
    let directory = tempfile::tempdir_in("/tmp").expect("a directory");
    let root = directory.path().canonicalize().expect("a real path");
    std::fs::create_dir(root.join("target")).expect("a directory");
    for (target, link) in [("target", "workspace"), (".", "parent"), ("/proc", "procfs")] {
        std::os::unix::fs::symlink(target, root.join(link)).expect("a symlink");
    }
    let tried = ["exec 2>/dev/null; : > target/a && echo target", "echo 9 > /proc/self/oom_score_adj && echo score"];
    let outcome = |paths: &[&str], access| {
        let mut policy = script(&tried.join("; "));
        policy.program.cwd = Some(root.clone().into());
        policy.files.retain(|rule| rule.access != Access::Write);
        policy.files.extend(paths.iter().map(|path| FileRule { path: root.join(path).into(), access }));
        run(&policy).output
    };
    for access in [Access::Read, Access::Device, Access::Write] {
        assert_eq!(outcome(&["workspace", "parent/target", "procfs", "procfs/self"], access), "", "{access:?}");
    }
    // What is not a symlink works, except where it is the kernel's.
    assert_eq!(outcome(&["target", "/proc", "/proc/sys", "/sys", "/dev"], Access::Write), "target\n");
    assert_eq!(outcome(&["/proc", "/proc/sys", "/sys"], Access::Device), "");
}

#[test]
fn a_required_guarantee_that_the_kernel_lacks_refuses_and_says_what_to_do() {
    let Some(_) = strace("a kernel without Landlock") else { return };
    let shim = Shim::start_with_abi(0, &script("true")).expect("strace is there");
    let failure = shim.failed();
    assert_eq!(failure.step, Step::Guarantees);
    for word in ["token-unreadable", "files-confined", "Landlock", "SUPERVISOR_ENFORCEMENT", "SUPERVISOR_GUARANTEES"] {
        assert!(failure.message.contains(word), "{word} in {}", failure.message);
    }
    let mut policy = script("true");
    policy.required.push(Guarantee::AbstractSocketsClosed);
    let failure = Shim::start_with_abi(5, &policy).expect("strace is there").failed();
    assert!(failure.message.contains("abstract-sockets-closed (needs Landlock ABI 6"), "{}", failure.message);
}

#[test]
fn best_effort_runs_and_says_what_does_not_hold() {
    let mut policy = script("true");
    policy.enforcement = Enforcement::BestEffort;
    let Some(shim) = Shim::start_with_abi(0, &policy) else { return };
    let ended = shim.finish();
    assert_eq!((ended.exit, ended.landlock_abi), (Exit::Code(0), 0));
    assert_eq!(ended.state(Guarantee::FilesConfined), State::Missing);
    assert_eq!(ended.state(Guarantee::TreeKillable), State::Fallback);
    assert_eq!(ended.state(Guarantee::NoPrivileges), State::Holds);
}

#[test]
fn the_default_guarantees_hold_from_abi_1_on() {
    for abi in 1..=7 {
        for class in [ExecutionClass::Local, ExecutionClass::Readonly, ExecutionClass::Networked] {
            let mut policy = script("exit 4");
            policy.class = class;
            let Some(shim) = Shim::start_with_abi(abi, &policy) else { return };
            let ended = shim.finish();
            assert_eq!((ended.exit, ended.landlock_abi), (Exit::Code(4), abi), "{class:?}");
        }
    }
}

#[test]
fn below_abi_6_the_fallbacks_close_what_landlock_does_not_see() {
    let mut outsider = Outsider::new();
    let control = unconfined(outsider.pid());
    for abi in [1, 3, 5] {
        let mut policy = prober(outsider.pid(), ExecutionClass::Networked);
        policy.supervisor_pid = outsider.pid();
        let Some(shim) = Shim::start_with_abi(abi, &policy) else { return };
        let found = answers(&shim.finish().output);
        expect(&found, &control, &[("signal_0", "EPERM"), ("pidfd_signal_0", "ENOSYS"), ("ptrace_seize", "EPERM")]);
        expect(&found, &control, &[("setown", "EPERM"), ("setown_ex", "EPERM"), ("setsig", "EPERM")]);
        if abi < 3 {
            expect(&found, &control, &[("truncate", "EPERM"), ("open_truncate", "EPERM"), ("openat2", "ENOSYS")]);
        }
        assert_eq!(found["signal_self"], "ok");
        assert!(outsider.lives());
    }
}

#[test]
fn below_abi_6_no_thread_of_the_supervisor_stands_for_it() {
    let (outsider, thread) = (Outsider::new(), nix::unistd::gettid().as_raw());
    assert_ne!(thread, std::process::id() as i32, "a test runs in a thread of its own");
    let control = unconfined_with(outsider.pid(), Some(thread));
    let mut policy = prober(outsider.pid(), ExecutionClass::Networked);
    policy.program.env.push(format!("PROBE_THREAD={thread}").into());
    let Some(shim) = Shim::start_with_abi(5, &policy) else { return };
    let found = answers(&shim.finish().output);
    for name in ["thread_signal_0", "thread_queue_0", "thread_tkill_0", "thread_pidfd"] {
        expect(&found, &control, &[(name, "EPERM")]);
    }
    // Nor is whoever began before the shim, and is neither.
    expect(&found, &control, &[("signal_0", "EPERM"), ("setown", "EPERM")]);
}

#[test]
fn a_tree_that_could_not_be_ended_is_refused() {
    if !root("a change of ids without CAP_KILL") {
        return;
    }
    let facts = shim::guarantees::Facts {
        landlock_abi: 7,
        seccomp: true,
        capabilities: 1 << shim::capabilities::SETUID,
        bounding_empty: true,
        uid: 0,
    };
    let mut policy = script("true");
    policy.identity = nobody();
    let failure = shim::guarantees::refuse(&policy, &shim::guarantees::standings(&facts, &policy)).unwrap_err();
    assert!(failure.message.contains("tree-killable") && failure.message.contains("KILL"), "{}", failure.message);
}

#[test]
fn a_port_list_lets_only_its_ports_through() {
    let listeners: Vec<_> = (0..2).map(|_| std::net::TcpListener::bind("127.0.0.1:0").expect("a port")).collect();
    let ports: Vec<u16> = listeners.iter().map(|l| l.local_addr().expect("bound").port()).collect();
    let text =
        format!("for p in {} {}; do (exec 3<>/dev/tcp/127.0.0.1/$p) 2>/dev/null && echo $p; done", ports[0], ports[1]);
    if !std::path::Path::new("/bin/bash").exists() {
        println!("skipped: needs bash's /dev/tcp");
        return;
    }
    let mut policy = policy(&["/bin/bash", "-c", &text]);
    policy.connect_ports = Some(vec![ports[0]]);
    let ended = run(&policy);
    assert_eq!(ended.output, format!("{}\n", ports[0]));
    assert_eq!(ended.state(Guarantee::TcpPorts), State::Holds);
}
