//! The buffer alone, on a disk that loses power again and again: what was written without a sync is there or not, sector by sector
//! and name by name, in any order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use protocol::session::Class;
use supervisor::buffer::{self, Buffer, Handle, Limits, Piece, window};
use supervisor::machine::Machine;
use supervisor::metrics::Metrics;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::chance::Chance;
use super::machine::Simulated;
use super::net::Net;
use super::trace::Trace;
use super::{disk, runtime};
use crate::tally::FOR_GOOD;

/// Losses of power in the life of one buffer.
pub const CUTS: u64 = 10;

const LIMITS: Limits = Limits { size: Limits::LEAST, reserve: 256 * 1024 };

/// What became of one buffer's records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Records that were written, and their numbers told.
    pub written: u64,
    /// Of these, those that are no more though each was to be synced before it was told.
    pub acknowledged: u64,
    /// Of the others, those that are no more though they were older than their window, or there when power had come back once.
    pub old: u64,
    /// Of the others, those that are no more as they may be.
    pub young: u64,
}

/// A buffer with this seed through its losses of power; what did not hold of its numbers and bytes, where something did not.
pub fn run(seed: u64) -> Result<Lost, String> {
    runtime().block_on(async {
        let mut story = Story::new(seed);
        for _ in 0..CUTS {
            let mut life = story.begin().await;
            story.work(&mut life).await?;
            story.cut(life);
        }
        story.finish().await
    })
}

struct Story {
    chance: Chance,
    machine: Machine,
    disk: disk::Simulated,
    always: bool,
    boot: u8,
    /// What was written, by its number.
    written: [BTreeMap<i64, Written>; 4],
    /// What the gateway has of each class, and what it expects next.
    has: [BTreeMap<i64, Vec<u8>>; 4],
    next: [i64; 4],
    lost: Lost,
}

struct Written {
    bytes: Vec<u8>,
    at: Instant,
    fate: Fate,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Power was there all the time.
    Sure,
    /// It was synced before its number was told, and then power went.
    Acknowledged,
    /// It was older than its window when power went, or was there when it came back.
    Old,
    /// Power went when it was younger.
    Young,
}

struct Life {
    handle: Handle,
    part: JoinHandle<()>,
}

impl Story {
    fn new(seed: u64) -> Story {
        let mut chance = Chance::new(seed, 3);
        let net = Net::new(1, Chance::new(seed, 4), Trace::new(false));
        Story {
            machine: Machine::simulated(Arc::new(Simulated::new(0, net, Chance::new(seed, 5)))),
            disk: disk::Simulated::new(chance.bits(), if chance.once_in(2) { 512 } else { 4096 }),
            always: chance.once_in(2),
            chance,
            boot: 1,
            written: Default::default(),
            has: Default::default(),
            next: [1; 4],
            lost: Lost::default(),
        }
    }

    async fn begin(&mut self) -> Life {
        self.know_survivors();
        let config = buffer::Config { limits: LIMITS, sync_always: self.always };
        let opened = Buffer::open(self.disk.clone(), LIMITS, [self.boot; 16]).expect("any disk can be opened");
        let (handle, part) = buffer::new(opened, &config, self.machine.clone(), Arc::new(Metrics::default()));
        Life { handle, part: tokio::spawn(part.run()) }
    }

    /// What is there when power is back must stay: it is on the disk, which opening makes sure of (it syncs the newest file of each class
    /// and the names; the files before were synced when newer ones were begun), and no later life writes to its files.
    fn know_survivors(&mut self) {
        // Of a copy: reading may write a gap.
        let mut opened = Buffer::open(self.disk.copy(), LIMITS, [self.boot; 16]).expect("any disk can be opened");
        for class in Class::ALL {
            for piece in opened.peek(class, 1, LIMITS.size as usize).expect("it can be read") {
                if let Piece::Record { seq, .. } = piece
                    && let Some(record) = self.written[class as usize].get_mut(&seq)
                    && record.fate == Fate::Young
                {
                    record.fate = Fate::Old;
                }
            }
        }
    }

    /// For some moments; power may go at any of them.
    async fn work(&mut self, life: &mut Life) -> Result<(), String> {
        for _ in 0..self.chance.between(0, 30) {
            sleep(Duration::from_millis(self.chance.one_of(&[0, 0, 1, 3, 20, 60, 250]))).await;
            match self.chance.below(8) {
                0 => {
                    self.deliver(life).await?;
                }
                1 | 2 => self.append(life, Class::Results).await?,
                3 => life.handle.offer(Class::Logs, b"\"a line\"".to_vec()),
                _ => self.append(life, Class::Lifecycle).await?,
            }
        }
        // Records that nobody had the time to sync.
        for _ in 0..self.chance.below(4) {
            self.append(life, Class::Lifecycle).await?;
        }
        sleep(Duration::from_millis(self.chance.one_of(&[0, 5, 24, 25, 26, 49, 50, 51, 110]))).await;
        Ok(())
    }

    async fn append(&mut self, life: &Life, class: Class) -> Result<(), String> {
        let mut bytes = format!("\"{} ", self.lost.written).into_bytes();
        bytes.resize(bytes.len() + self.chance.one_of(&[1, 100, 500, 4_000, 9_000]), b'x');
        let seq = life.handle.append(class, bytes.clone()).await.map_err(|error| error.to_string())?;
        self.lost.written += 1;
        let written = Written { bytes, at: Instant::now(), fate: Fate::Sure };
        match self.written[class as usize].insert(seq, written) {
            None => Ok(()),
            Some(_) => Err(format!("{} {seq} was given out twice", class.name())),
        }
    }

    /// The gateway takes some; whether its acknowledgement comes back is another matter.
    async fn deliver(&mut self, life: &Life) -> Result<bool, String> {
        let mut more = false;
        for class in Class::ALL {
            let lane = class as usize;
            let pieces = life.handle.peek(class, self.next[lane], 20_000).await.map_err(|error| error.to_string())?;
            more |= !pieces.is_empty();
            for piece in pieces {
                let (from, to) = match &piece {
                    Piece::Record { seq, .. } => (*seq, *seq),
                    Piece::Gap { from, to, .. } => (*from, *to),
                };
                if from != self.next[lane] || to < from {
                    return Err(format!(
                        "{}: {from} to {to} came where {} was expected",
                        class.name(),
                        self.next[lane]
                    ));
                }
                if let Piece::Record { seq, bytes } = piece {
                    if self.written[lane].get(&seq).is_some_and(|written| written.bytes != bytes) {
                        return Err(format!("{} {seq} is another record", class.name()));
                    }
                    self.has[lane].insert(seq, bytes);
                }
                self.next[lane] = to + 1;
            }
            if self.next[lane] > 1 && !self.chance.once_in(3) {
                let acknowledged = life.handle.acknowledge(class, self.next[lane] - 1).await;
                acknowledged.map_err(|error| error.to_string())?;
            }
        }
        Ok(more)
    }

    fn cut(&mut self, life: Life) {
        life.part.abort();
        let now = Instant::now();
        for class in Class::ALL {
            for record in self.written[class as usize].values_mut().filter(|record| record.fate == Fate::Sure) {
                record.fate = match now - record.at >= window(class) {
                    _ if self.always && FOR_GOOD.contains(&class) => Fate::Acknowledged,
                    true => Fate::Old,
                    false => Fate::Young,
                };
            }
        }
        self.disk.lose_power();
        self.boot = self.boot.wrapping_add(1).max(1);
    }

    async fn finish(mut self) -> Result<Lost, String> {
        let life = self.begin().await;
        while self.deliver(&life).await? {}
        for class in Class::ALL {
            for (seq, record) in &self.written[class as usize] {
                let lost = u64::from(!self.has[class as usize].contains_key(seq));
                match record.fate {
                    Fate::Sure => {}
                    Fate::Acknowledged => self.lost.acknowledged += lost,
                    Fate::Old => self.lost.old += lost,
                    Fate::Young => self.lost.young += lost,
                }
            }
        }
        Ok(self.lost)
    }
}
