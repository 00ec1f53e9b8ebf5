//! Two for each sandbox that both believe to be it, as a Pod that a partition hid and the one in its place: both dial any of three gateways
//! again and again, and go on after the other has been welcomed, for as long as they are let. Meanwhile gateways and their database are
//! killed, stopped and drained. Whatever is stored, acknowledged or answered has to come from the newest session.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use protocol::session::{Class, Data, FromGateway, FromSupervisor, Welcome};
use serde_json::{Value, json};

use super::chance::Chance;
use super::gateways::{Fault, Several};
use crate::bench::Line;
use crate::control_plane::USER;
use crate::dialler::{Dialler, Received, Server, entry_of, response};
use crate::tasks::Api;

/// Each has two supervisors.
const SANDBOXES: [&str; 20] =
    ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q", "r", "s", "t"];
/// Between two records of a session.
const PACE: Duration = Duration::from_millis(50);
/// A run of so many faults is a long one, and goes on until it has so many sessions beside another one (goal 6 of reliability.md), for twice as
/// many faults at most.
const MANY_FAULTS: usize = 100;
const MANY: usize = 10_000;
/// An older session is told within this, also where its gateway hears of the newer by the database only.
const TOLD: Duration = Duration::from_secs(2);

/// What one of a sandbox's sessions, clients or calls saw.
#[derive(Default)]
struct Seen {
    sessions: usize,
    /// Welcomed by a number that was not above one which had been welcomed before the dial.
    not_newer: usize,
    /// By number, the session that was told that this record of its own is stored.
    acknowledged: BTreeMap<i64, i64>,
    /// Told to two sessions.
    acknowledged_twice: usize,
    calls: usize,
    /// By a session that another one had followed [`TOLD`] before the call.
    answered_late: usize,
}

/// The sessions of a sandbox of which its twins and callers know.
#[derive(Default)]
struct Known {
    open: AtomicUsize,
    /// Welcomed while the other one's was open.
    duplicates: AtomicUsize,
    newest: AtomicI64,
    welcomed: Mutex<Vec<(Instant, i64)>>,
}

impl Known {
    fn welcome(&self, fence: i64) {
        self.newest.fetch_max(fence, Ordering::SeqCst);
        self.welcomed.lock().expect("nobody panics").push((Instant::now(), fence));
    }

    /// Of those that had been welcomed before, whichever is newest.
    fn newest(&self) -> i64 {
        self.newest.load(Ordering::SeqCst)
    }

    /// The same of those that were welcomed so long ago.
    fn newest_before(&self, ago: Duration) -> i64 {
        let mut welcomed = self.welcomed.lock().expect("nobody panics");
        let newest = welcomed.iter().filter(|(at, _)| at.elapsed() >= ago).map(|(_, fence)| *fence).max();
        // Older ones are asked for no more.
        welcomed.retain(|(at, fence)| at.elapsed() < ago || Some(*fence) >= newest);
        newest.unwrap_or(0)
    }
}

/// So many faults.
pub fn measure(faults: usize) -> Vec<Line> {
    let Some(mut several) = Several::start() else { return Vec::new() };
    let mut chance = Chance::seeded(0x6a09_e667_f3bc_c909);
    let (front, over) = (several.front.address, AtomicBool::new(false));
    let known = SANDBOXES.map(|_| Known::default());
    let duplicates = || known.iter().map(|known| known.duplicates.load(Ordering::Relaxed)).sum::<usize>();
    // In each fault somewhere a session goes on beside its successor.
    let least = if faults < MANY_FAULTS { faults } else { MANY };
    let mut suffered = 0;
    let seen: Vec<Vec<Seen>> = std::thread::scope(|scope| {
        let over = &over;
        let threads: Vec<_> = SANDBOXES
            .iter()
            .zip(&known)
            .map(|(id, known)| {
                let twins = [chance.another(), chance.another()]
                    .map(|mut chance| scope.spawn(move || live(id, front, known, over, &mut chance)));
                twins.into_iter().chain([scope.spawn(move || call(id, front, known, over))]).collect::<Vec<_>>()
            })
            .collect();
        let ends = Ends(over);
        while suffered < faults || (duplicates() < least && suffered < 2 * faults) {
            chance.pause(3000);
            several.befall(Fault::ALL[suffered % Fault::ALL.len()], &mut chance);
            suffered += 1;
        }
        drop(ends);
        let join = |threads: Vec<std::thread::ScopedJoinHandle<'_, Seen>>| {
            threads.into_iter().map(|thread| thread.join().expect("one of ours")).collect()
        };
        threads.into_iter().map(join).collect()
    });
    let mut account = Account { duplicates: duplicates(), ..Account::default() };
    for (id, seen) in SANDBOXES.iter().zip(&seen) {
        account.count(seen, &several.gateways[0].events(id));
    }
    account.lines(suffered, least)
}

/// All end with it, also where a fault cannot be made: otherwise the scope would wait for them for ever.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// One of two: dial, and send until the gateway ends it; again.
fn live(id: &str, front: SocketAddr, known: &Known, over: &AtomicBool, chance: &mut Chance) -> Seen {
    let mut seen = Seen::default();
    while !over.load(Ordering::Relaxed) {
        let before = known.newest();
        match Dialler::try_begin(front, id) {
            Ok(Ok((session, welcome))) => {
                known.welcome(welcome.fence);
                seen.sessions += 1;
                let beside = known.open.fetch_add(1, Ordering::SeqCst) > 0;
                known.duplicates.fetch_add(usize::from(beside), Ordering::Relaxed);
                seen.not_newer += usize::from(welcome.fence <= before);
                hold(session, &welcome, known, over, &mut seen);
                known.open.fetch_sub(1, Ordering::SeqCst);
            }
            Ok(Err(wait)) => std::thread::sleep(wait.min(Duration::from_secs(1))),
            Err(_) => {}
        }
        chance.pause(150);
    }
    seen
}

/// One session, as long as it is let.
fn hold(mut session: Dialler, welcome: &Welcome, known: &Known, over: &AtomicBool, seen: &mut Seen) {
    let (fence, mut server) = (welcome.fence, Server::default());
    let answer = |_: &str| response("200 OK", json!({"fence": fence}).to_string().as_bytes());
    let first = welcome.next.get(&Class::Logs).copied().unwrap_or(1);
    let mut told = first;
    for seq in first.. {
        // Looked at before it is sent: what is sent afterwards must not be stored.
        session.send(&record(seq, fence, known.newest() > fence));
        let sent = Instant::now();
        while let Some(left) = PACE.checked_sub(sent.elapsed()).filter(|left| !left.is_zero()) {
            match session.receive_within(left) {
                Some(Received::Frame(FromGateway::Ack { acks, .. })) => {
                    let acked = acks.get(&Class::Logs).copied().unwrap_or(0).min(seq);
                    (told..=acked).for_each(|seq| {
                        seen.acknowledged_twice += usize::from(seen.acknowledged.insert(seq, fence).is_some());
                    });
                    told = told.max(acked + 1);
                }
                Some(Received::Binary(message)) => {
                    server.receive(&message, &answer).into_iter().for_each(|message| session.send_binary(message));
                }
                Some(Received::Closed(_) | Received::Lost) => return,
                Some(Received::Frame(_)) | None => {}
            }
        }
        if over.load(Ordering::Relaxed) {
            return;
        }
    }
}

fn record(seq: i64, fence: i64, behind: bool) -> FromSupervisor {
    let record = entry_of(seq, &json!({"fence": fence, "behind": behind}));
    FromSupervisor::Data(Data { class: Class::Logs, records: vec![record] })
}

/// Somebody who asks the sandbox by any gateway, and is told which session answered.
fn call(id: &str, front: SocketAddr, known: &Known, over: &AtomicBool) -> Seen {
    let (mut seen, api) = (Seen::default(), Api::at(front, USER).sandbox(id));
    while !over.load(Ordering::Relaxed) {
        let least = known.newest_before(TOLD);
        if let Ok(answer) = api.try_call("GET", "/dev-tasks", &[], b"")
            && let Some(fence) = answer.json()["fence"].as_i64()
        {
            seen.calls += 1;
            if fence < least {
                seen.answered_late += 1;
                println!("{id}: session {fence} answered, {least} had been welcomed {TOLD:?} before the call");
            }
        }
        std::thread::sleep(PACE);
    }
    seen
}

/// What became of all.
#[derive(Default)]
struct Account {
    all: Seen,
    duplicates: usize,
    stored: usize,
    /// Under a number that another one has.
    doubled: usize,
    /// Stored, and sent by a session that another one had followed.
    behind: usize,
    /// Told to a session, and not stored as its.
    anothers: usize,
}

impl Account {
    fn count(&mut self, seen: &[Seen], events: &[Value]) {
        let stored: BTreeMap<i64, &Value> =
            events.iter().filter_map(|event| Some((event["seq"].as_i64()?, &event["record"]["body"]))).collect();
        self.stored += events.len();
        self.doubled += events.len() - stored.len();
        self.behind += events.iter().filter(|event| event["record"]["body"]["behind"] == true).count();
        for one in seen {
            self.all.sessions += one.sessions;
            self.all.not_newer += one.not_newer;
            self.all.acknowledged_twice += one.acknowledged_twice;
            self.all.calls += one.calls;
            self.all.answered_late += one.answered_late;
            let anothers = |(seq, fence): &(&i64, &i64)| stored.get(seq).is_none_or(|body| body["fence"] != **fence);
            self.anothers += one.acknowledged.iter().filter(anothers).count();
        }
    }

    /// After so many faults; of so many sessions beside another one.
    fn lines(&self, faults: usize, least: usize) -> Vec<Line> {
        let all = &self.all;
        let of = format!(
            "{} sessions, {} of them beside another that was open, {faults} faults of three gateways and their database",
            all.sessions, self.duplicates
        );
        let records = format!("of {} records", self.stored);
        let line = |what: String, count: usize, unit| Line::new(format!("{of}: {what}"), 0.0, count as f64, unit);
        let tried = |what: &str, goal: usize, count: usize, unit| {
            Line::at_least(format!("{faults} faults: {what}"), goal as f64, count as f64, unit)
        };
        vec![
            tried("sessions that began beside another one of their sandbox", least, self.duplicates, "sessions"),
            tried("calls that were answered", faults, all.calls, "calls"),
            line(
                format!("sent by a session that another one had followed, and stored, {records}"),
                self.behind,
                "records",
            ),
            line(format!("told to a session to be stored, and not stored as its, {records}"), self.anothers, "records"),
            line(format!("told twice to be stored, {records}"), all.acknowledged_twice, "records"),
            line(format!("stored under a number that another one has, {records}"), self.doubled, "records"),
            line("no newer than one that had been welcomed before its dial".into(), all.not_newer, "sessions"),
            line(
                format!("answered by a session that another one had followed 2 s before, of {}", all.calls),
                all.answered_late,
                "calls",
            ),
        ]
    }
}
