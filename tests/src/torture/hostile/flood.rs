//! Frames that cost little to send and something to take: pings, empty continuations, messages of a byte, and a session's own frames, of
//! which it takes as many as come. Who sends them has a right to a session, or to a task's terminal.

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
/// The same of a session's own frames, which are read as JSON and may be answered: one core takes 20,000 beats in a second.
const CORE_SECONDS_OF_JSON: f64 = 5.0;
/// Of its memory.
const ROOM_KIB: f64 = 8.0 * 1024.0;

/// What is sent again and again.
struct Flood {
    name: &'static str,
    /// Goes before it once.
    first: &'static [u8],
    /// Masked with zeros (RFC 6455, 5.2).
    frame: &'static [u8],
    /// It is a session's own: read as JSON, and no reason to cut it.
    own: bool,
}

/// Of any WebSocket. A session is cut by the first message of one byte, which is no frame of its own; a terminal takes it as input.
const FLOODS: [Flood; 3] = [
    Flood { name: "pings", first: &[], frame: &[0x89, 0x80, 0, 0, 0, 0], own: false },
    Flood {
        name: "empty continuations",
        first: &[0x01, 0x80, 0, 0, 0, 0],
        frame: &[0x00, 0x80, 0, 0, 0, 0],
        own: false,
    },
    Flood { name: "messages of one byte", first: &[], frame: &[0x82, 0x81, 0, 0, 0, 0, b'x'], own: false },
];

/// Of a session: a beat is answered, and what is not known is skipped.
const OWN: [Flood; 2] = [
    Flood {
        name: "beats",
        first: &[],
        frame: b"\x81\xa5\0\0\0\0{\"t\":\"beat\",\"n\":1,\"d\":\"0123456789ab\"}",
        own: true,
    },
    Flood { name: "frames of an unknown type", first: &[], frame: b"\x81\x89\0\0\0\0{\"t\":\"x\"}", own: true },
];

pub(super) fn of_gateway(gateway: &Gateway, frames: usize) -> Vec<Line> {
    let victim =
        Victim { name: "gateway", address: gateway.address, pid: gateway.pid(), path: "/livez", room_kib: ROOM_KIB };
    let connect = || {
        let (mut session, _) = Dialler::begin(gateway, "a");
        session.stream().try_clone().expect("a socket")
    };
    FLOODS.iter().chain(&OWN).flat_map(|flood| attack(&victim, connect, flood, frames)).collect()
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

fn attack(victim: &Victim, connect: impl FnOnce() -> TcpStream, flood: &Flood, frames: usize) -> Vec<Line> {
    let Flood { name, own, .. } = *flood;
    let stream = connect();
    let (before, worked) = (resident_kib(victim.pid), core_seconds(victim.pid));
    let over = AtomicBool::new(false);
    let (sent, asked, most) = std::thread::scope(|scope| {
        let asking = scope.spawn(|| ask(victim, &over));
        // Answers are read, or the flood would only wait for room; the reader ends with the connection.
        let mut answers = stream.try_clone().expect("a socket");
        let reading = scope.spawn(move || while matches!(answers.read(&mut [0; 4096]), Ok(count) if count > 0) {});
        let mut most = before;
        let sent = send(&stream, flood, frames, || most = most.max(resident_kib(victim.pid)));
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
            if own { CORE_SECONDS_OF_JSON } else { CORE_SECONDS },
            worked * COUNTED / (sent as f64).max(COUNTED),
            "s",
        ),
        Line::new(what("memory that it takes"), victim.room_kib, most - before, "KiB"),
    ];
    if own {
        // What is cut at once floods nothing.
        lines.push(Line::at_least(what("frames that were taken"), frames as f64, sent as f64, "frames"));
    }
    lines.extend(asked.lines(what));
    lines
}

/// How many went before the other side had enough.
fn send(mut stream: &TcpStream, flood: &Flood, frames: usize, mut look: impl FnMut()) -> usize {
    let batch = flood.frame.repeat(BATCH);
    if stream.write_all(flood.first).is_err() {
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
