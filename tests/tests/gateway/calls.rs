//! The dev-task API of a sandbox, through its session.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use tests::control_plane::{Gateway, USER};
use tests::dialler::{Dialler, response};
use tests::wait::wait_until;

/// Sandbox `a`, whose API answers like this; and a count of what it has sent.
fn sandbox(gateway: &Gateway, answer: impl Fn(&str) -> Vec<u8> + Send + 'static) -> Arc<AtomicU64> {
    let (session, _) = Dialler::begin(gateway, "a");
    let sent = Arc::new(AtomicU64::new(0));
    let count = sent.clone();
    thread::spawn(move || session.serve(&count, answer));
    sent
}

#[test]
fn a_call_reaches_the_sandbox_with_its_own_path_and_without_the_users_token() {
    let gateway = Gateway::start();
    sandbox(&gateway, |request| response("201 Created\r\nX-Seen: yes", request.as_bytes()));
    let answer = gateway.api().call("POST", "/v1/sandboxes/a/dev-tasks?wait=30s", &[("X-Own", "1")], b"{\"argv\":[]}");
    let seen = String::from_utf8_lossy(&answer.body).to_ascii_lowercase();
    assert_eq!((answer.status(), answer.header("x-seen")), (201, "yes"));
    assert!(seen.starts_with("post /dev-tasks?wait=30s http/1.1\r\n"), "{seen}");
    assert!(seen.contains("x-own: 1") && seen.ends_with("{\"argv\":[]}"), "{seen}");
    assert!(!seen.contains("authorization") && !seen.contains(USER), "{seen}");
    let answer = gateway.api().get("/v1/sandboxes/a/files/x%20y/z?after=1");
    assert!(answer.body.starts_with(b"GET /files/x%20y/z?after=1 "), "{}", String::from_utf8_lossy(&answer.body));
}

#[test]
fn large_bodies_pass_in_both_directions() {
    let gateway = Gateway::start();
    sandbox(&gateway, |request| {
        let body = request.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        response("200 OK", body.as_bytes())
    });
    let body: Vec<u8> = (0..3_000_000u32).map(|n| b'a' + (n % 23) as u8).collect();
    let answer = gateway.api().call("PUT", "/v1/sandboxes/a/files/big", &[], &body);
    assert_eq!(answer.status(), 200);
    assert!(answer.body == body, "{} bytes came back of {}", answer.body.len(), body.len());
}

#[test]
fn a_caller_that_does_not_read_holds_the_sandbox_back_and_no_memory() {
    const SIZE: usize = 64 * 1024 * 1024;
    let gateway = Gateway::start();
    let sent = sandbox(&gateway, |_| response("200 OK", &vec![b'x'; SIZE]));
    let (head, mut body) = gateway.api().open("GET", "/v1/sandboxes/a/files/big", &[], b"").expect("an answer");
    assert_eq!(head.status, 200);
    // Another call is answered meanwhile, so the session is not held back; what is under way has settled by then.
    let other = gateway.api().call("GET", "/v1/sandboxes/a", &[], b"");
    assert_eq!(other.json()["status"], "connected");
    let mut before = u64::MAX;
    wait_until("nothing more is sent", || {
        thread::sleep(std::time::Duration::from_millis(100));
        std::mem::replace(&mut before, sent.load(Ordering::Relaxed)) == sent.load(Ordering::Relaxed)
    });
    assert!(before < SIZE as u64 / 2, "{before} bytes were sent to a caller that reads none");
    let mut all = Vec::new();
    body.read_to_end(&mut all).expect("the rest");
    assert_eq!(all.len(), SIZE);
}

#[test]
fn an_upgraded_call_passes_as_bytes_both_ways() {
    use std::io::Write;
    let gateway = Gateway::start();
    sandbox(&gateway, |request| {
        assert!(request.to_ascii_lowercase().contains("upgrade: echo"), "{request}");
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nfrom the sandbox".to_vec()
    });
    let mut caller = std::net::TcpStream::connect(gateway.address).expect("a connection");
    let request = format!(
        "GET /v1/sandboxes/a/dev-tasks/t/attach HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {USER}\r\n\
         Connection: Upgrade\r\nUpgrade: echo\r\n\r\n"
    );
    caller.write_all(request.as_bytes()).expect("sent");
    let (mut text, mut piece) = (String::new(), [0; 1024]);
    while !text.ends_with("from the sandbox") {
        let count = caller.read(&mut piece).expect("the answer");
        assert!(count > 0, "{text}");
        text += &String::from_utf8_lossy(&piece[..count]);
    }
    assert!(text.starts_with("HTTP/1.1 101"), "{text}");
}

#[test]
fn a_sandbox_that_is_away_is_answered_for_with_503_and_since_when() {
    let gateway = Gateway::start();
    assert_eq!(gateway.api().get("/v1/sandboxes/a/dev-tasks").status(), 404);
    drop(Dialler::begin(&gateway, "a"));
    wait_until("it is away", || gateway.api().get("/v1/sandboxes/a").json()["status"] == "disconnected");
    let answer = gateway.api().get("/v1/sandboxes/a/dev-tasks");
    assert_eq!(answer.status(), 503);
    let detail = answer.json()["detail"].as_str().unwrap_or_default().to_string();
    assert!(detail.starts_with("sandbox a is disconnected since 2"), "{detail}");
    assert!(answer.header("retry-after").parse::<u32>().is_ok_and(|seconds| seconds > 0));
}

#[test]
fn a_session_that_ends_in_the_middle_of_a_call_ends_the_call() {
    let gateway = Gateway::start();
    let (session, _) = Dialler::begin(&gateway, "a");
    let call = thread::spawn({
        let api = gateway.api();
        move || api.get("/v1/sandboxes/a/dev-tasks")
    });
    let mut session = session;
    // The call's stream is open and nobody answers.
    while !matches!(session.receive(), tests::dialler::Received::Binary(_)) {}
    drop(session);
    let answer = call.join().expect("an answer");
    assert_eq!(answer.status(), 502, "{}", answer.json());
}

#[test]
fn a_supervisor_that_takes_no_streams_is_not_called() {
    let gateway = Gateway::start();
    let mut hello = tests::dialler::hello("a");
    hello.capabilities.clear();
    let (mut session, _) = Dialler::begin_with(&gateway, hello);
    assert_eq!(gateway.api().get("/v1/sandboxes/a/dev-tasks").status(), 501);
    session.send_binary(vec![1, 1, 0, 0, 0]);
    assert_eq!(session.close_code(), protocol::session::close::MALFORMED);
}
