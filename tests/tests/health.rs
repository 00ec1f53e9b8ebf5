//! What the kubelet and a scraper are told.

use std::io::{Read, Write};

use nix::sys::signal::Signal;
use protocol::health::Health;
use tests::supervisor::Supervisor;
use tests::wait::wait_until;
use tests::{binaries, http, scene, table};

/// 000-79, 001-16, 003-12.
#[test]
fn every_health_path_answers_and_the_body_is_the_protocols() {
    let supervisor = Supervisor::new()
        .set("agent-id", "agent-7")
        .set("project-id", "project-8")
        .env("HIVE_CONTROLLER_ID", "controller-9")
        .set("deployment-backend", "laptop")
        .shell("sleep 1000")
        .start();
    supervisor.wait_ready();
    for path in ["/livez", "/readyz", "/startupz", "/healthz", "/alive"] {
        let answer = supervisor.get(path);
        assert_eq!(answer.status, 200, "{path}");
        assert!(answer.head.to_lowercase().contains("content-type: application/json"), "{path}: {}", answer.head);
        let health: Health = serde_json::from_str(&answer.body).expect("the protocol's own type");
        assert_eq!(health.identity.agent_id, "agent-7");
        assert_eq!(health.identity.project_id, "project-8");
        assert_eq!(health.identity.controller_id, "controller-9");
        assert_eq!(health.identity.deployment_backend, "laptop");
        assert_eq!(health.agent.state, "running");
        assert!(!health.confinement.guarantees.is_empty());
    }
    assert_eq!(supervisor.get("/nowhere").status, 404);
}

#[test]
fn health_is_open_without_a_token_and_says_no_path_and_no_secret() {
    let supervisor = Supervisor::new()
        .token()
        .env("HIVE_INTERNAL_SECRET", scene::CANARY)
        .env("OPENAI_API_KEY", "CANARY-key")
        .shell("sleep 1000")
        .start();
    supervisor.wait_ready();
    let paths =
        [supervisor.paths().state.clone(), supervisor.paths().workspace.clone(), supervisor.paths().token.clone()];
    for page in ["/livez", "/readyz", "/startupz", "/healthz", "/alive", "/metrics"] {
        let answer = supervisor.get(page);
        assert_eq!(answer.status, 200, "{page}");
        assert!(!answer.body.contains("CANARY"), "{page} tells a secret");
        for path in &paths {
            assert!(!answer.body.contains(path.to_str().expect("our own path")), "{page} tells {}", path.display());
        }
    }
    assert!(!supervisor.stderr.text().contains("CANARY"), "the log tells a secret");
}

/// 000-77.
#[test]
fn it_is_live_before_the_agent_is_ready() {
    let supervisor = Supervisor::new().set("agent-ready", "notify").shell("sleep 1000").start();
    supervisor.wait_state("running");
    assert_eq!(supervisor.get("/livez").status, 200);
    assert_eq!(supervisor.get("/startupz").status, 200);
    assert_eq!(supervisor.get("/readyz").status, 503);
    let health = supervisor.health();
    assert_eq!(health["status"], "starting");
    assert!(health["readiness_reason"].as_str().is_some_and(|r| !r.is_empty()));
}

#[test]
fn an_agent_that_ended_and_waits_is_an_error_and_still_live() {
    let supervisor = Supervisor::new()
        .set("agent-restart", "always")
        .set("agent-restart-min", "1h")
        .set("agent-restart-max", "1h")
        .shell("exit 41")
        .start();
    supervisor.wait_state("waiting");
    assert_eq!(supervisor.get("/livez").status, 200);
    assert_eq!(supervisor.get("/readyz").status, 503);
    let health = supervisor.health();
    assert_eq!(health["status"], "error");
    assert_eq!(health["agent"]["last_exit_code"], 41);
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("loopback").port()
}

#[test]
fn readiness_by_tcp_http_and_command_follows_what_it_asks() {
    table::each("readiness checks", ["tcp", "http", "exec"], |kind| {
        let port = free_port();
        let supervisor = Supervisor::new().set("agent-ready-interval", "50ms");
        let flag = supervisor.path("workspace/flag");
        let check = match kind {
            "tcp" => format!("tcp:{port}"),
            "http" => format!("http:{port}/ready?now=1"),
            _ => format!("exec:test -e {}", flag.display()),
        };
        let agent = binaries::helper("agent");
        let script = format!("read line; touch {}; exec {} listen {port} 204", flag.display(), agent.display());
        let mut supervisor =
            supervisor.set("agent-ready", check).stdin(std::process::Stdio::piped()).shell(&script).start();
        supervisor.wait_state("running");
        let early = supervisor.get("/readyz").status;
        let _ = supervisor.stdin().expect("a pipe").write_all(b"go\n");
        wait_until(&format!("readiness by {kind}"), || supervisor.get("/readyz").status == 200);
        (early != 503).then(|| format!("{kind}: {early} before it was ready"))
    });
}

#[test]
fn an_http_check_that_answers_an_error_is_not_ready() {
    let port = free_port();
    let agent = binaries::helper("agent");
    let operands = ["listen".into(), port.to_string(), "500".into()];
    let supervisor = Supervisor::new()
        .set("agent-ready", format!("http:{port}/"))
        .set("agent-ready-interval", "20ms")
        .agent(std::iter::once(agent.into_os_string()).chain(operands.map(Into::into)))
        .start();
    supervisor.stdout.wait_text("listening");
    for _ in 0..10 {
        assert_eq!(supervisor.get("/readyz").status, 503);
    }
}

#[test]
fn an_agent_that_hangs_is_ended_and_started_again() {
    let supervisor = Supervisor::new();
    let flag = supervisor.path("workspace/alive");
    let supervisor = supervisor
        .set("agent-hung", format!("exec:test -e {}", flag.display()))
        .set("agent-hung-interval", "50ms")
        .set("agent-hung-failures", "2")
        .set("agent-restart", "on-failure")
        .set("agent-restart-min", "10ms")
        .set("agent-restart-max", "20ms")
        .set("grace", "300ms")
        .shell(&format!("touch {0}; echo up; sleep 0.3; rm {0}; trap '' ABRT; sleep 1000", flag.display()))
        .start();
    wait_until("a second run", || supervisor.stdout.text().matches("up").count() >= 2);
    assert!(supervisor.metric("supervisor_agent_hangs_total") >= Some(1.0));
    assert!(supervisor.metric("supervisor_agent_restarts_total") >= Some(1.0));
}

#[test]
fn an_agent_that_stops_answering_by_tcp_or_http_is_ended_and_started_again() {
    table::each("hung checks", ["tcp", "http"], |kind| {
        let port = free_port();
        let check = if kind == "tcp" { format!("tcp:{port}") } else { format!("http:{port}/alive") };
        let agent = binaries::helper("agent").display().to_string();
        // It listens until it is told to stop that, and stays. The second one listens again.
        let script = format!("{agent} listen {port} 204 & read line; kill $!; echo deaf; exec sleep 1000");
        let mut supervisor = Supervisor::new()
            .set("agent-ready", &check)
            .set("agent-ready-interval", "20ms")
            .set("agent-hung", &check)
            .set("agent-hung-interval", "50ms")
            .set("agent-hung-failures", "3")
            .set("agent-restart", "on-failure")
            .set("agent-restart-min", "10ms")
            .set("agent-restart-max", "20ms")
            .set("grace", "300ms")
            .stdin(std::process::Stdio::piped())
            .shell(&script)
            .start();
        supervisor.wait_ready();
        let early = supervisor.metric("supervisor_agent_hangs_total");
        let mut stdin = supervisor.stdin().expect("a pipe");
        let _ = stdin.write_all(b"go\n");
        supervisor.stdout.wait_text("deaf");
        wait_until(&format!("a hang by {kind}"), || supervisor.metric("supervisor_agent_hangs_total") == Some(1.0));
        wait_until("a second run", || supervisor.metric("supervisor_agent_restarts_total") == Some(1.0));
        supervisor.wait_ready();
        (early != Some(0.0)).then(|| format!("{kind}: {early:?} hangs while it answered"))
    });
}

#[test]
fn every_end_of_the_agent_is_counted_by_its_exit_code() {
    let supervisor = Supervisor::new();
    let runs = supervisor.path("workspace/runs");
    let script = format!(
        "echo x >> {0}; case $(wc -l < {0}) in 1|2) exit 7;; 3) exit 255;; 4) kill -9 $$;; 5) kill -15 $$;; esac; sleep 1000",
        runs.display()
    );
    let supervisor = supervisor
        .set("agent-restart", "on-failure")
        .set("agent-restart-min", "5ms")
        .set("agent-restart-max", "10ms")
        .shell(&script)
        .start();
    wait_until("a sixth run", || supervisor.metric("supervisor_agent_restarts_total") == Some(5.0));
    for (code, ends) in [(7, 2.0), (255, 1.0), (137, 1.0), (143, 1.0)] {
        let name = format!("supervisor_agent_exits_total{{code=\"{code}\"}}");
        assert_eq!(supervisor.metric(&name), Some(ends), "{name}");
    }
    let text = supervisor.get("/metrics").body;
    let all = text.lines().filter(|line| line.starts_with("supervisor_agent_exits_total{")).count();
    assert_eq!(all, 4, "{text}");
}

#[test]
fn metrics_are_prometheus_text_with_state_exit_and_build() {
    let supervisor = Supervisor::new().shell("sleep 1000").start();
    supervisor.wait_ready();
    let text = supervisor.get("/metrics").body;
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let value = line.rsplit(' ').next().unwrap_or_default();
        assert!(value.parse::<f64>().is_ok(), "not a sample: {line}");
    }
    assert_eq!(supervisor.metric("supervisor_agent_state{state=\"running\"}"), Some(1.0));
    assert_eq!(supervisor.metric("supervisor_agent_restarts_total"), Some(0.0));
    assert_eq!(supervisor.metric("supervisor_orphans_reaped_total"), Some(0.0));
    assert!(text.contains("supervisor_build_info{version="), "{text}");
    assert!(text.contains("supervisor_guarantee{guarantee=\"token-unreadable\"} 1"), "{text}");
}

#[test]
fn the_probe_command_agrees_with_the_endpoints() {
    let supervisor = Supervisor::new().set("agent-ready", "notify").shell("sleep 1000").start();
    supervisor.wait_state("running");
    let probe = |what: &str| {
        let address = supervisor.address().to_string();
        let mut command = std::process::Command::new(binaries::supervisor());
        command.env_clear().args(["probe", what, "--listen", &address]).output().expect("it runs").status.code()
    };
    assert_eq!(probe("live"), Some(0));
    assert_eq!(probe("ready"), Some(1));
    supervisor.signal(Signal::SIGKILL);
    wait_until("the end", || probe("live") == Some(1));
}

#[test]
fn slow_and_broken_clients_are_cut_and_do_not_keep_others_waiting() {
    let supervisor = Supervisor::new().shell("sleep 1000").start();
    let address = supervisor.address();
    let mut slow: Vec<std::net::TcpStream> = Vec::new();
    for _ in 0..100 {
        let mut stream = std::net::TcpStream::connect(address).expect("it listens");
        stream.write_all(b"GET /livez HT").expect("a fresh connection");
        slow.push(stream);
    }
    for garbage in ["\0\0\0\0\r\n\r\n", "GET", "PUT /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"] {
        let _ = http::exchange(address, garbage);
        assert_eq!(supervisor.get("/livez").status, 200);
    }
    // the head has a time limit, so these end by themselves
    for mut stream in slow {
        let mut rest = Vec::new();
        stream.set_read_timeout(Some(tests::wait::LONG)).expect("a socket");
        stream.read_to_end(&mut rest).expect("it is closed from the other side");
    }
}
