//! The program gets exactly what the policy says, and its end is told exactly.

mod common;

use std::ffi::OsString;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use common::{NOBODY, Shim, nobody, policy, root, run, script};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use protocol::control::{Exit, Scope};
use protocol::policy::{Identity, Limit, Resource};

#[test]
fn every_exit_code_passes_through() {
    for code in 0..=255 {
        assert_eq!(run(&script(&format!("exit {code}"))).exit, Exit::Code(code));
    }
}

#[test]
fn every_ending_signal_passes_through() {
    for signal in (1..=64).filter(|signal| ![17, 18, 19, 20, 21, 22, 23, 28, 32, 33].contains(signal)) {
        // The shell would ignore some and trap others, so it is replaced first.
        let text = format!("ulimit -c 0; exec /usr/bin/env sh -c 'kill -{signal} $$; sleep 5'");
        assert_eq!(run(&script(&text)).exit, Exit::Signal(signal), "signal {signal}");
    }
}

#[test]
fn the_program_has_exactly_descriptors_0_to_2() {
    let found = run(&script("n=0; while [ $n -lt 2000 ]; do [ -e /proc/$$/fd/$n ] && echo $n; n=$((n+1)); done"));
    assert_eq!(found.output, "0\n1\n2\n");
}

#[test]
fn the_shim_itself_keeps_no_descriptor_that_it_inherited() {
    let (mut read, write) = std::io::pipe().expect("a pipe");
    fcntl(&write, FcntlArg::F_SETFD(FdFlag::empty())).expect("F_SETFD");
    let mut shim = Shim::start(&script("exec sleep 1000"));
    shim.started();
    drop(write);
    // A pipe that the resident shim held open would have no end.
    let mut end = [PollFd::new(read.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut end, PollTimeout::from(10_000u16)), Ok(1), "somebody still holds the pipe");
    assert_eq!(read.read(&mut [0]).expect("readable"), 0);
    shim.stop(Scope::Tree, Duration::ZERO);
    shim.finish();
}

#[test]
fn the_shim_hides_from_others_of_its_own_uid() {
    use std::os::unix::fs::MetadataExt;
    if !root("a shim of another uid") {
        return;
    }
    let mut shim = Shim::start_as(NOBODY, &script("exec sleep 1000"));
    shim.started();
    // The files of a process that is not dumpable belong to root, whoever it runs as (proc(5)).
    let owner = std::fs::metadata(format!("/proc/{}/environ", shim.process.id())).expect("it lives").uid();
    assert_eq!(owner, 0);
    shim.stop(Scope::Tree, Duration::ZERO);
    shim.finish();
}

#[test]
fn the_environment_is_exactly_as_given_and_need_not_be_utf8() {
    let mut policy = policy(&["/usr/bin/env", "-0"]);
    policy.program.env = vec!["A=1".into(), OsString::from_vec(b"B=\xff".to_vec())];
    assert_eq!(run(&policy).output, "A=1\0B=\u{fffd}\0");
}

#[test]
fn argv_0_need_not_be_the_path() {
    let mut policy = policy(&["/bin/sh", "-c", "echo $0"]);
    policy.program.argv[0] = "another".into();
    policy.program.argv.push("name".into());
    assert_eq!(run(&policy).output, "name\n");
}

#[test]
fn no_capability_is_left_and_a_filter_is_in_force() {
    let status = run(&policy(&["/bin/cat", "/proc/self/status"])).output;
    for field in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert!(status.contains(&format!("{field}:\t0000000000000000\n")), "{field} in {status}");
    }
    assert!(status.contains("NoNewPrivs:\t1\n"), "{status}");
    assert!(status.contains("Seccomp:\t2\n"), "{status}");
}

#[test]
fn no_signal_is_blocked_or_ignored() {
    let status = run(&policy(&["/bin/cat", "/proc/self/status"])).output;
    for field in ["SigBlk", "SigIgn", "SigCgt"] {
        assert!(status.contains(&format!("{field}:\t0000000000000000\n")), "{field} in {status}");
    }
}

#[test]
fn the_program_gets_the_ids_of_the_policy_and_none_of_the_supervisors_groups() {
    if !root("changing ids") {
        return;
    }
    let mut policy = policy(&["/usr/bin/id"]);
    policy.identity = Some(Identity { uid: NOBODY, gid: 4321, groups: vec![77, 5] });
    let output = run(&policy).output;
    assert!(output.starts_with("uid=65534") && output.contains("gid=4321"), "{output}");
    let groups: Vec<&str> = output.split("groups=").nth(1).expect("groups").trim().split(',').collect();
    let numbers: Vec<&str> = groups.iter().map(|group| group.split('(').next().unwrap_or_default()).collect();
    assert_eq!(numbers, ["4321", "5", "77"], "{output}");
}

#[test]
fn another_uid_has_no_capability_either() {
    if !root("changing ids") {
        return;
    }
    let mut policy = policy(&["/bin/cat", "/proc/self/status"]);
    policy.identity = nobody();
    let status = run(&policy).output;
    for field in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert!(status.contains(&format!("{field}:\t0000000000000000\n")), "{field} in {status}");
    }
    assert!(status.contains("Groups:\t \n"), "{status}");
}

#[test]
fn limits_umask_directory_nice_and_oom_score_are_as_given() {
    let mut policy = script("ulimit -n; ulimit -Hn; umask; pwd; nice; cat /proc/self/oom_score_adj; ulimit -c");
    policy.limits = vec![Limit { resource: Resource::Nofile, soft: 111, hard: 222 }];
    policy.program.umask = 0o027;
    policy.program.cwd = Some("/tmp".into());
    policy.nice = Some(5);
    policy.oom_score_adj = Some(500);
    assert_eq!(run(&policy).output, "111\n222\n0027\n/tmp\n5\n500\n0\n");
}

#[test]
fn a_program_of_another_uid_gets_its_oom_score_too() {
    if !root("changing ids") {
        return;
    }
    let mut policy = script("cat /proc/self/oom_score_adj");
    policy.identity = nobody();
    policy.oom_score_adj = Some(321);
    assert_eq!(run(&policy).output, "321\n");
}

#[test]
fn a_shim_without_root_sets_its_programs_oom_score() {
    if !root("a shim of another uid") {
        return;
    }
    let mut policy = script("cat /proc/self/oom_score_adj");
    policy.oom_score_adj = Some(432);
    assert_eq!(Shim::start_as(NOBODY, &policy).finish().output, "432\n");
}

#[test]
fn the_shim_keeps_its_own_oom_score() {
    let own = std::fs::read_to_string("/proc/self/oom_score_adj").expect("our own");
    let mut policy = script("echo up; exec sleep 1000");
    policy.oom_score_adj = Some(777);
    let mut shims = vec![Shim::start(&policy)];
    if root("a shim of another uid") {
        shims.push(Shim::start_as(NOBODY, &policy));
    }
    for mut shim in shims {
        let program = shim.started();
        let score = |pid| std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).expect("it lives");
        assert_eq!(score(program), "777\n");
        assert_eq!(score(shim.process.id() as i32), own);
        shim.stop(Scope::Tree, Duration::ZERO);
        shim.finish();
    }
}

#[test]
fn neither_shim_nor_child_is_ever_dumpable_again() {
    let mut policy = script("true");
    policy.oom_score_adj = Some(500);
    let record = tempfile::NamedTempFile::new_in("/tmp").expect("a file");
    let path = record.path().to_str().expect("a temporary path is UTF-8");
    let Some(shim) = Shim::start_traced(&["-f", "-o", path, "-e", "trace=prctl"], &policy) else { return };
    shim.finish();
    let calls = std::fs::read_to_string(path).expect("the record");
    let dumpable: Vec<&str> = calls.lines().filter(|line| line.contains("PR_SET_DUMPABLE")).collect();
    assert!(!dumpable.is_empty() && dumpable.iter().all(|line| line.contains("SUID_DUMP_DISABLE")), "{dumpable:?}");
}

#[test]
fn usage_of_the_whole_tree_is_told() {
    let ended = run(&script("i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done & wait"));
    assert!(ended.usage.user_us + ended.usage.system_us > 0, "{:?}", ended.usage);
    assert!(ended.usage.max_rss_kib > 0, "{:?}", ended.usage);
}
