//! A link on which nothing happens: the size of a beat, wake-ups, syncs; `memory` has what it holds.

use std::process::{Command, Stdio};
use std::time::Duration;

use protocol::session::{FromGateway, FromSupervisor, Pace};

use super::super::Line;
use crate::gateway::{Gateway, Session};
use crate::supervisor::Supervisor;
use crate::tls::Authority;
use crate::wait::wait_until;
use crate::{binaries, processes};

/// T; so short that many come before the gateway's silence is judged, since its answers would be wake-ups too.
const BEAT: Duration = Duration::from_millis(200);
const BEATS: u64 = 20;

pub(super) fn measure() -> Vec<Line> {
    let dir = binaries::scratch();
    let authority = Authority::new(dir.path(), "ca.pem");
    let gateway = Gateway::tls(authority.server("127.0.0.1"));
    let supervisor = Supervisor::new().link(&gateway).set("link-ca-file", authority.file()).agent(["sleep", "1000"]);
    let supervisor = supervisor.start();
    supervisor.wait_ready();
    let pace = Pace { beat_ms: Some(BEAT.as_millis() as u64), phase_ms: Some(0), window_ms: None };
    let mut session = gateway.welcome(pace);
    let settled = settle(&mut session);
    let pid = supervisor.pid();
    // Threads that were there for the disk end after a while.
    let one_thread = || processes::status(pid, "Threads").is_some_and(|threads| threads == "1");
    let mut longest = settled;
    while !one_thread() {
        longest = longest.max(beats(&mut session, 5, true));
    }
    let number = |field: &str| -> f64 {
        let text = processes::status(pid, field).unwrap_or_default();
        text.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(f64::NAN)
    };
    let before = number("voluntary_ctxt_switches");
    longest = longest.max(beats(&mut session, BEATS, false));
    let waits = number("voluntary_ctxt_switches") - before;
    longest = longest.max(beats(&mut session, 1, true));
    let syncs = syncs(pid.as_raw(), || beats(&mut session, BEATS, false));
    vec![
        Line::new("payload of the longest beat", 48.0, longest as f64, "bytes"),
        Line::new(format!("wake-ups for a beat, over {BEATS} of an idle link"), 1.0, waits / BEATS as f64, "wake-ups"),
        Line::new(format!("fsync and fdatasync over {BEATS} beats of an idle link"), 0.0, syncs, "calls"),
    ]
}

/// Acknowledge what it has to tell, until a beat comes alone; how long that is.
fn settle(session: &mut Session) -> usize {
    let mut alone = 0;
    loop {
        let text = session.text();
        match FromSupervisor::decode(&text).expect("a frame") {
            FromSupervisor::Beat { n, .. } => {
                session.send(&FromGateway::Beat { n, state: false, sums: None });
                alone += 1;
                if alone > 5 {
                    return text.len();
                }
            }
            FromSupervisor::Data(data) => {
                let last = data.records.last().expect("at least one").seq;
                session.send(&FromGateway::Ack { acks: [(data.class, last)].into(), applied: None });
                alone = 0;
            }
            _ => alone = 0,
        }
    }
}

/// So many beats, answered or not; the longest.
fn beats(session: &mut Session, count: u64, answer: bool) -> usize {
    let mut longest = 0;
    for _ in 0..count {
        let text = session.text();
        longest = longest.max(text.len());
        if let Ok(FromSupervisor::Beat { n, .. }) = FromSupervisor::decode(&text)
            && answer
        {
            session.send(&FromGateway::Beat { n, state: false, sums: None });
        }
    }
    longest
}

/// Calls that make something durable while `during` goes on, as strace(1) sees them.
fn syncs(pid: i32, during: impl FnOnce() -> usize) -> f64 {
    let dir = binaries::scratch();
    let trace = dir.path().join("trace");
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-e", "trace=fsync,fdatasync,sync_file_range,syncfs,epoll_wait", "-o"]).arg(&trace);
    let strace = command.args(["-p", &pid.to_string()]).stderr(Stdio::null()).spawn();
    let Ok(mut strace) = strace else {
        println!("strace is not there, so nobody counts syncs");
        return f64::NAN;
    };
    let text = || std::fs::read_to_string(&trace).unwrap_or_default();
    // It has attached once it sees the loop wait.
    wait_until("strace sees something", || text().contains("epoll_wait"));
    during();
    let seen = text();
    let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(strace.id() as i32), nix::sys::signal::Signal::SIGTERM);
    let _ = strace.wait();
    seen.lines().filter(|line| line.contains("sync")).count() as f64
}
