//! The listener under abuse: slow, large, broken and many requests are cut, and health answers all the while.

#[path = "http/deadlines.rs"]
mod deadlines;
#[path = "http/queue.rs"]
mod queue;

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::json;
use tests::http;
use tests::supervisor::Supervisor;
use tests::tasks::{Api, receive};
use tests::wait::{LONG, wait_until};

fn supervisor() -> (Supervisor, Api) {
    let supervisor = Supervisor::new().token().start();
    supervisor.wait_ready();
    let api = Api::of(&supervisor);
    (supervisor, api)
}

/// Send these bytes; the status of the answer, or `None` where the connection is closed without one.
fn status(api: &Api, bytes: &[u8]) -> Option<u16> {
    let mut stream = TcpStream::connect(api.address).expect("it listens");
    stream.set_read_timeout(Some(LONG)).expect("a socket");
    // It may close before all has been sent.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    receive(stream).ok().map(|(head, _)| head.status)
}

#[test]
fn a_head_that_does_not_end_is_cut() {
    let (supervisor, api) = supervisor();
    let starts: [&[u8]; 4] = [b"", b"GET /livez HTTP/1.1\r\n", b"POST /dev-tasks HTTP/1.1\r\nHost: x\r\nA: ", b"\r\n"];
    let mut streams: Vec<TcpStream> = starts
        .iter()
        .map(|start| {
            let mut stream = TcpStream::connect(api.address).expect("it listens");
            stream.write_all(start).expect("a fresh connection");
            stream
        })
        .collect();
    assert_eq!(supervisor.get("/readyz").status, 200);
    for stream in &mut streams {
        stream.set_read_timeout(Some(LONG)).expect("a socket");
        // A connection on which nothing was ever asked may be closed by a reset.
        let _ = stream.read_to_end(&mut Vec::new());
    }
    // A connection that is kept open after an answer has no more time than a new one.
    let mut idle = TcpStream::connect(api.address).expect("it listens");
    idle.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").expect("a fresh connection");
    idle.set_read_timeout(Some(LONG)).expect("a socket");
    let mut all = Vec::new();
    idle.read_to_end(&mut all).expect("it is closed from the other side");
    assert!(all.starts_with(b"HTTP/1.1 200"));
}

/// hyper's buffer, which a head has to itself.
const HEAD_BYTES: usize = 16 * 1024;

#[test]
fn a_head_of_just_less_than_16_kib_passes_and_one_of_just_more_is_refused() {
    let (_supervisor, api) = supervisor();
    let head = |length: usize| {
        let before = "GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\nA: ";
        let after = "\r\n\r\n";
        format!("{before}{}{after}", "x".repeat(length - before.len() - after.len()))
    };
    for (length, expected) in [(HEAD_BYTES - 1, 200), (HEAD_BYTES + 1, 431)] {
        let head = head(length);
        assert_eq!(head.len(), length);
        assert_eq!(status(&api, head.as_bytes()), Some(expected), "{length}");
    }
}

#[test]
fn a_head_that_is_too_large_is_refused() {
    let (supervisor, api) = supervisor();
    let long = "x".repeat(64 * 1024);
    for request in [
        format!("GET /livez HTTP/1.1\r\nHost: x\r\nA: {long}\r\n\r\n"),
        format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n"),
        format!("GET /livez HTTP/1.1\r\nHost: x\r\n{}\r\n", "a: b\r\n".repeat(1000)),
    ] {
        let status = status(&api, request.as_bytes());
        assert!(matches!(status, Some(400 | 414 | 431) | None), "{status:?}");
        assert_eq!(supervisor.get("/livez").status, 200);
    }
}

#[test]
fn requests_that_are_not_http_start_nothing() {
    let (supervisor, api) = supervisor();
    let token = "Authorization: Bearer CANARY-5f2b8c\r\n";
    let body = r#"{"argv":["true"]}"#;
    let post = |headers: &str, body: &str| format!("POST /dev-tasks HTTP/1.1\r\nHost: x\r\n{token}{headers}\r\n{body}");
    for (request, accepted) in [
        (post("Content-Length: 17\r\nContent-Length: 18\r\n", body), false),
        (post("Content-Length: 99\r\n", body), false),
        (post("Content-Length: -1\r\n", body), false),
        (post("Transfer-Encoding: chunked\r\n", "zz\r\n\r\n"), false),
        (post("Transfer-Encoding: chunked\r\n", "11\r\n{\"argv\":[\"true\"]}"), false),
        (post("Transfer-Encoding: chunked\r\nContent-Length: 17\r\n", body), false),
        (post("Transfer-Encoding: gzip\r\n", body), false),
        (post("Content-Length : 17\r\n", body), false),
        ("\0\0\0\r\n\r\n".into(), false),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(), false),
        ("GET /dev-tasks HTTP/9.9\r\n\r\n".into(), false),
        (post("Transfer-Encoding: chunked\r\n", "11\r\n{\"argv\":[\"true\"]}\r\n0\r\n\r\n"), true),
    ] {
        let before = api.list("").len();
        let status = status(&api, request.as_bytes());
        assert_eq!(status == Some(201), accepted, "{status:?} for {request:?}");
        assert_eq!(api.list("").len() - before, usize::from(accepted), "{request:?}");
    }
    assert_eq!(supervisor.metric("supervisor_panics_total"), Some(0.0));
}

#[test]
fn connections_that_ask_for_nothing_keep_nobody_out_and_who_has_asked_stays() {
    let (supervisor, api) = supervisor();
    let id = api.start(json!({"script": "read line; echo last", "stdin_open": true}));
    let (_, mut followed) = api.open("GET", &format!("/dev-tasks/{id}/logs?follow=true"), &[], b"").expect("an answer");
    // More than there are places, and none of them ends its head.
    let held: Vec<TcpStream> = (0..300)
        .map(|_| {
            let mut stream = TcpStream::connect(api.address).expect("it listens");
            // One that has gone already was let in and had to go.
            let _ = stream.write_all(b"GET /livez HTTP/1.1\r\nHo");
            stream
        })
        .collect();
    for _ in 0..20 {
        assert_eq!(http::get(api.address, "/readyz").expect("a place").status, 200);
    }
    assert!(supervisor.metric("supervisor_connections_refused_total") >= Some(172.0), "they had to go for others");
    drop(held);
    assert_eq!(api.post(&format!("/dev-tasks/{id}/stdin"), "x\n").status(), 204);
    let mut rest = String::new();
    followed.read_to_string(&mut rest).expect("it was never closed");
    assert_eq!(rest, "last\n");
}

#[test]
fn health_answers_while_connections_are_held_open_and_tasks_flood() {
    let (_supervisor, api) = supervisor();
    let ids: Vec<String> = (0..2).map(|_| api.start(json!({"script": "head -c 60000000 /dev/zero"}))).collect();
    let held: Vec<TcpStream> = (0..100)
        .map(|number| {
            let mut stream = TcpStream::connect(api.address).expect("it listens");
            let path = if number % 2 == 0 { "/dev-tasks" } else { "/livez" };
            stream.write_all(format!("POST {path} HTTP/1.1\r\nContent-Le").as_bytes()).expect("a fresh connection");
            stream
        })
        .collect();
    for _ in 0..20 {
        for path in ["/livez", "/readyz", "/healthz", "/metrics"] {
            assert_eq!(http::get(api.address, path).expect("an answer").status, 200, "{path}");
        }
    }
    drop(held);
    for id in ids {
        assert_eq!(api.wait_end(&id)["state"], "succeeded");
    }
}

#[test]
fn a_client_that_leaves_costs_nothing_and_its_task_goes_on() {
    let (supervisor, api) = supervisor();
    let id = api.start(json!({"script": "echo up; read line; echo done", "stdin_open": true}));
    api.wait_output(&id, "up");
    let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", supervisor.pid())).expect("ours").count();
    let before = descriptors();
    for path in [format!("/dev-tasks/{id}?wait=1h"), format!("/dev-tasks/{id}/logs?follow=true")] {
        for _ in 0..20 {
            let mut stream = TcpStream::connect(api.address).expect("it listens");
            let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer CANARY-5f2b8c\r\n\r\n");
            stream.write_all(request.as_bytes()).expect("a fresh connection");
        }
    }
    wait_until("its descriptors to be closed", || descriptors() <= before + 1);
    api.post(&format!("/dev-tasks/{id}/stdin/close"), "");
    assert_eq!(api.wait_end(&id)["state"], "succeeded");
}
