//! Limits, priorities and oom scores of others.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::time::Duration;

use nix::unistd::{Pid, getpid, getuid};
use protocol::guarantee::Guarantee::SupervisorNotThrottled;

use super::outsider::stat;
use super::{Outcome, Probe, Target, call, effect, judge, probe};
use crate::kernel::{self, address};

/// A bit above the 32 that the kernel looks at: a filter that compares 64 is passed by it (CVE-2019-10063).
const HIGH: u64 = 1 << 32;

pub(super) const PROBES: &[Probe] = &[
    probe("prlimit-supervisor", SupervisorNotThrottled, |t| prlimit(raw(t.supervisor))),
    probe("prlimit-shim", SupervisorNotThrottled, |t| prlimit(raw(t.shim))),
    probe("prlimit-outsider", SupervisorNotThrottled, |t| t.outsider().map_or_else(|u| u, |p| prlimit(raw(p)))),
    probe("prlimit-supervisor-high-bits", SupervisorNotThrottled, |t| prlimit(HIGH | raw(t.supervisor))),
    probe("setpriority-process-supervisor", SupervisorNotThrottled, |t| {
        setpriority(libc::PRIO_PROCESS as u64, raw(t.supervisor))
    }),
    probe("setpriority-process-shim", SupervisorNotThrottled, |t| setpriority(libc::PRIO_PROCESS as u64, raw(t.shim))),
    probe("setpriority-process-high-bits", SupervisorNotThrottled, |t| {
        setpriority(HIGH | libc::PRIO_PROCESS as u64, HIGH | raw(t.supervisor))
    }),
    probe("setpriority-group-of-shim", SupervisorNotThrottled, |t| match nix::unistd::getpgid(Some(t.shim)) {
        Ok(group) => niced(t.shim, || setpriority(libc::PRIO_PGRP as u64, raw(group))),
        Err(error) => Outcome::Denied(error.to_string()),
    }),
    probe("setpriority-user-zero", SupervisorNotThrottled, |t| {
        niced(t.shim, || setpriority(libc::PRIO_USER as u64, 0))
    }),
    probe("setpriority-user-own", SupervisorNotThrottled, |t| {
        niced(t.shim, || setpriority(libc::PRIO_USER as u64, u64::from(getuid().as_raw())))
    }),
    probe("sched-setaffinity-supervisor", SupervisorNotThrottled, |t| affinity(raw(t.supervisor))),
    probe("sched-setaffinity-shim", SupervisorNotThrottled, |t| affinity(raw(t.shim))),
    probe("sched-setaffinity-high-bits", SupervisorNotThrottled, |t| affinity(HIGH | raw(t.supervisor))),
    probe("prlimit-thread-of-supervisor", SupervisorNotThrottled, |t| each_thread(t, prlimit)),
    probe("setpriority-thread-of-supervisor", SupervisorNotThrottled, |t| {
        each_thread(t, |thread| setpriority(libc::PRIO_PROCESS as u64, thread))
    }),
    probe("ioprio-set-thread-of-supervisor", SupervisorNotThrottled, |t| each_thread(t, |thread| ioprio(1, thread))),
    probe("sched-setattr-thread-of-supervisor", SupervisorNotThrottled, |t| each_thread(t, sched_setattr)),
    probe("sched-setscheduler-supervisor", SupervisorNotThrottled, |t| {
        call(libc::SYS_sched_setscheduler, &[raw(t.supervisor), libc::SCHED_BATCH as u64, address(&0i32)])
    }),
    probe("sched-setscheduler-shim", SupervisorNotThrottled, |t| {
        call(libc::SYS_sched_setscheduler, &[raw(t.shim), libc::SCHED_IDLE as u64, address(&0i32)])
    }),
    probe("sched-setparam-supervisor", SupervisorNotThrottled, |t| {
        call(libc::SYS_sched_setparam, &[raw(t.supervisor), address(&0i32)])
    }),
    probe("sched-setattr-supervisor", SupervisorNotThrottled, |t| sched_setattr(raw(t.supervisor))),
    probe("sched-setattr-shim", SupervisorNotThrottled, |t| sched_setattr(raw(t.shim))),
    probe("ioprio-set-supervisor", SupervisorNotThrottled, |t| ioprio(1, raw(t.supervisor))),
    probe("ioprio-set-shim", SupervisorNotThrottled, |t| ioprio(1, raw(t.shim))),
    probe("ioprio-set-user", SupervisorNotThrottled, |t| idle(t.shim, 3, u64::from(getuid().as_raw()))),
    probe("ioprio-set-user-zero", SupervisorNotThrottled, |t| idle(t.shim, 3, 0)).root(),
    probe("sched-setaffinity-outsider", SupervisorNotThrottled, |t| {
        t.outsider().map_or_else(|u| u, |p| affinity(raw(p)))
    }),
    probe("oom-score-adj-supervisor", SupervisorNotThrottled, |t| write_proc(t.supervisor, "oom_score_adj", "1000")),
    probe("oom-score-adj-shim", SupervisorNotThrottled, |t| write_proc(t.shim, "oom_score_adj", "1000")),
    probe("oom-score-adj-outsider", SupervisorNotThrottled, |t| {
        t.outsider().map_or_else(|u| u, |p| write_proc(p, "oom_score_adj", "1000"))
    }),
    probe("oom-adj-supervisor", SupervisorNotThrottled, |t| write_proc(t.supervisor, "oom_adj", "15")),
    probe("oom-score-adj-lower-own", SupervisorNotThrottled, |_| {
        // what was raised may be lowered again without privilege, down to where root put it (proc(5))
        let before = read_own_score();
        let wanted = if before > 0 { before - 1 } else { 5 };
        if before <= 0 {
            let _ = fs::write("/proc/self/oom_score_adj", "10");
        }
        let outcome = write_proc(getpid(), "oom_score_adj", &wanted.to_string());
        if read_own_score() == wanted { outcome } else { Outcome::Denied("the score stayed".into()) }
    }),
    probe("autogroup-supervisor", SupervisorNotThrottled, |t| write_proc(t.supervisor, "autogroup", "19")),
    probe("timerslack-supervisor", SupervisorNotThrottled, |t| write_proc(t.supervisor, "timerslack_ns", "1000000"))
        .root(),
    probe("coredump-filter-supervisor", SupervisorNotThrottled, |t| {
        write_proc(t.supervisor, "coredump_filter", "0x7f")
    }),
    probe("clear-refs-supervisor", SupervisorNotThrottled, |t| write_proc(t.supervisor, "clear_refs", "1")),
    probe("sched-file-supervisor", SupervisorNotThrottled, |t| write_proc(t.supervisor, "sched", "0")),
];

fn raw(pid: Pid) -> u64 {
    pid.as_raw() as u64
}

fn prlimit(pid: u64) -> Outcome {
    // no core files: harmless for whoever gets it
    call(libc::SYS_prlimit64, &[pid, libc::RLIMIT_CORE as u64, address(&[0u64, 0]), 0])
}

fn setpriority(which: u64, who: u64) -> Outcome {
    call(libc::SYS_setpriority, &[which, who, 7])
}

/// Group and user calls also reach ourselves, so the shim's nice value counts.
fn niced(shim: Pid, attempt: impl FnOnce() -> Outcome) -> Outcome {
    let nice = || stat(shim, 16);
    let before = nice();
    let outcome = attempt();
    if before == nice() { Outcome::Denied(format!("the shim's nice value stayed; {outcome}")) } else { outcome }
}

fn affinity(pid: u64) -> Outcome {
    call(libc::SYS_sched_setaffinity, &[pid, 8, address(&1u64)])
}

/// These calls take a thread's id, and limits are the whole process's: any thread of the supervisor would do. It may
/// have one only while it passes output on, and then that thread is younger than this program, so there is output.
fn each_thread(target: &Target, attempt: fn(u64) -> Outcome) -> Outcome {
    fn pour(mut stream: impl Write) {
        let line = [b'.'; 4096];
        for _ in 0..512 {
            let _ = stream.write_all(&line);
        }
        let _ = stream.write_all(b"\n");
    }
    // both streams at once, so that one thread is not enough
    let other = std::thread::spawn(|| pour(std::io::stdout()));
    let flood = std::thread::spawn(|| pour(std::io::stderr()));
    let mut last = Outcome::Denied("it has no further thread".into());
    while !flood.is_finished() && !matches!(last, Outcome::Escaped(_)) {
        let Ok(entries) = fs::read_dir(format!("/proc/{}/task", target.supervisor)) else { break };
        std::thread::sleep(std::time::Duration::from_micros(200));
        let threads = entries.flatten().filter_map(|e| e.file_name().to_str()?.parse::<u64>().ok());
        for thread in threads.filter(|&id| id != raw(target.supervisor)) {
            match attempt(thread) {
                // it ended between the look and the call
                Outcome::Denied(why) if why.starts_with("ESRCH") => {}
                other => last = other,
            }
        }
    }
    let _ = flood.join();
    let _ = other.join();
    last
}

fn sched_setattr(pid: u64) -> Outcome {
    // struct sched_attr (sched_setattr(2)): size, policy SCHED_BATCH, flags, nice
    let mut attributes = [0u32; 12];
    (attributes[0], attributes[1], attributes[4]) = (48, libc::SCHED_BATCH as u32, 7);
    call(libc::SYS_sched_setattr, &[pid, address(&attributes), 0])
}

fn ioprio(which: u64, who: u64) -> Outcome {
    // class idle (ioprio_set(2))
    call(libc::SYS_ioprio_set, &[which, who, 3 << 13])
}

/// Everybody of a user is also we ourselves, so the shim's priority counts.
fn idle(shim: Pid, which: u64, who: u64) -> Outcome {
    let before = ioprio_of(shim);
    let outcome = ioprio(which, who);
    if matches!(outcome, Outcome::Escaped(_)) {
        effect(before != ioprio_of(shim), "the shim's I/O priority")
    } else {
        outcome
    }
}

fn ioprio_of(pid: Pid) -> Option<i64> {
    kernel::call(libc::SYS_ioprio_get, &[1, raw(pid)]).ok()
}

fn write_proc(pid: Pid, name: &str, value: &str) -> Outcome {
    let write = || OpenOptions::new().write(true).open(format!("/proc/{pid}/{name}"))?.write_all(value.as_bytes());
    let mut result = write();
    // The kernel takes an autogroup's nice value at most every 100 ms from all of the machine (proc_sched_autogroup_set_nice).
    for _ in 0..50 {
        match &result {
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => std::thread::sleep(Duration::from_millis(120)),
            _ => break,
        }
        result = write();
    }
    judge(result)
}

fn read_own_score() -> i32 {
    fs::read_to_string("/proc/self/oom_score_adj").ok().and_then(|s| s.trim().parse().ok()).unwrap_or(0)
}
