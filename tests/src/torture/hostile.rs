//! Clients that mean harm: thousands that never finish a request, and sessions that send what costs most. Meanwhile others are served, and
//! nothing is held for longer than it takes.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::unistd::Pid;

use crate::bench::{Line, percentile};
use crate::control_plane::Gateway;
use crate::supervisor::Supervisor;

mod flood;
mod slow;

/// Of both ends.
pub fn measure(short: bool) -> Vec<Line> {
    let connections = if short { 500 } else { 5_000 };
    let frames = if short { 100_000 } else { 1_000_000 };
    let supervisor = Supervisor::new().token().shell("exec sleep 1000").start();
    supervisor.wait_ready();
    let gateway = Gateway::start();
    let (end, pid) = (supervisor.address(), supervisor.pid());
    let mut lines = slow::measure(
        &Victim { name: "supervisor", address: end, pid, path: "/livez", room_kib: 8.0 * 1024.0 },
        connections,
    );
    let (end, pid) = (gateway.address, gateway.pid());
    lines.extend(slow::measure(
        &Victim { name: "gateway", address: end, pid, path: "/livez", room_kib: 64.0 * 1024.0 },
        connections,
    ));
    lines.extend(flood::of_gateway(&gateway, frames));
    lines.extend(flood::of_supervisor(&supervisor, frames));
    lines
}

/// Who is attacked.
struct Victim {
    name: &'static str,
    address: SocketAddr,
    pid: Pid,
    /// What others ask meanwhile.
    path: &'static str,
    /// What its memory may grow by.
    room_kib: f64,
}

/// What a well-behaved client saw.
struct Asked {
    /// The 99th percentile of its waits for an answer, in ms.
    p99: f64,
    /// Times that it got none, or another than it should.
    unanswered: usize,
}

impl Asked {
    fn lines(&self, what: impl Fn(&str) -> String) -> [Line; 2] {
        [
            Line::new(what("99th percentile of others' answers"), 20.0, self.p99, "ms"),
            Line::new(what("requests of others without their answer"), 0.0, self.unanswered as f64, "requests"),
        ]
    }
}

/// Ask like a well-behaved client until the attack is over.
fn ask(victim: &Victim, over: &AtomicBool) -> Asked {
    let (mut waits, mut unanswered) = (Vec::new(), 0);
    while !over.load(Ordering::Relaxed) {
        let begun = Instant::now();
        match crate::http::get(victim.address, victim.path) {
            Ok(answer) if answer.status == 200 => waits.push(begun.elapsed().as_secs_f64() * 1e3),
            other => {
                unanswered += 1;
                let told = other.map(|answer| answer.status);
                println!("{}: another client was told {told:?} after {:.2?}", victim.name, begun.elapsed());
            }
        }
        // The pace of a probe that is in a hurry.
        std::thread::sleep(Duration::from_millis(10));
    }
    Asked { p99: percentile(waits, 0.99), unanswered }
}

/// Seconds of a core that the process has used (proc_pid_stat(5): utime and stime, in ticks of 10 ms).
fn core_seconds(pid: Pid) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<f64> =
        stat.rsplit(')').next().unwrap_or_default().split(' ').filter_map(|field| field.parse().ok()).collect();
    // Behind the name and the state: ppid is the first number, utime the eleventh.
    fields.get(10).zip(fields.get(11)).map_or(f64::NAN, |(user, system)| (user + system) / 100.0)
}
