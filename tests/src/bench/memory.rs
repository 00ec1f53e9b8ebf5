//! What an idle sandbox costs.

use super::Line;
use crate::control_plane::{Gateway, token_of};
use crate::processes;
use crate::supervisor::Supervisor;
use crate::tls::Authority;
use crate::wait::wait_until;

/// Resident set of the supervisor beside an idle agent, in a session by TLS; the shim's is told, not promised.
pub fn measure() -> Vec<Line> {
    let supervisor = Supervisor::new();
    let files = supervisor.path("link");
    std::fs::create_dir_all(&files).expect("our own directory");
    let authority = Authority::new(&files, "ca.pem");
    let (certificate, key) = authority.issue("127.0.0.1", &files);
    let path = |path: &std::path::Path| path.display().to_string();
    let gateway = Gateway::build().set("tls_cert_file", &path(&certificate)).set("tls_key_file", &path(&key)).start();
    std::fs::write(files.join("token"), token_of("a")).expect("our own directory");
    let supervisor = supervisor
        .set("gateway-url", format!("wss://{}", gateway.address))
        .set("link-ca-file", authority.file())
        .set("link-token-file", files.join("token"))
        .set("link-window", "10ms")
        .set("agent-id", "a")
        .shell("echo up; exec sleep 1000")
        .start();
    supervisor.stdout.wait_text("up");
    supervisor.wait_ready();
    wait_until("a session", || supervisor.metric("supervisor_link_state{state=\"connected\"}") == Some(1.0));
    for _ in 0..20 {
        // as the kubelet asks, so that what a request leaves behind is in the number
        supervisor.get("/livez");
        supervisor.get("/metrics");
    }
    wait_until("two beats", || supervisor.metric("supervisor_link_beats_total") >= Some(2.0));
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
    let what =
        format!("resident set of an idle supervisor in a session by TLS, {own} KiB of it its own, {threads} threads");
    vec![Line::new(what, 4096.0, kib(pid, "VmRSS"), "KiB")]
}
