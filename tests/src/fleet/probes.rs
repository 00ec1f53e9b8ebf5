//! How long the gateway takes to answer while a fleet beats: a few sessions by hand, which measure.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use protocol::session::{Class, Data, Entry, FromGateway, FromSupervisor};
use serde_json::json;

use crate::control_plane::Gateway;
use crate::dialler::{Dialler, entry_of};

/// How many there are.
const PROBES: usize = 4;
/// Between two questions of one of them: no part of a second, so that they do not meet the same beats again and again.
const PAUSE: Duration = Duration::from_millis(53);
/// What a session of theirs has to deliver before a beat, KiB: less than the gateway takes at once.
pub(super) const BACKLOG: usize = 64;
/// Bytes of a record of it, and records in a frame: about as much as the link puts into one.
const RECORD: usize = 2048;
const IN_A_FRAME: usize = 16;

/// What is asked in each turn beside a beat, by the turn's number; how long the answer took.
pub(super) type Question = fn(&mut Dialler, u64) -> Duration;

/// They ask until they are told to stop.
pub(super) struct Probes {
    over: Arc<AtomicBool>,
    asking: Vec<JoinHandle<Times>>,
}

/// Seconds.
#[derive(Default)]
pub(super) struct Times {
    /// From a beat to its answer.
    pub(super) beats: Vec<f64>,
    /// Of the other question.
    pub(super) others: Vec<f64>,
}

/// The sandboxes that are probes.
pub(super) fn ids() -> impl Iterator<Item = String> {
    (0..PROBES).map(|number| format!("probe-{number}"))
}

impl Probes {
    /// At each of these gateways some, which ask this beside beats.
    pub(super) fn start(gateways: &[Gateway], other: Question) -> Probes {
        let over = Arc::<AtomicBool>::default();
        let ask_all = |(id, gateway): (String, &Gateway)| {
            let (mut session, over) = (Dialler::begin(gateway, &id).0, over.clone());
            std::thread::spawn(move || ask(&mut session, other, &over))
        };
        Probes { asking: ids().zip(gateways.iter().cycle()).map(ask_all).collect(), over }
    }

    /// What they saw.
    pub(super) fn stop(mut self) -> Times {
        self.over.store(true, Ordering::Relaxed);
        let mut all = Times::default();
        for times in self.asking.drain(..).map(|probe| probe.join().expect("its session lasts")) {
            all.beats.extend(times.beats);
            all.others.extend(times.others);
        }
        all
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        // They would miss the gateways that end next.
        self.asking.drain(..).for_each(|probe| drop(probe.join()));
    }
}

/// A beat and the other question in turn.
fn ask(session: &mut Dialler, other: Question, over: &AtomicBool) -> Times {
    let mut times = Times::default();
    for turn in 1.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        sleep(PAUSE);
        times.beats.push(beat(session, turn).as_secs_f64());
        sleep(PAUSE);
        times.others.push(other(session, turn).as_secs_f64());
    }
    times
}

/// From a beat to its answer.
fn beat(session: &mut Dialler, turn: u64) -> Duration {
    let (asked, number) = (Instant::now(), 2 * turn - 1);
    send_beat(session, number);
    session.receive_until(|frame| matches!(frame, FromGateway::Beat { n, .. } if n == number).then_some(()));
    asked.elapsed()
}

/// From a lifecycle record to its acknowledgement, which follows the commit.
pub(super) fn record(session: &mut Dialler, turn: u64) -> Duration {
    let (asked, seq) = (Instant::now(), turn as i64);
    session.send_records(Class::Lifecycle, seq..=seq);
    session.until_acknowledged(Class::Lifecycle, seq);
    asked.elapsed()
}

/// From the first byte of a backlog to the answer to a beat behind all of it: a beat may be due as it begins to go. The gateway has stored it
/// before the next question.
pub(super) fn beat_behind_a_backlog(session: &mut Dialler, turn: u64) -> Duration {
    let count = (BACKLOG * 1024 / RECORD) as i64;
    let (number, last) = (2 * turn, turn as i64 * count);
    let body = json!({"text": "x".repeat(RECORD)});
    let records: Vec<Entry> = (last - count + 1..=last).map(|seq| entry_of(seq, &body)).collect();
    let asked = Instant::now();
    for records in records.chunks(IN_A_FRAME) {
        session.send(&FromSupervisor::Data(Data { class: Class::Logs, records: records.to_vec() }));
    }
    send_beat(session, number);
    let (mut answered, mut stored) = (None, false);
    // In either order.
    session.receive_until(|frame| {
        match frame {
            FromGateway::Beat { n, .. } if n == number => answered = Some(asked.elapsed()),
            FromGateway::Ack { acks, .. } => stored |= acks.get(&Class::Logs).is_some_and(|seq| *seq >= last),
            _ => {}
        }
        answered.filter(|_| stored)
    })
}

fn send_beat(session: &mut Dialler, n: u64) {
    session.send(&FromSupervisor::Beat { n, d: "000000000000".into() });
}
