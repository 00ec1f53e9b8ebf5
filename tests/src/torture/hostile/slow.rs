//! Thousands of connections that send a byte of a head now and then.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::{Victim, ask};
use crate::bench::Line;
use crate::processes::resident_kib;

/// A head has this long, and the machine as much again to get round to thousands of them.
const HEAD: Duration = Duration::from_secs(5);
const ROUND: Duration = Duration::from_millis(500);
/// Nobody waits for longer than this.
const GIVEN_UP: Duration = Duration::from_secs(60);

pub(super) fn measure(victim: &Victim, connections: usize) -> Vec<Line> {
    let before = resident_kib(victim.pid);
    let over = AtomicBool::new(false);
    let (closed, asked, most) = std::thread::scope(|scope| {
        let asking = scope.spawn(|| ask(victim, &over));
        let mut most = before;
        let closed = attack(victim, connections, || most = most.max(resident_kib(victim.pid)));
        over.store(true, Ordering::Relaxed);
        (closed, asking.join().expect("the asker"), most)
    });
    let late = closed.iter().filter(|open| **open > HEAD + ROUND).count() + connections - closed.len();
    let longest = closed.iter().max().copied().unwrap_or(GIVEN_UP);
    println!("{}: the last of {connections} slow connections was closed after {longest:.2?}", victim.name);
    let what = |what: &str| format!("{}: {connections} connections that send a byte a second, {what}", victim.name);
    let mut lines = vec![
        Line::new(what("open for longer than 5 s and a half"), 0.0, late as f64, "connections"),
        Line::new(what("memory that they take"), victim.room_kib, most - before, "KiB"),
    ];
    lines.extend(asked.lines(what));
    lines
}

/// Open them all, and send to each until it is closed; for how long each was open.
fn attack(victim: &Victim, connections: usize, mut look: impl FnMut()) -> Vec<Duration> {
    let mut open = Vec::new();
    for _ in 0..connections {
        let Ok(mut stream) = TcpStream::connect(victim.address) else { continue };
        // Those that the victim does not take any more at once are closed as well.
        let _ = stream.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\nA: ");
        let _ = stream.set_nonblocking(true);
        open.push((Instant::now(), stream));
    }
    let (begun, mut turn, mut closed) = (Instant::now(), Instant::now(), Vec::new());
    while !open.is_empty() && begun.elapsed() < GIVEN_UP {
        let sends = turn.elapsed() >= Duration::from_secs(1);
        if sends {
            turn = Instant::now();
        }
        open.retain_mut(|(since, stream)| {
            let gone = is_closed(stream) || (sends && stream.write_all(b"a").is_err());
            if gone {
                closed.push(since.elapsed());
            }
            !gone
        });
        look();
        std::thread::sleep(Duration::from_millis(50));
    }
    closed
}

fn is_closed(stream: &mut TcpStream) -> bool {
    match stream.read(&mut [0; 64]) {
        Ok(0) => true,
        // A word before the end is the end's.
        Ok(_) => false,
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    }
}
