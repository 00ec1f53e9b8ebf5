//! Lines that the agent and tasks write, on their way to the buffer: a copy, within a budget.
//!
//! Promises: who writes never waits for it, and a flood costs little more than looking for the ends of its lines; of each
//! stream at most one line is in memory; each line gets a number, also one that is over the budget, which becomes a gap in
//! its place. So lines = delivered + gaps, exactly, but for those of the last second before a kill.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use protocol::session::Class;
use serde_json::json;
use tokio::sync::Notify;

use super::feed::record;
use crate::buffer::Handle;
use crate::machine::Machine;

/// A longer line goes in pieces.
const LONGEST: usize = 16 * 1024;
/// What a record costs beside its text.
const OVERHEAD: u64 = 128;
/// What is over the budget is declared after so long, where no line within the budget came before.
const DECLARE: Duration = Duration::from_secs(1);

/// How much goes to the gateway, of all lines together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Bytes in a second.
    pub rate: u64,
    /// Bytes at once, after some quiet.
    pub burst: u64,
}

/// Where lines go. Without a link, or before the buffer is open, nowhere.
#[derive(Clone, Default)]
pub struct Lines(Option<Arc<Shared>>);

struct Shared {
    budget: Budget,
    machine: Machine,
    buffer: OnceLock<Handle>,
    meter: Mutex<Meter>,
    dropped: Notify,
}

struct Meter {
    /// Bytes that may still go.
    left: u64,
    /// When they were counted.
    at: Duration,
    /// A line did not fit: nothing goes until a second's worth may. A gap of many lines begins a file of the buffer, so a
    /// flood should have few gaps.
    shut: bool,
    /// Lines that are over the budget and have no numbers yet, and their bytes.
    dropped: (i64, u64),
}

impl Lines {
    /// For a link with this budget.
    pub fn new(budget: Option<Budget>, machine: Machine) -> Lines {
        let meter = |budget: Budget| Meter { left: budget.burst, at: machine.now(), shut: false, dropped: (0, 0) };
        Lines(budget.map(|budget| {
            let (buffer, dropped) = (OnceLock::new(), Notify::new());
            Arc::new(Shared { budget, machine: machine.clone(), buffer, meter: Mutex::new(meter(budget)), dropped })
        }))
    }

    /// From here on they are kept.
    pub fn open(&self, buffer: Handle) {
        if let Some(shared) = &self.0 {
            // Opened once, by the app.
            let _ = shared.buffer.set(buffer);
        }
    }

    /// The lines of one stream; `task` is whose, where it is not the agent.
    pub fn of(&self, task: Option<&str>, stream: &'static str) -> Copier {
        Copier { lines: self.clone(), task: task.map(str::to_owned), stream, partial: Vec::new(), dropping: false }
    }

    /// Declare what was over the budget and has no numbers yet.
    pub fn declare(&self) {
        if let Some(shared) = &self.0
            && let Some(buffer) = shared.buffer.get()
        {
            shared.meter.lock().unwrap_or_else(PoisonError::into_inner).declare(buffer);
        }
    }

    /// Declare it now and then, where something was; for as long as the supervisor runs.
    pub async fn run(self) {
        while let Some(shared) = &self.0 {
            shared.dropped.notified().await;
            tokio::time::sleep(DECLARE).await;
            self.declare();
        }
    }
}

impl Meter {
    fn refill(&mut self, budget: Budget, now: Duration) {
        let more = u128::from(budget.rate) * now.saturating_sub(self.at).as_micros() / 1_000_000;
        if more > 0 {
            self.left = budget.burst.min(self.left.saturating_add(u64::try_from(more).unwrap_or(u64::MAX)));
            // Only by the time that these bytes stand for: fractions add up.
            self.at +=
                Duration::from_micros(u64::try_from(more * 1_000_000 / u128::from(budget.rate)).unwrap_or(u64::MAX));
        }
        self.shut &= self.left < budget.rate.min(budget.burst);
    }

    /// Whether so many more bytes may go; then they are counted.
    fn take(&mut self, bytes: usize) -> bool {
        let cost = bytes as u64 + OVERHEAD;
        self.shut |= self.left < cost;
        if !self.shut {
            self.left -= cost;
        }
        !self.shut
    }

    fn declare(&mut self, buffer: &Handle) {
        let (lines, bytes) = std::mem::take(&mut self.dropped);
        if lines > 0 {
            buffer.lose(Class::Logs, lines, bytes);
        }
    }
}

/// Copies the lines of one stream.
pub struct Copier {
    lines: Lines,
    task: Option<String>,
    stream: &'static str,
    /// The beginning of a line.
    partial: Vec<u8>,
    /// The rest of this line is over the budget too.
    dropping: bool,
}

impl Copier {
    /// These bytes were written.
    pub fn take(&mut self, mut bytes: &[u8]) {
        let Some(shared) = self.lines.0.clone() else { return };
        let Some(buffer) = shared.buffer.get() else { return };
        let mut meter = shared.meter.lock().unwrap_or_else(PoisonError::into_inner);
        meter.refill(shared.budget, shared.machine.now());
        while !bytes.is_empty() && !meter.shut {
            let end = memchr::memchr(b'\n', bytes);
            let (piece, rest) = bytes.split_at(end.map_or(bytes.len(), |end| end + 1));
            bytes = rest;
            self.piece(piece, &mut meter, buffer, &shared.machine);
        }
        if !bytes.is_empty() {
            self.skip(bytes, &mut meter);
        }
        if meter.dropped.0 > 0 {
            shared.dropped.notify_one();
        }
    }

    /// Bytes up to the end of a line, or without one.
    fn piece(&mut self, piece: &[u8], meter: &mut Meter, buffer: &Handle, machine: &Machine) {
        let ends = piece.last() == Some(&b'\n');
        if self.dropping {
            return self.skip(piece, meter);
        }
        self.partial.extend_from_slice(piece.strip_suffix(b"\n").unwrap_or(piece));
        while self.partial.len() > LONGEST {
            let rest = self.partial.split_off(boundary(&self.partial));
            let text = std::mem::replace(&mut self.partial, rest);
            self.send(&text, true, meter, buffer, machine);
        }
        if ends {
            let text = std::mem::take(&mut self.partial);
            self.send(&text, false, meter, buffer, machine);
        }
    }

    /// All of it is over the budget: nothing of it is looked at but the ends of lines.
    fn skip(&mut self, bytes: &[u8], meter: &mut Meter) {
        let ends = memchr::memchr_iter(b'\n', bytes).count();
        meter.dropped.0 += ends as i64;
        meter.dropped.1 += (self.partial.len() + bytes.len()) as u64;
        self.partial = Vec::new();
        self.dropping = bytes.last() != Some(&b'\n');
    }

    fn send(&self, text: &[u8], more: bool, meter: &mut Meter, buffer: &Handle, machine: &Machine) {
        if !meter.take(text.len()) {
            meter.dropped.0 += 1;
            meter.dropped.1 += text.len() as u64;
            return;
        }
        meter.declare(buffer);
        let mut body = json!({
            "source": if self.task.is_some() { "task" } else { "agent" },
            "stream": self.stream,
            "text": String::from_utf8_lossy(text.strip_suffix(b"\r").unwrap_or(text)),
        });
        for (name, holds) in [("cut", more), ("lossy", std::str::from_utf8(text).is_err())] {
            if holds {
                body[name] = true.into();
            }
        }
        if let Some(task) = &self.task {
            body["task_id"] = task.as_str().into();
        }
        buffer.offer(Class::Logs, serde_json::to_vec(&record(machine, "line".into(), body)).unwrap_or_default());
    }
}

/// Where a line that is too long is cut: not inside a character.
fn boundary(line: &[u8]) -> usize {
    let continues = |byte: u8| byte & 0xC0 == 0x80;
    (LONGEST - 3..=LONGEST).rev().find(|at| !continues(line[*at])).unwrap_or(LONGEST)
}

/// The stream has ended, perhaps inside a line.
impl Drop for Copier {
    fn drop(&mut self) {
        if self.dropping || !self.partial.is_empty() {
            self.take(b"\n");
        }
    }
}
