//! Frames that cost little to send and something to take: pings, empty continuations, messages of a byte. Who sends them has a right to a
//! session, or to a task's terminal.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use super::{Victim, ask, core_seconds};
use crate::attach::{UPGRADE, handshake};
use crate::bench::Line;
use crate::control_plane::Gateway;
use crate::dialler::Dialler;
use crate::processes::resident_kib;
use crate::supervisor::Supervisor;
use crate::tasks::Api;

/// Sent at a time.
const BATCH: usize = 64;
/// Frames for which the cost is told; of fewer, because the flood was cut, it is the whole cost.
const COUNTED: f64 = 1e5;
/// Of the attacked one's time, for so many.
const CORE_SECONDS: f64 = 1.0;
/// Of its memory.
const ROOM_KIB: f64 = 8.0 * 1024.0;

/// What is sent again and again: its name, what goes before it once, and the frame, masked with zeros (RFC 6455, 5.2).
const FLOODS: [(&str, &[u8], &[u8]); 3] = [
    ("pings", &[], &[0x89, 0x80, 0, 0, 0, 0]),
    ("empty continuations", &[0x01, 0x80, 0, 0, 0, 0], &[0x00, 0x80, 0, 0, 0, 0]),
    ("messages of one byte", &[], &[0x82, 0x81, 0, 0, 0, 0, b'x']),
];

pub(super) fn of_gateway(gateway: &Gateway, frames: usize) -> Vec<Line> {
    let victim =
        Victim { name: "gateway", address: gateway.address, pid: gateway.pid(), path: "/livez", room_kib: ROOM_KIB };
    let connect = || {
        let (mut session, _) = Dialler::begin(gateway, "a");
        session.stream().try_clone().expect("a socket")
    };
    FLOODS.iter().flat_map(|flood| attack(&victim, connect, flood, frames)).collect()
}

pub(super) fn of_supervisor(supervisor: &Supervisor, frames: usize) -> Vec<Line> {
    let api = Api::of(supervisor);
    let task = api.start(json!({"script": "exec cat >/dev/null", "stdin_open": true}));
    let path = format!("/dev-tasks/{task}/attach");
    let victim =
        Victim { name: "supervisor", address: api.address, pid: supervisor.pid(), path: "/livez", room_kib: ROOM_KIB };
    let connect = || {
        let (head, stream) = handshake(&api, &path, &UPGRADE).expect("an answer");
        assert_eq!(head.status, 101, "{head:?}");
        stream
    };
    FLOODS.iter().flat_map(|flood| attack(&victim, connect, flood, frames)).collect()
}

fn attack(
    victim: &Victim,
    connect: impl FnOnce() -> TcpStream,
    (name, first, frame): &(&str, &[u8], &[u8]),
    frames: usize,
) -> Vec<Line> {
    let stream = connect();
    let (before, worked) = (resident_kib(victim.pid), core_seconds(victim.pid));
    let over = AtomicBool::new(false);
    let (sent, asked, most) = std::thread::scope(|scope| {
        let asking = scope.spawn(|| ask(victim, &over));
        // Answers are read, or the flood would only wait for room; the reader ends with the connection.
        let mut answers = stream.try_clone().expect("a socket");
        let reading = scope.spawn(move || while matches!(answers.read(&mut [0; 4096]), Ok(count) if count > 0) {});
        let mut most = before;
        let sent = send(&stream, first, frame, frames, || most = most.max(resident_kib(victim.pid)));
        // All that was sent is worked on before the end of it is seen.
        let _ = stream.shutdown(std::net::Shutdown::Write);
        reading.join().expect("the reader");
        over.store(true, Ordering::Relaxed);
        let asked = asking.join().expect("the asker");
        (sent, asked, most)
    });
    let worked = core_seconds(victim.pid) - worked;
    println!("{}: {sent} of {frames} {name} were taken, {worked:.2} s of a core", victim.name);
    let what = |what: &str| format!("{}: a flood of {name}, {what}", victim.name);
    let mut lines = vec![
        Line::new(
            what("core-seconds for 100,000 frames, or until it is cut"),
            CORE_SECONDS,
            worked * COUNTED / (sent as f64).max(COUNTED),
            "s",
        ),
        Line::new(what("memory that it takes"), victim.room_kib, most - before, "KiB"),
    ];
    lines.extend(asked.lines(what));
    lines
}

/// How many went before the other side had enough.
fn send(mut stream: &TcpStream, first: &[u8], frame: &[u8], frames: usize, mut look: impl FnMut()) -> usize {
    let batch = frame.repeat(BATCH);
    if stream.write_all(first).is_err() {
        return 0;
    }
    for sent in (0..frames).step_by(BATCH) {
        if stream.write_all(&batch).is_err() {
            return sent;
        }
        if sent % (BATCH * 64) == 0 {
            look();
        }
    }
    frames
}
