//! A buffer, its disk and a gateway that believes nothing: the oracle of all tests.
//!
//! - A record that arrives is the one that was appended under its number.
//! - Numbers arrive in order, each once, as a record or in a gap.
//! - A number that was told, in a hello or with a record, is not given out again.

use std::collections::{BTreeMap, BTreeSet};

use protocol::session::Class;

use super::disk::Simulated;
use crate::buffer::{Buffer, BufferError, Limits, Piece, Reason};

/// What the gateway has of one class.
#[derive(Clone, Debug)]
pub(super) struct Received {
    /// The next number that it expects.
    pub(super) next: i64,
    pub(super) records: BTreeMap<i64, Vec<u8>>,
    pub(super) gaps: BTreeMap<i64, (i64, Reason)>,
    /// The newest number that it was told of.
    told: i64,
}

pub(super) struct World {
    pub(super) disk: Simulated,
    pub(super) limits: Limits,
    boot: u8,
    pub(super) buffer: Option<Buffer<Simulated>>,
    pub(super) gateway: [Received; 4],
    /// What was appended, or refused, under each number by the newest life that gave it out.
    produced: [BTreeMap<i64, Vec<u8>>; 4],
    /// Numbers that were given out since power was lost.
    fresh: [BTreeSet<i64>; 4],
    /// Numbers whose records must arrive.
    safe: [BTreeSet<i64>; 4],
    counter: u64,
}

impl World {
    pub(super) fn new(seed: u64, limits: Limits) -> World {
        let received = Received { next: 1, records: BTreeMap::new(), gaps: BTreeMap::new(), told: 0 };
        let gateway = std::array::from_fn(|_| received.clone());
        let disk = Simulated::new(seed, 512);
        let mut world = World {
            disk,
            limits,
            boot: 1,
            buffer: None,
            gateway,
            produced: Default::default(),
            fresh: Default::default(),
            safe: Default::default(),
            counter: 0,
        };
        world.open();
        world
    }

    pub(super) fn open(&mut self) {
        let opened = loop {
            let failing = self.disk.fails_reads();
            let opened = Buffer::open(self.disk.clone(), self.limits, [self.boot; 16]);
            // Where reads fail, the supervisor that cannot begin is started again, for as often as they do.
            if opened.is_ok() || !failing {
                break opened;
            }
        };
        self.buffer = Some(opened.expect("any disk can be opened"));
    }

    pub(super) fn buffer(&mut self) -> &mut Buffer<Simulated> {
        self.buffer.as_mut().expect("it is open")
    }

    /// The process ends without a word.
    pub(super) fn kill(&mut self) {
        self.buffer = None;
        self.open();
    }

    pub(super) fn lose_power(&mut self) {
        self.buffer = None;
        self.disk.lose_power();
        self.fresh = Default::default();
        self.boot = self.boot.wrapping_add(1).max(1);
        self.open();
    }

    /// Close and open; the machine may be another one by then.
    pub(super) fn restart(&mut self, reboot: bool) {
        let closed = self.buffer().close();
        self.buffer = None;
        if reboot {
            match closed {
                Ok(()) => self.disk.lose_power(),
                Err(_) => return self.lose_power(),
            }
            self.all_is_safe();
            self.boot = self.boot.wrapping_add(1).max(1);
        }
        self.open();
    }

    pub(super) fn append(&mut self, class: Class, length: usize) -> Result<i64, BufferError> {
        self.counter += 1;
        let mut bytes = format!("{} {} ", class.name(), self.counter).into_bytes();
        let length = length.max(bytes.len());
        bytes.resize(length, b'.');
        let next = self.buffer().lanes[class as usize].next;
        let answer = self.buffer().append(class, &bytes);
        if answer.is_err() {
            // It may have been written all the same: then it arrives, if the process ends before its gap is written.
            self.produced[class as usize].insert(next, bytes);
            return answer;
        }
        let seq = answer?;
        let received = &self.gateway[class as usize];
        assert!(seq > received.told, "{class:?} {seq} was given out twice");
        self.fresh[class as usize].insert(seq);
        self.produced[class as usize].insert(seq, bytes);
        Ok(seq)
    }

    pub(super) fn sync(&mut self, class: Class) {
        if self.buffer().sync(class).is_ok() {
            self.safe[class as usize].append(&mut self.fresh[class as usize]);
        }
    }

    /// The gateway hears of what there is, and remembers.
    pub(super) fn hello(&mut self) {
        for (class, extent) in self.buffer().extents() {
            let received = &mut self.gateway[class as usize];
            received.told = received.told.max(extent.last);
            assert!(extent.first_unacked <= extent.last + 1, "{extent:?}");
        }
    }

    /// Send what there is, up to `max` bytes at a time; where `commit`, the gateway keeps it and acknowledges.
    pub(super) fn deliver(&mut self, class: Class, max: usize, commit: bool) -> usize {
        let lane = class as usize;
        let from = self.gateway[lane].next;
        self.buffer().acknowledge(class, from - 1).expect("it was sent");
        let Ok(pieces) = self.buffer().peek(class, from, max) else { return 0 };
        let mut at = from;
        for piece in &pieces {
            let received = &mut self.gateway[lane];
            match piece {
                Piece::Record { seq, bytes } => {
                    assert_eq!(*seq, at, "{class:?} has a hole");
                    assert_eq!(Some(bytes), self.produced[lane].get(seq), "{class:?} {seq} is another record");
                    received.told = received.told.max(*seq);
                    at = seq + 1;
                    if commit {
                        assert!(received.records.insert(*seq, bytes.clone()).is_none());
                    }
                }
                Piece::Gap { from, to, reason, .. } => {
                    assert_eq!(*from, at, "{class:?} has a hole");
                    assert!(to >= from, "{piece:?}");
                    received.told = received.told.max(*to);
                    at = to + 1;
                    if commit {
                        received.gaps.insert(*from, (*to, *reason));
                    }
                }
            }
        }
        if commit {
            self.gateway[lane].next = at;
            self.buffer().acknowledge(class, at - 1).expect("it was sent");
        }
        pieces.len()
    }

    /// Until nothing is left.
    pub(super) fn deliver_all(&mut self, class: Class) {
        while self.deliver(class, 50_000, true) > 0 {}
        if let Some(extent) = self.buffer().extents().get(&class) {
            assert_eq!(extent.last + 1, self.gateway[class as usize].next, "{class:?}: all is there");
        }
    }

    /// Records of that class that were safe and did not arrive.
    pub(super) fn missing(&self, class: Class) -> Vec<i64> {
        let lane = class as usize;
        let received = &self.gateway[lane];
        self.safe[lane].iter().filter(|seq| !received.records.contains_key(seq)).copied().collect()
    }

    /// Everything that was appended so far must arrive.
    pub(super) fn all_is_safe(&mut self) {
        for lane in 0..4 {
            self.safe[lane].append(&mut self.fresh[lane]);
        }
    }

    /// Numbers that arrived as gaps for that reason.
    pub(super) fn lost(&self, class: Class, reason: Reason) -> i64 {
        let gaps = self.gateway[class as usize].gaps.iter();
        gaps.filter(|(_, (_, why))| *why == reason).map(|(from, (to, _))| to - from + 1).sum()
    }
}
