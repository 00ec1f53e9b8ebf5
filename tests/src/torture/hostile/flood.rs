//! Frames that cost little to send and something to take: pings, empty continuations, messages of a byte, and a session's own frames, of
//! which it takes as many as come. Who sends them has a right to a session, or to a task's terminal. A word goes behind each flood: that it is
//! obeyed shows that all before it was taken, since what is cut at once floods nothing.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};

use protocol::attach::Ask;
use protocol::session::{FromGateway, FromSupervisor, close, encode};
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocket};

use super::{Victim, ask, core_seconds};
use crate::attach::{UPGRADE, handshake};
use crate::bench::Line;
use crate::control_plane::Gateway;
use crate::dialler::Dialler;
use crate::processes::resident_kib;
use crate::supervisor::Supervisor;
use crate::tasks::Api;
use crate::wait::LONG;

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
/// First bytes of frames (RFC 6455, 5.2): a whole text, a whole message of bytes, the end of one that has begun.
const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
const END: u8 = 0x80;
/// The beat behind a flood; none of a flood has this number.
const BEHIND: u64 = 4711;

/// What is sent again and again.
struct Flood {
    name: &'static str,
    /// Goes before it once.
    first: &'static [u8],
    /// Masked with zeros (RFC 6455, 5.2).
    frame: &'static [u8],
    /// The word behind it is in a frame that begins so.
    last: u8,
    /// It is a session's own: read as JSON.
    own: bool,
}

/// Of any WebSocket.
const FLOODS: [Flood; 3] = [
    Flood { name: "pings", first: &[], frame: &[0x89, 0x80, 0, 0, 0, 0], last: TEXT, own: false },
    Flood {
        name: "empty continuations",
        first: &[0x01, 0x80, 0, 0, 0, 0],
        frame: &[0x00, 0x80, 0, 0, 0, 0],
        last: END,
        own: false,
    },
    Flood {
        name: "messages of one byte",
        first: &[],
        frame: &[BINARY, 0x81, 0, 0, 0, 0, b'x'],
        last: TEXT,
        own: false,
    },
];

/// Of a session: a beat is answered, and what is not known is skipped.
const OWN: [Flood; 2] = [
    Flood {
        name: "beats",
        first: &[],
        frame: b"\x81\xa5\0\0\0\0{\"t\":\"beat\",\"n\":1,\"d\":\"0123456789ab\"}",
        last: TEXT,
        own: true,
    },
    Flood {
        name: "frames of an unknown type",
        first: &[],
        frame: b"\x81\x89\0\0\0\0{\"t\":\"x\"}",
        last: TEXT,
        own: true,
    },
];

/// What becomes of who has sent a flood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// A session goes on: a beat behind the flood is answered.
    Answered,
    /// A terminal has let go, as it was told behind the flood.
    LetGo,
    /// It is cut, with this code.
    Cut(u16),
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fate::Answered => write!(f, "a beat behind it is answered"),
            Fate::LetGo => write!(f, "a word behind it is obeyed"),
            Fate::Cut(code) => write!(f, "it is cut with {code}"),
        }
    }
}

pub(super) fn of_gateway(gateway: &Gateway, frames: usize) -> Vec<Line> {
    let victim =
        Victim { name: "gateway", address: gateway.address, pid: gateway.pid(), path: "/livez", room_kib: ROOM_KIB };
    let connect = || {
        let (mut session, _) = Dialler::begin(gateway, "a");
        session.stream().try_clone().expect("a socket")
    };
    let beat = encode(&FromSupervisor::Beat { n: BEHIND, d: "0123456789ab".into() });
    let attacks = FLOODS.iter().chain(&OWN).flat_map(|flood| {
        // Bytes of a session are frames of its streams, and one byte is none (docs/features/gateway.md).
        let fate = if flood.frame[0] == BINARY { Fate::Cut(close::MALFORMED) } else { Fate::Answered };
        attack(&victim, connect, flood, frames, (beat.as_str(), fate))
    });
    attacks.collect()
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
    let word = encode(&Ask { detach: true, ..Ask::default() });
    let attacks = FLOODS.iter().flat_map(|flood| attack(&victim, connect, flood, frames, (word.as_str(), Fate::LetGo)));
    attacks.collect()
}

/// Send a flood and a word behind it; this has to become of it.
fn attack(
    victim: &Victim,
    connect: impl FnOnce() -> TcpStream,
    flood: &Flood,
    frames: usize,
    (word, fate): (&str, Fate),
) -> Vec<Line> {
    let Flood { name, own, .. } = *flood;
    let stream = connect();
    // Some floods take a minute, and nothing comes meanwhile.
    stream.set_read_timeout(Some(10 * LONG)).expect("a socket");
    let (before, worked) = (resident_kib(victim.pid), core_seconds(victim.pid));
    let over = AtomicBool::new(false);
    let (sent, seen, asked, most) = std::thread::scope(|scope| {
        let asking = scope.spawn(|| ask(victim, &over));
        // Answers are read, or the flood would only wait for room; the listener ends with the connection.
        let ear = Ear(stream.try_clone().expect("a socket"));
        let listening = scope.spawn(|| listen(ear));
        let mut most = before;
        let sent = send(&stream, flood, word, frames, || most = most.max(resident_kib(victim.pid)));
        // All that was sent is worked on before the end of it is seen.
        let _ = stream.shutdown(Shutdown::Write);
        let seen = listening.join().expect("the listener");
        over.store(true, Ordering::Relaxed);
        let asked = asking.join().expect("the asker");
        (sent, seen, asked, most)
    });
    let worked = core_seconds(victim.pid) - worked;
    println!("{}: {sent} of {frames} {name} were taken, {worked:.2} s of a core; {seen:?}", victim.name);
    let what = |what: &str| format!("{}: a flood of {name}, {what}", victim.name);
    let mut lines = vec![
        Line::new(
            what("core-seconds for 100,000 frames, or until it is cut"),
            if own { CORE_SECONDS_OF_JSON } else { CORE_SECONDS },
            worked * COUNTED / (sent as f64).max(COUNTED),
            "s",
        ),
        Line::new(what("memory that it takes"), victim.room_kib, most - before, "KiB"),
        Line::at_least(what(&fate.to_string()), 1.0, f64::from(seen == Some(fate)), "times"),
    ];
    if !matches!(fate, Fate::Cut(_)) {
        lines.push(Line::at_least(what("frames that were taken"), frames as f64, sent as f64, "frames"));
    }
    lines.extend(asked.lines(what));
    lines
}

/// How many went before the other side had enough; of all of them, the word went as well.
fn send(mut stream: &TcpStream, flood: &Flood, word: &str, frames: usize, mut look: impl FnMut()) -> usize {
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
    let head = [flood.last, 0x80 | word.len() as u8, 0, 0, 0, 0];
    // Whether it was taken shows what comes of it.
    let _ = stream.write_all(&[&head[..], word.as_bytes()].concat());
    frames
}

/// What becomes of the connection, as far as that is said before it ends.
fn listen(ear: Ear) -> Option<Fate> {
    let mut socket = WebSocket::from_raw_socket(ear, Role::Client, None);
    let mut fate = None;
    while let Ok(message) = socket.read() {
        let said = match message {
            Message::Close(Some(frame)) if u16::from(frame.code) == 1000 => Some(Fate::LetGo),
            Message::Close(Some(frame)) => Some(Fate::Cut(frame.code.into())),
            Message::Text(text) => match FromGateway::decode(&text) {
                Ok(FromGateway::Beat { n: BEHIND, .. }) => Some(Fate::Answered),
                _ => None,
            },
            _ => None,
        };
        fate = fate.or(said);
    }
    fate
}

/// It only listens: what the library would answer might come into the middle of a frame of the flood.
struct Ear(TcpStream);

impl Read for Ear {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into)
    }
}

impl Write for Ear {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
