//! The shim is the init of its tree: everybody in it can be ended, is reaped and counted, and nobody outside is touched.

mod common;

use std::process::{Command as Process, Stdio};
use std::time::{Duration, Instant};

use common::{Shim, alive, nobody, root, run, script, wait_until};
use protocol::control::{Command, Exit, Report, Scope};
use protocol::policy::{Limit, Policy, Resource};

/// A mark that only this test's processes carry in their command line.
fn mark(name: &str) -> String {
    format!("shim-test-{name}-{}", std::process::id())
}

/// Starts, in the background, a process in a session of its own that ignores TERM and carries the mark.
fn escapee(mark: &str) -> String {
    format!("setsid sh -c 'trap \"\" TERM HUP INT; while :; do sleep 1; done; : {mark}' &")
}

#[test]
fn a_stop_ends_session_escapees_and_those_who_trap_term() {
    let mark = mark("escapees");
    let text = format!("trap '' TERM; {0} {0} {0} echo up; while :; do sleep 1; done", escapee(&mark));
    let mut shim = Shim::start(&script(&text));
    shim.started();
    assert_eq!(shim.line(), "up");
    wait_until("three have escaped", || alive(&mark).len() >= 4);
    shim.stop(Scope::Tree, Duration::from_millis(100));
    let ended = shim.finish();
    assert_eq!(ended.exit, Exit::Signal(libc::SIGKILL));
    assert!(ended.killed >= 4, "{ended:?}");
    assert_eq!(alive(&mark), [0; 0]);
}

#[test]
fn a_program_that_obeys_term_ends_before_the_grace_does() {
    let mut shim = Shim::start(&script("trap 'exit 7' TERM; echo up; while :; do sleep 0.01; done"));
    shim.started();
    assert_eq!(shim.line(), "up");
    let start = Instant::now();
    shim.stop(Scope::Main, Duration::from_secs(50));
    let ended = shim.finish();
    assert_eq!((ended.exit, ended.killed), (Exit::Code(7), 0));
    assert!(start.elapsed() < Duration::from_secs(40));
}

#[test]
fn the_earlier_deadline_wins() {
    let mut shim = Shim::start(&script("trap '' TERM; echo up; while :; do sleep 1; done"));
    shim.started();
    assert_eq!(shim.line(), "up");
    let start = Instant::now();
    shim.stop(Scope::Tree, Duration::from_millis(200));
    shim.stop(Scope::Tree, Duration::from_secs(3600));
    assert_eq!(shim.finish().exit, Exit::Signal(libc::SIGKILL));
    assert!(start.elapsed() >= Duration::from_millis(200));
}

#[test]
fn a_later_stop_shortens_the_grace() {
    let mut shim = Shim::start(&script("trap '' TERM; echo up; while :; do sleep 1; done"));
    shim.started();
    assert_eq!(shim.line(), "up");
    shim.stop(Scope::Tree, Duration::from_secs(3600));
    shim.stop(Scope::Tree, Duration::ZERO);
    assert_eq!(shim.finish().exit, Exit::Signal(libc::SIGKILL));
}

#[test]
fn signals_reach_the_main_program_real_time_ones_too() {
    for signal in [libc::SIGUSR1, libc::SIGHUP, 40] {
        let mut shim = Shim::start(&script("echo up; exec sleep 100"));
        shim.started();
        assert_eq!(shim.line(), "up");
        shim.send(&Command::Signal(signal));
        assert_eq!(shim.finish().exit, Exit::Signal(signal));
    }
}

#[test]
fn what_the_main_program_leaves_behind_is_ended_and_counted() {
    let mark = mark("leftovers");
    let mut policy = script(&format!("{0} {0} sleep 0.2; exit 5", escapee(&mark)));
    policy.leftover_grace = Duration::from_millis(100);
    let ended = run(&policy);
    assert_eq!(ended.exit, Exit::Code(5));
    assert!(ended.killed >= 2, "{ended:?}");
    assert_eq!(alive(&mark), [0; 0]);
}

#[test]
fn leftovers_get_the_time_to_end_by_themselves() {
    let mut policy =
        script("(trap 'sleep 0.2; echo cleaned; exit 0' TERM; while :; do sleep 0.01; done) & sleep 0.1; exit 0");
    policy.leftover_grace = Duration::from_secs(50);
    assert_eq!(run(&policy).output, "cleaned\n");
}

#[test]
fn a_stopped_process_still_ends() {
    let mut policy = script("(kill -STOP $(exec sh -c 'echo $PPID'); exit 3) & sleep 0.1; exit 0");
    policy.leftover_grace = Duration::from_secs(50);
    let start = Instant::now();
    assert_eq!(run(&policy).exit, Exit::Code(0));
    assert!(start.elapsed() < Duration::from_secs(40), "it ended by TERM, not by KILL");
}

#[test]
fn the_end_of_the_lifeline_ends_the_tree() {
    let mark = mark("lifeline");
    let mut policy = script(&format!("trap '' TERM; {0} {0} echo up; while :; do sleep 1; done", escapee(&mark)));
    policy.lifeline_grace = Duration::from_millis(50);
    let mut shim = Shim::start(&policy);
    let pid = shim.started();
    assert_eq!(shim.line(), "up");
    wait_until("they have escaped", || alive(&mark).len() >= 3);
    shim.cut();
    assert_eq!(shim.process.wait().expect("the shim ends").code(), Some(0));
    assert_eq!(alive(&mark), [0; 0]);
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
}

#[test]
fn a_killed_shim_takes_its_program_with_it() {
    let mut shim = Shim::start(&script("echo up; exec sleep 1000"));
    let pid = shim.started();
    assert_eq!(shim.line(), "up");
    shim.process.kill().expect("our own child");
    shim.process.wait().expect("it ends");
    wait_until("the program is gone", || {
        std::fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "))
    });
}

#[test]
fn a_kill_of_everyone_leaves_outsiders_alive() {
    // Same uid, other trees: a bystander and a second shim's program.
    let mut bystander = Process::new("/bin/sleep").arg("1000").stdout(Stdio::null()).spawn().expect("a bystander");
    let mut other = Shim::start(&script("echo up; while :; do sleep 0.05; done"));
    let other_pid = other.started();
    assert_eq!(other.line(), "up");
    let mark = mark("everyone");
    let mut shim =
        Shim::start(&script(&format!("{} trap '' TERM; echo up; while :; do sleep 1; done", escapee(&mark))));
    shim.started();
    assert_eq!(shim.line(), "up");
    shim.stop(Scope::Tree, Duration::ZERO);
    assert_eq!(shim.finish().exit, Exit::Signal(libc::SIGKILL));
    assert_eq!(bystander.try_wait().expect("our own child"), None, "the bystander lives");
    assert!(std::path::Path::new(&format!("/proc/{other_pid}")).exists(), "the other tree lives");
    other.stop(Scope::Tree, Duration::ZERO);
    other.finish();
    bystander.kill().expect("our own child");
    bystander.wait().expect("it ends");
}

#[test]
fn root_ends_a_tree_of_another_uid() {
    if !root("a tree of another uid") {
        return;
    }
    let mark = mark("uid");
    let mut policy = script(&format!("trap '' TERM; {0} {0} echo up; while :; do sleep 1; done", escapee(&mark)));
    policy.identity = nobody();
    let mut shim = Shim::start(&policy);
    shim.started();
    assert_eq!(shim.line(), "up");
    wait_until("they have escaped", || alive(&mark).len() >= 3);
    shim.stop(Scope::Tree, Duration::from_millis(50));
    assert_eq!(shim.finish().exit, Exit::Signal(libc::SIGKILL));
    assert_eq!(alive(&mark), [0; 0]);
}

/// A bomb that the limit of processes of an otherwise unused uid bounds.
fn bomb(uid: u32, processes: u64, mark: &str) -> Policy {
    let text = format!(
        "trap '' TERM; b() {{ while :; do (setsid sh -c 'trap \"\" TERM; sleep 100; : {mark}' &) ; b & sleep 0.01; done; }}; \
         b 2>/dev/null & echo up; while :; do sleep 1; done; : {mark}"
    );
    let mut policy = script(&text);
    policy.identity = Some(protocol::policy::Identity { uid, gid: uid, groups: Vec::new() });
    policy.limits = vec![Limit { resource: Resource::Nproc, soft: processes, hard: processes }];
    policy
}

fn of_uid(uid: u32) -> usize {
    use std::os::unix::fs::MetadataExt;
    let entries = std::fs::read_dir("/proc").expect("/proc is there");
    entries.filter_map(|entry| entry.ok()?.metadata().ok()).filter(|metadata| metadata.uid() == uid).count()
}

#[test]
fn a_fork_bomb_with_session_escapees_is_gone_after_the_grace() {
    if !root("a uid of its own for a fork bomb") {
        return;
    }
    let (uid, processes) = (uid_of_this_run(0), 2000);
    let mark = mark("bomb");
    let mut shim = Shim::start(&bomb(uid, processes, &mark));
    shim.started();
    wait_until("the bomb has filled its limit", || of_uid(uid) as u64 > processes * 9 / 10);
    let grace = Duration::from_millis(200);
    let start = Instant::now();
    shim.stop(Scope::Tree, grace);
    let ended = shim.finish();
    let over = start.elapsed().saturating_sub(grace);
    println!("goal=stop-over-grace-ms<=250 measured={}", over.as_millis());
    assert!(ended.killed > 100, "{ended:?}");
    assert_eq!(of_uid(uid), 0);
}

/// Processes are counted by uid: two runs of these tests at once must not count each other's.
fn uid_of_this_run(which: u32) -> u32 {
    2_000_000_000 + 2 * std::process::id() + which
}

#[test]
fn below_abi_6_a_sweep_ends_the_tree_and_nobody_else() {
    let mark = mark("sweep");
    let mut policy = script(&format!("trap '' TERM; {0} {0} {0} echo up; while :; do sleep 1; done", escapee(&mark)));
    policy.lifeline_grace = Duration::from_millis(50);
    let Some(mut shim) = Shim::start_with_abi(3, &policy) else { return };
    let mut bystander = Process::new("/bin/sleep").arg("1000").stdout(Stdio::null()).spawn().expect("a bystander");
    shim.started();
    assert_eq!(shim.line(), "up");
    wait_until("three have escaped", || alive(&mark).len() >= 4);
    shim.stop(Scope::Tree, Duration::from_millis(100));
    let ended = shim.finish();
    assert_eq!(ended.exit, Exit::Signal(libc::SIGKILL));
    assert_eq!(alive(&mark), [0; 0]);
    assert_eq!(bystander.try_wait().expect("our own child"), None, "the bystander lives");
    bystander.kill().expect("our own child");
    bystander.wait().expect("it ends");
}

#[test]
fn below_abi_6_a_sweep_wins_against_a_fork_bomb() {
    if !root("a uid of its own for a fork bomb") {
        return;
    }
    let (uid, processes) = (uid_of_this_run(1), 400);
    let Some(mut shim) = Shim::start_with_abi(3, &bomb(uid, processes, &mark("swept-bomb"))) else { return };
    shim.started();
    wait_until("the bomb has filled its limit", || of_uid(uid) as u64 > processes * 9 / 10);
    shim.stop(Scope::Tree, Duration::from_millis(50));
    shim.finish();
    assert_eq!(of_uid(uid), 0);
}

#[test]
fn a_thousand_orphans_are_reaped_and_counted() {
    let ended = run(&script("i=0; while [ $i -lt 1000 ]; do (/bin/true & ) ; i=$((i+1)); done; sleep 0.3; exit 9"));
    assert_eq!(ended.exit, Exit::Code(9));
    assert_eq!((ended.orphans, ended.killed), (1000, 0));
}

#[test]
fn a_supervisor_that_does_not_read_does_not_stop_the_reaping() {
    let text = "i=0; while [ $i -lt 3000 ]; do (/bin/true & ) ; i=$((i+1)); done; echo done; exec sleep 1000";
    let mut shim = Shim::start(&script(text));
    // Nothing is read from the control socket until all are through.
    assert_eq!(shim.line(), "done");
    let children = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let pid = shim.process.id();
    wait_until("no zombie is left", || children(pid).split_whitespace().count() <= 1);
    shim.stop(Scope::Tree, Duration::ZERO);
    assert_eq!(shim.finish().orphans, 3000);
}

#[test]
fn started_comes_before_exited_and_ended_comes_last() {
    let mut shim = Shim::start(&script("exit 3"));
    assert!(matches!(shim.next(), Some(Report::Started { .. })));
    assert_eq!(shim.next(), Some(Report::Exited(Exit::Code(3))));
    assert!(matches!(shim.next(), Some(Report::Ended { exit: Exit::Code(3), killed: 0, .. })));
    assert_eq!(shim.next(), None);
}
