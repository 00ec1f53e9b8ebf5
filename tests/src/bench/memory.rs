//! What an idle sandbox costs.

use super::Line;
use crate::processes;
use crate::supervisor::Supervisor;
use crate::wait::wait_until;

/// Resident set of the supervisor beside an idle agent; the shim's is told, not promised.
pub fn measure() -> Vec<Line> {
    let supervisor = Supervisor::new().shell("echo up; exec sleep 1000").start();
    supervisor.stdout.wait_text("up");
    supervisor.wait_ready();
    for _ in 0..20 {
        // as the kubelet asks, so that what a request leaves behind is in the number
        supervisor.get("/livez");
        supervisor.get("/metrics");
    }
    let pid = supervisor.pid();
    // threads that wait for work end after a while
    wait_until("one or two threads", || {
        processes::status(pid, "Threads").and_then(|t| t.parse::<u32>().ok()).is_some_and(|threads| threads <= 2)
    });
    let kib = |pid, field: &str| -> f64 {
        let text = processes::status(pid, field).unwrap_or_default();
        text.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(f64::NAN)
    };
    let shims: Vec<_> = processes::children(pid).into_iter().filter(|&p| processes::name(p) == "shim").collect();
    for &shim in &shims {
        println!("the shim beside it: {} KiB resident, {} KiB of it its own", kib(shim, "VmRSS"), kib(shim, "RssAnon"));
    }
    let threads = processes::status(pid, "Threads").unwrap_or_default();
    let own = kib(pid, "RssAnon");
    let what = format!("resident set of an idle supervisor, {own} KiB of it its own, {threads} threads");
    vec![Line::new(what, 3072.0, kib(pid, "VmRSS"), "KiB")]
}
