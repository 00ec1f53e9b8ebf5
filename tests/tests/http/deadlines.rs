//! How long a client may take, as long as it really is: the cases wait beside each other.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};
use serde_json::json;
use tests::tasks::{Answer, Api, receive};
use tests::wait::{LONG, within};

use super::supervisor;

/// Longer than any of these deadlines.
const PATIENT: Duration = Duration::from_secs(200);

/// Send the beginning, then a byte of `drip` at a time until the other side has had enough; what it said, and when.
fn drip(api: &Api, beginning: &str, drip: u8, pause: Duration) -> (io::Result<Answer>, Duration) {
    let begun = Instant::now();
    let mut stream = TcpStream::connect(api.address).expect("it listens");
    stream.write_all(beginning.as_bytes()).expect("a fresh connection");
    let mut writer = stream.try_clone().expect("a socket");
    stream.set_read_timeout(Some(PATIENT)).expect("a socket");
    // It ends with the connection; its sleeps are the pace of a slow client.
    thread::spawn(move || {
        while writer.write_all(&[drip]).is_ok() {
            thread::sleep(pause);
        }
    });
    let answer = receive(stream.try_clone().expect("a socket")).and_then(|(head, mut rest)| {
        let mut body = Vec::new();
        rest.read_to_end(&mut body)?;
        Ok(Answer { head, body })
    });
    let taken = begun.elapsed();
    let _ = stream.shutdown(std::net::Shutdown::Both);
    (answer, taken)
}

#[test]
fn a_head_has_five_seconds_however_it_trickles() {
    let (_supervisor, api) = supervisor();
    let pauses = [Duration::from_millis(100), Duration::from_secs(3)];
    let trickled: Vec<_> = thread::scope(|scope| {
        let start = |pause| {
            let api = &api;
            scope.spawn(move || drip(api, "GET /livez HTTP/1.1\r\nHost: x\r\nA: ", b'a', pause))
        };
        let started: Vec<_> = pauses.map(start).into_iter().collect();
        started.into_iter().map(|case| case.join().expect("a case")).collect()
    });
    for (answer, taken) in trickled {
        // A busy machine is late, not by so much.
        assert!((5..20).contains(&taken.as_secs()), "cut after {taken:?}");
        let status = answer.map(|answer| answer.status());
        eprintln!("{status:?} after {taken:?}");
        assert!(status.is_err(), "a head is no request yet, so there is no answer: {status:?}");
    }
    // Who takes a good part of them and comes to an end is answered.
    let mut late = TcpStream::connect(api.address).expect("it listens");
    late.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n").expect("a fresh connection");
    thread::sleep(Duration::from_millis(2500));
    late.write_all(b"\r\n").expect("it is still open");
    assert_eq!(receive(late).expect("an answer").0.status, 200);
}

#[test]
fn a_body_that_comes_too_slowly_is_answered_408_and_leaves_nothing() {
    let (supervisor, api) = supervisor();
    // Just over what has 30 s and no more: half a minute is added at 32 KiB/s.
    let large = 1024 * 1024 + 1;
    let begin = |method: &str, path: &str, length: usize| {
        let token = api.authorization();
        format!("{method} {path} HTTP/1.1\r\nHost: x\r\n{token}Content-Length: {length}\r\n\r\n")
    };
    let (often, never) = (Duration::from_millis(500), PATIENT);
    let (short, long) = (Duration::from_secs(30), Duration::from_secs(30 + 32));
    let cases = [
        ("a small body that trickles", begin("POST", "/dev-tasks", 1000), often, short),
        ("a large body that trickles", begin("POST", "/dev-tasks", large), often, long),
        ("a signal that does not come", begin("POST", "/dev-tasks/x/signal", 100), never, short),
        ("a file that trickles", begin("PUT", "/files/slow", large), often, long),
        ("a file that stops", begin("PUT", "/files/stopped", 1000), never, short),
        ("an archive that trickles", begin("PUT", "/workspace-archives/slow", large), often, long),
    ];
    thread::scope(|scope| {
        for (what, beginning, pause, least) in &cases {
            let api = &api;
            scope.spawn(move || {
                let (answer, taken) = drip(api, beginning, b' ', *pause);
                let answer = answer.unwrap_or_else(|error| panic!("{what}: {error} after {taken:?}"));
                eprintln!("{what}: {} after {taken:?}", answer.json());
                assert_eq!(
                    (answer.status(), answer.header("content-type")),
                    (408, "application/problem+json"),
                    "{what}"
                );
                assert!(taken >= *least, "{what} had only {taken:?}");
            });
        }
        // All the while others are served.
        scope.spawn(|| {
            for _ in 0..10 {
                assert_eq!(api.run(json!({"argv": ["true"]}))["state"], "succeeded");
            }
        });
    });
    let left = std::fs::read_dir(&supervisor.paths().workspace).expect("our own directory").count();
    assert_eq!(left, 0, "nothing of a file that did not come whole");
    assert_eq!(api.call("DELETE", "/workspace-archives/slow", &[], b"").status(), 404);
    assert_eq!(api.list("").len(), 10, "and no task");
}

/// Whether the other side still has this connection, from the kernel's table (proc(5)): the client is not told of an end
/// before it asks for more.
fn is_open(stream: &TcpStream) -> bool {
    let port = |address: io::Result<std::net::SocketAddr>| format!(":{:04X}", address.expect("connected").port());
    let (ours, theirs) = (port(stream.local_addr()), port(stream.peer_addr()));
    let table = std::fs::read_to_string("/proc/net/tcp").expect("proc is mounted");
    let ends = |line: &str| line.split_whitespace().skip(1).take(2).map(str::to_string).collect::<Vec<_>>();
    table
        .lines()
        .map(ends)
        .any(|ends| matches!(&ends[..], [local, remote] if local.ends_with(&theirs) && remote.ends_with(&ours)))
}

#[test]
fn a_reader_that_takes_nothing_for_two_minutes_is_cut_and_one_that_takes_little_is_not() {
    let (_supervisor, api) = supervisor();
    let bytes: u64 = 40_000_000;
    let task = api.run(json!({"task_id": "much", "script": format!("head -c {bytes} /dev/zero")}));
    assert_eq!(task["state"], "succeeded");
    let open = || {
        let mut stream = TcpStream::connect(api.address).expect("it listens");
        // Little fits in between, so that it waits for its reader.
        setsockopt(&stream, sockopt::RcvBuf, &65_536).expect("a socket");
        stream.set_read_timeout(Some(LONG)).expect("a socket");
        let token = api.authorization();
        write!(stream, "GET /dev-tasks/much/logs HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{token}\r\n")
            .expect("a fresh connection");
        stream
    };
    let (mut stalled, mut slow) = (open(), open());
    let begun = Instant::now();
    let mut taken = vec![0; 200_000];
    let cut = within(PATIENT, || {
        slow.read_exact(&mut taken).expect("who reads is not cut");
        // Its pace; at the end there is something left.
        thread::sleep(Duration::from_secs(1));
        (!is_open(&stalled)).then(|| begun.elapsed())
    });
    eprintln!("cut after {cut:?}");
    assert!(cut.expect("it is cut") >= Duration::from_secs(120));
    let rest = stalled.read_to_end(&mut Vec::new());
    assert!(rest.is_err(), "it was cut in the middle: {rest:?}");
    let mut left = Vec::new();
    slow.read_to_end(&mut left).expect("the other has it whole");
    assert!(left.ends_with(b"\r\n0\r\n\r\n"), "to its last chunk");
}
