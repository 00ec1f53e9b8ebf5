//! The link, against a gateway that does what each test says (001-21, 001-22).

#[path = "link/calls.rs"]
mod calls;
#[path = "link/clocks.rs"]
mod clocks;
#[path = "link/commands.rs"]
mod commands;
#[path = "link/full_disk.rs"]
mod full_disk;
#[path = "link/identity.rs"]
mod identity;
#[path = "link/lines.rs"]
mod lines;
#[path = "link/offline.rs"]
mod offline;
#[path = "link/proxy.rs"]
mod proxy;
#[path = "link/records.rs"]
mod records;
#[path = "link/samples.rs"]
mod samples;
#[path = "link/signed.rs"]
mod signed;

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use protocol::session::{FromGateway, FromSupervisor, MAX_TEXT, Pace, Sum, Sums, close, encode, silence_ms};
use tests::binaries;
use tests::gateway::{self, Came, Gateway, Session};
use tests::supervisor::{Builder, Supervisor};
use tests::tls::Authority;
use tests::wait::wait_until;

/// Beats so often that a test need not wait.
const FAST: Pace = Pace { beat_ms: Some(50), phase_ms: Some(0), window_ms: None };
/// So seldom that none comes between.
const SLOW: Pace = Pace { beat_ms: Some(600_000), phase_ms: Some(600_000), window_ms: None };

fn linked(gateway: &Gateway) -> Builder {
    Supervisor::new().link(gateway).agent(["sleep", "1000"])
}

fn link_state(supervisor: &Supervisor) -> String {
    supervisor.health()["link"]["state"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_hello_says_who_dials_and_the_token_is_a_header() {
    let gateway = Gateway::new();
    let supervisor = linked(&gateway)
        .set("project-id", "p-1")
        .env("POD_NAME", "pod-1")
        .env("POD_NAMESPACE", "ns-1")
        .env("POD_UID", "uid-1")
        .start();
    let dial = gateway.dial();
    assert!(dial.head.starts_with("GET /v1/session HTTP/1.1\r\n"), "{}", dial.head);
    assert_eq!(dial.header("authorization"), Some(format!("Bearer {}", gateway::TOKEN).as_str()));
    let session = dial.upgrade();
    let hello = session.hello();
    assert_eq!((hello.agent_id.as_str(), hello.project_id.as_str()), ("a-1", "p-1"));
    let pod = hello.pod.as_ref().expect("the downward API has told it");
    assert_eq!((pod.name.as_str(), pod.namespace.as_str(), pod.uid.as_str()), ("pod-1", "ns-1", "uid-1"));
    assert!(!supervisor.stderr.text().contains(gateway::TOKEN), "the log tells the token");
}

#[test]
fn a_beat_has_at_most_48_bytes_and_counts_from_one() {
    let gateway = Gateway::new();
    let _supervisor = linked(&gateway).start();
    let mut session = gateway.welcome(FAST);
    let mut seen = 0;
    while seen < 5 {
        let text = session.text();
        if let Ok(FromSupervisor::Beat { n, .. }) = FromSupervisor::decode(&text) {
            seen += 1;
            assert_eq!(n, seen);
            assert!(text.len() <= 48, "{text}");
            session.send(&FromGateway::Beat { n, state: false, sums: None });
        }
    }
}

#[test]
fn the_state_travels_only_when_its_digest_is_new() {
    let gateway = Gateway::new();
    let supervisor = linked(&gateway).start();
    supervisor.wait_ready();
    let mut session = gateway.welcome(FAST);
    let state = session.state();
    assert_eq!(state.state["status"], "ready");
    for _ in 0..5 {
        let (n, d) = only_a_beat(&mut session);
        assert_eq!(d, state.d);
        session.send(&FromGateway::Beat { n, state: false, sums: None });
    }
    // It has forgotten the state and asks.
    session.send(&FromGateway::Beat { n: 0, state: true, sums: None });
    assert_eq!(session.state(), state);
    drop(session);
    // It has the state still, and says so.
    let mut session = gateway.accept();
    let mut welcome = Session::usual(FAST);
    welcome.d = Some(state.d.clone());
    session.send(&FromGateway::Welcome(Box::new(welcome)));
    assert_eq!(only_a_beat(&mut session).1, state.d);
    // It changes.
    supervisor.signal(Signal::SIGTERM);
    assert_eq!(session.state().state["status"], "draining");
}

/// The next beat, before which no state came.
fn only_a_beat(session: &mut Session) -> (u64, String) {
    loop {
        match session.frame() {
            FromSupervisor::Beat { n, d } => return (n, d),
            FromSupervisor::State(state) => panic!("a state that was not asked for: {state:?}"),
            _ => {}
        }
    }
}

#[test]
fn a_message_that_was_lost_or_changed_on_the_way_ends_the_session_at_the_next_beat() {
    let gateway = Gateway::new();
    let supervisor = linked(&gateway).start();
    supervisor.wait_ready();
    let missed = |count| supervisor.metric("supervisor_link_ends_total{reason=\"missed\"}") == Some(count);
    // Whose sum is wrong, in the end.
    for (wrong, ends) in [("received", 1.0), ("sent", 2.0)] {
        let mut session = gateway.accept();
        let (mut received, mut sent) = (Sum::default(), Sum::default());
        received.add(encode(&FromSupervisor::Hello(Box::new(session.hello().clone()))).as_bytes());
        let mut send = |session: &mut Session, frame: FromGateway| {
            session.send(&frame);
            sent.add(encode(&frame).as_bytes());
            sent
        };
        let mut told = send(&mut session, FromGateway::Welcome(Box::new(Session::usual(FAST))));
        for off in [0, 0, 0, 1] {
            let (n, text) = loop {
                let text = session.text();
                if let Ok(FromSupervisor::Beat { n, .. }) = FromSupervisor::decode(&text) {
                    break (n, text);
                }
                received.add(text.as_bytes());
            };
            let by = |which| if which == wrong { off } else { 0 };
            let sums = Sums { received: Sum(received.0 ^ by("received")), sent: Sum(told.0 ^ by("sent")) };
            told = send(&mut session, FromGateway::Beat { n, state: false, sums: Some(sums) });
            received.add(text.as_bytes());
        }
        assert_eq!(session.rest().1, Some(close::MALFORMED));
        wait_until("the end is counted", || missed(ends));
    }
    gateway.welcome(SLOW);
}

#[test]
fn health_and_metrics_show_the_link_and_readiness_never_depends_on_it() {
    let gateway = Gateway::new();
    let supervisor = linked(&gateway).start();
    let session = gateway.welcome(SLOW);
    wait_until("connected", || link_state(&supervisor) == "connected");
    assert_eq!(supervisor.metric("supervisor_link_state{state=\"connected\"}"), Some(1.0));
    assert_eq!(supervisor.metric("supervisor_link_dials_total{outcome=\"connected\"}"), Some(1.0));
    drop((session, gateway));
    wait_until("a failed dial", || supervisor.metric("supervisor_link_dials_total{outcome=\"connect\"}") > Some(0.0));
    assert_eq!(supervisor.get("/readyz").status, 200);
    let health = supervisor.get("/healthz").body;
    assert!(!health.contains("127.0.0.1") && !health.contains(gateway::TOKEN), "{health}");
    assert_eq!(Supervisor::new().shell("sleep 1000").start().health()["link"]["state"], "off");
}

#[test]
fn a_silent_gateway_is_left_after_the_deadline() {
    let gateway = Gateway::new();
    let supervisor = linked(&gateway).start();
    let mut silent = gateway.welcome(FAST);
    let since = Instant::now();
    let (_, code) = silent.rest();
    assert_eq!(code, Some(close::TIMEOUT));
    assert!(since.elapsed() >= Duration::from_millis(silence_ms(50)));
    gateway.welcome(FAST);
    assert_eq!(supervisor.metric("supervisor_link_ends_total{reason=\"silent\"}"), Some(1.0));
}

#[test]
fn a_gateway_that_sends_no_welcome_is_left() {
    let gateway = Gateway::new();
    let _supervisor = linked(&gateway).start();
    let (frames, code) = gateway.accept().rest();
    assert_eq!((frames.len(), code), (0, Some(close::TIMEOUT)), "no beat before the welcome");
    gateway.accept();
}

#[test]
fn a_refused_dial_waits_for_the_reserved_time() {
    let gateway = Gateway::new();
    let _supervisor = linked(&gateway).start();
    let body = r#"{"reason":"full","reconnect_in_ms":700}"#;
    gateway.dial().answer(503, "retry-after: 1\r\n", body);
    let since = Instant::now();
    gateway.dial().answer(503, "retry-after: 1\r\n", "by the header alone");
    assert!(since.elapsed() >= Duration::from_millis(690), "{:?}", since.elapsed());
    let since = Instant::now();
    let mut session = gateway.accept();
    assert!(since.elapsed() >= Duration::from_millis(990), "{:?}", since.elapsed());
    session.send(&FromGateway::Goaway { reason: "drain".into(), reconnect_in_ms: 500 });
    let since = Instant::now();
    assert_eq!(session.rest().1, Some(1000));
    gateway.accept();
    assert!(since.elapsed() >= Duration::from_millis(490), "{:?}", since.elapsed());
}

#[test]
fn a_new_token_is_read_after_a_401_and_after_a_close_that_says_so() {
    let gateway = Gateway::new();
    let supervisor = linked(&gateway).start();
    gateway.dial().answer(401, "", "");
    fs::write(supervisor.path("link/token"), "renewed-once\n").expect("our own file");
    let dial = gateway.dial();
    assert_eq!(dial.header("authorization"), Some("Bearer renewed-once"));
    let session = dial.upgrade();
    fs::write(supervisor.path("link/token"), "renewed-twice").expect("our own file");
    session.close(close::UNAUTHENTICATED);
    assert_eq!(gateway.dial().header("authorization"), Some("Bearer renewed-twice"));
    assert_eq!(supervisor.metric("supervisor_link_ends_total{reason=\"denied\"}"), Some(1.0));
}

#[test]
fn a_token_file_that_has_gone_is_waited_for() {
    let gateway = Gateway::new();
    let supervisor = linked(&gateway).start();
    gateway.dial();
    fs::remove_file(supervisor.path("link/token")).expect("our own file");
    wait_until("a dial without a token", || {
        supervisor.metric("supervisor_link_dials_total{outcome=\"token\"}") > Some(0.0)
    });
    fs::write(supervisor.path("link/token"), "back").expect("our own file");
    assert_eq!(gateway.dial().header("authorization"), Some("Bearer back"));
}

#[test]
fn the_window_that_a_gateway_tells_is_kept_over_a_restart() {
    let gateway = Gateway::new();
    let mut supervisor = linked(&gateway).start();
    let mut session = gateway.welcome(Pace { window_ms: Some(86_400_000), ..SLOW });
    session.send(&FromGateway::Pace(Pace { window_ms: Some(90_000_000), ..Pace::default() }));
    let file = supervisor.paths().state.join("link.json");
    wait_until("the newer window on disk", || fs::read_to_string(&file).is_ok_and(|text| text.contains("90000000")));
    supervisor.signal(Signal::SIGTERM);
    session.rest();
    assert_eq!(supervisor.wait_code(), 143);
    let state = supervisor.paths().state.clone();
    let again = linked(&gateway).set("state-dir", state).start();
    again.wait_ready();
    wait_until("waiting", || link_state(&again) == "waiting");
}

#[test]
fn a_stopping_supervisor_says_its_last_beat_and_goodbye() {
    let gateway = Gateway::new();
    let mut supervisor = linked(&gateway).start();
    supervisor.wait_ready();
    let mut session = gateway.welcome(SLOW);
    session.state();
    supervisor.signal(Signal::SIGTERM);
    let (frames, code) = session.rest();
    assert!(matches!(frames.last(), Some(FromSupervisor::Bye { last: true, .. })), "{frames:?}");
    assert!(matches!(frames[frames.len() - 2], FromSupervisor::Beat { n: 1, .. }), "{frames:?}");
    assert_eq!(code, Some(1000));
    assert_eq!(supervisor.wait_code(), 143);
}

#[test]
fn a_gateway_that_takes_nothing_does_not_keep_a_stopping_supervisor() {
    let gateway = Gateway::new();
    let mut supervisor = linked(&gateway).set("grace", "2s").start();
    supervisor.wait_ready();
    let _deaf = gateway.welcome(SLOW);
    wait_until("connected", || link_state(&supervisor) == "connected");
    supervisor.signal(Signal::SIGTERM);
    assert_eq!(supervisor.wait_code(), 143);
}

#[test]
fn garbage_and_messages_that_are_too_long_end_the_session_by_name() {
    let gateway = Gateway::new();
    let supervisor = linked(&gateway).start();
    for (text, code, reason) in [
        ("{".to_owned(), close::MALFORMED, "malformed"),
        (r#"{"t":"welcome"}"#.to_owned(), close::MALFORMED, "malformed"),
        ("x".repeat(MAX_TEXT + 1), close::TOO_LARGE, "too-large"),
    ] {
        let mut session = gateway.welcome(SLOW);
        let before = supervisor.metric(&format!("supervisor_link_ends_total{{reason=\"{reason}\"}}")).unwrap_or(0.0);
        session.send_text(&text);
        assert_eq!(session.rest().1, Some(code), "{reason}");
        wait_until(reason, || {
            supervisor.metric(&format!("supervisor_link_ends_total{{reason=\"{reason}\"}}")) == Some(before + 1.0)
        });
    }
    let mut session = gateway.accept();
    let mut welcome = Session::usual(SLOW);
    welcome.protocol = 99;
    session.send(&FromGateway::Welcome(Box::new(welcome)));
    assert_eq!(session.rest().1, Some(close::PROTOCOL));
}

#[test]
fn unknown_frames_and_fields_are_skipped() {
    let gateway = Gateway::new();
    let supervisor = linked(&gateway).start();
    let mut session = gateway.accept();
    session.send_text(r#"{"t":"poem","lines":14}"#);
    session.send(&FromGateway::Welcome(Box::new(Session::usual(FAST))));
    let (n, _) = session.beat();
    session.send_text(&format!(r#"{{"t":"beat","n":{n},"mood":"good"}}"#));
    session.send_text(r#"{"t":"song"}"#);
    assert_eq!(session.beat().0, n + 1);
    wait_until("both are counted", || supervisor.metric("supervisor_link_skipped_total") == Some(2.0));
}

#[test]
fn by_tls_only_a_gateway_with_the_right_certificate_gets_the_token() {
    let dir = binaries::scratch();
    let (right, wrong) = (Authority::new(dir.path(), "right.pem"), Authority::new(dir.path(), "wrong.pem"));
    let gateway = Gateway::tls(right.server("127.0.0.1"));
    let supervisor = linked(&gateway).set("link-ca-file", wrong.file()).start();
    wait_until("a failed handshake", || {
        // Takes the connection and finds that nothing comes of it.
        let _ = gateway.connection();
        supervisor.metric("supervisor_link_dials_total{outcome=\"tls\"}") > Some(0.0)
    });
    let told = supervisor.wait_log("there is no link to the gateway");
    assert_eq!(told["kind"], "tls");
    drop(supervisor);
    let supervisor = linked(&gateway).set("link-ca-file", right.file()).start();
    let dial = gateway.dial();
    assert_eq!(dial.header("authorization"), Some(format!("Bearer {}", gateway::TOKEN).as_str()));
    let mut session = dial.upgrade();
    session.send(&FromGateway::Welcome(Box::new(Session::usual(FAST))));
    session.beat();
    wait_until("connected", || link_state(&supervisor) == "connected");
}

#[test]
fn a_name_with_two_addresses_is_tried_at_both() {
    let gateway = Gateway::new();
    let port = gateway.address().port();
    // Nobody listens on its IPv6 address.
    let _supervisor = linked(&gateway).set("gateway-url", format!("http://localhost:{port}/base/")).start();
    let dial = gateway.dial();
    assert!(dial.head.starts_with("GET /base/v1/session "), "{}", dial.head);
}

#[test]
fn a_handshake_that_is_not_ours_is_left_and_tried_again() {
    let gateway = Gateway::new();
    let supervisor = linked(&gateway).start();
    gateway.dial().answer(200, "", "hello, I am a web server");
    gateway.dial().answer(302, "location: http://127.0.0.1:1/\r\n", "");
    gateway.dial().answer(101, "upgrade: websocket\r\nsec-websocket-accept: x\r\n", "");
    gateway.accept();
    assert_eq!(supervisor.metric("supervisor_link_dials_total{outcome=\"refused\"}"), Some(2.0));
    assert_eq!(supervisor.metric("supervisor_link_dials_total{outcome=\"answer\"}"), Some(1.0));
}

#[test]
fn a_supervisor_that_was_stopped_for_longer_than_the_deadline_comes_back() {
    let gateway = Gateway::new();
    let supervisor = linked(&gateway).start();
    let mut session = gateway.welcome(FAST);
    session.beat();
    supervisor.signal(Signal::SIGSTOP);
    std::thread::sleep(Duration::from_millis(silence_ms(50) + 500));
    supervisor.signal(Signal::SIGCONT);
    // At most one beat for all that were missed.
    let (frames, code) = session.rest();
    let beats = frames.iter().filter(|frame| matches!(frame, FromSupervisor::Beat { .. })).count();
    assert!(beats <= 12, "{beats} beats");
    assert_eq!(code, Some(close::TIMEOUT));
    gateway.welcome(FAST).beat();
}

#[test]
fn settings_that_contradict_each_other_are_named() {
    let gateway = Gateway::new();
    let half = linked(&gateway);
    let readable = half.path("link/token");
    for (builder, word) in [
        (half.set("link-cert-file", readable), "link_key_file"),
        (linked(&gateway).set("gateway-url", "ws://10.0.0.1:1"), "SUPERVISOR_LINK_PLAIN"),
        (linked(&gateway).unset("gateway-url"), "SUPERVISOR_GATEWAY_URL"),
        (linked(&gateway).unset("agent-id"), "SUPERVISOR_AGENT_ID"),
        (linked(&gateway).set("gateway-url", "wss://name:secret@x"), "SUPERVISOR_LINK_TOKEN_FILE"),
    ] {
        let mut supervisor = builder.start();
        assert_eq!(supervisor.wait_code(), 78);
        supervisor.stderr.wait_for(word, |text| text.contains(word).then_some(()));
        assert!(!supervisor.stderr.text().contains("secret"), "{}", supervisor.stderr.text());
    }
}

#[test]
fn a_session_that_sends_something_else_than_frames_is_read_as_far_as_it_makes_sense() {
    let gateway = Gateway::new();
    let _supervisor = linked(&gateway).start();
    let mut socket = gateway.dial().shake();
    // Not WebSocket at all, after the handshake.
    use std::io::Write;
    socket.get_mut().write_all(&[0xff; 64]).and_then(|()| socket.get_mut().flush()).expect("it listens");
    let mut session = gateway.welcome(FAST);
    assert!(matches!(session.came(), Came::Text(_)));
}

fn post(path: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    let head =
        format!("POST {path} HTTP/1.1\r\nhost: sandbox\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
    [head.into_bytes(), body.as_bytes().to_vec()].concat()
}
