//! Lines that the agent and tasks write, on their way to the buffer: a copy, within a budget.
//!
//! Promises: who writes never waits for it, and a flood costs little more than looking for the ends of its lines; of each
//! stream at most one line is in memory; each line gets a number, also one that is over the budget, which becomes a gap in
//! its place. So lines = delivered + gaps, exactly, but for those of the last second before a kill.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use protocol::session::Class;
use tokio::sync::Notify;

pub(crate) mod line;

use line::{Line, Source};

use super::feed::record;
use crate::buffer::Handle;
use crate::machine::Machine;

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
        let source = Source { task: task.map(str::to_owned), stream };
        Copier { lines: self.clone(), source, line: Line::default(), dropping: false }
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
    source: Source,
    line: Line,
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
        if self.dropping {
            return self.skip(piece, meter);
        }
        let Copier { line, source, .. } = self;
        line.write(piece, |text, more| {
            if !meter.take(text.len()) {
                meter.dropped.0 += 1;
                meter.dropped.1 += text.len() as u64;
                return;
            }
            meter.declare(buffer);
            let record = record(machine, "line".into(), source.body(text, more));
            buffer.offer(Class::Logs, serde_json::to_vec(&record).unwrap_or_default());
        });
    }

    /// All of it is over the budget: nothing of it is looked at but the ends of lines.
    fn skip(&mut self, bytes: &[u8], meter: &mut Meter) {
        let ends = memchr::memchr_iter(b'\n', bytes).count();
        meter.dropped.0 += ends as i64;
        meter.dropped.1 += (self.line.len() + bytes.len()) as u64;
        self.line = Line::default();
        self.dropping = bytes.last() != Some(&b'\n');
    }
}

/// The stream has ended, perhaps inside a line.
impl Drop for Copier {
    fn drop(&mut self) {
        if self.dropping || self.line.len() > 0 {
            self.take(b"\n");
        }
    }
}
