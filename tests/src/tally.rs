//! Produced = delivered + gaps: what a gateway has of a sandbox, held to what the sandbox's own buffer says that it produced.

use std::collections::BTreeMap;
use std::path::Path;

use protocol::session::{Class, Extent};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use supervisor::buffer::{self, Config, Limits};
use supervisor::state::StateDir;

/// What a buffer has given out: its epoch, and the last number of each class.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Produced {
    /// Names the log.
    pub epoch: String,
    /// Numbers begin at 1 and have no hole.
    pub last: BTreeMap<Class, i64>,
}

impl Produced {
    /// Of the state directory of a supervisor that has ended; `None` where something still waits for the gateway.
    #[track_caller]
    pub fn of_state(path: &Path) -> Option<Produced> {
        let state = StateDir::open(path).expect("nobody else has it");
        let limits = Limits { size: 64 * 1024 * 1024, reserve: 4 * 1024 * 1024 };
        let mut buffer = buffer::open(&state, &Config { limits, sync_always: false }).expect("it can be opened");
        let produced = Produced::of_extents(buffer.epoch(), &buffer.extents());
        buffer.close().expect("the disk is well");
        produced
    }

    /// Of a buffer that is open; `None` where something still waits for the gateway.
    pub fn of_extents(epoch: String, extents: &BTreeMap<Class, Extent>) -> Option<Produced> {
        let all_are_acknowledged = extents.values().all(|extent| extent.first_unacked > extent.last);
        let last = extents.iter().map(|(class, extent)| (*class, extent.last)).collect();
        all_are_acknowledged.then_some(Produced { epoch, last })
    }
}

/// What was found, counted over any number of sandboxes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Numbers that buffers gave out.
    pub produced: i64,
    /// Stored records.
    pub delivered: i64,
    /// The same of each class.
    pub stored: BTreeMap<Class, i64>,
    /// Gaps.
    pub gaps_told: i64,
    /// Numbers that gaps stand for.
    pub gaps: i64,
    /// Neither stored nor in a gap.
    pub lost: i64,
    /// Stored, or in a gap, more than once.
    pub twice: i64,
    /// Stored and never produced.
    pub invented: i64,
}

impl Tally {
    /// Add what a gateway's `events` say of a sandbox.
    pub fn count(&mut self, events: &[Value], produced: &Produced) {
        for class in Class::ALL {
            let last = produced.last.get(&class).copied().unwrap_or(0);
            let of_class = events.iter().filter(|event| event["class"] == class.name());
            let before = self.delivered;
            self.count_class(of_class, &produced.epoch, last);
            *self.stored.entry(class).or_default() += self.delivered - before;
        }
    }

    /// What another one has found, too.
    pub fn add(&mut self, other: &Tally) {
        self.produced += other.produced;
        self.delivered += other.delivered;
        for (class, stored) in &other.stored {
            *self.stored.entry(*class).or_default() += stored;
        }
        self.gaps_told += other.gaps_told;
        self.gaps += other.gaps;
        self.lost += other.lost;
        self.twice += other.twice;
        self.invented += other.invented;
    }

    /// Each number from 1 to `last` once.
    fn count_class<'e>(&mut self, events: impl Iterator<Item = &'e Value>, epoch: &str, last: i64) {
        let mut spans = Vec::new();
        for event in events {
            let number = |name: &str| event["gap"][name].as_i64().unwrap_or_default();
            if event["epoch"] != epoch {
                self.invented += 1;
            } else if let Some(seq) = event["seq"].as_i64() {
                self.delivered += 1;
                spans.push((seq, seq));
            } else {
                self.gaps_told += 1;
                self.gaps += number("to") - number("from") + 1;
                spans.push((number("from"), number("to")));
            }
        }
        // A gap may stand for very many numbers, so they are not gone through one by one.
        spans.sort_unstable();
        let (mut next, mut there) = (1, 0);
        for (from, to) in spans {
            let fresh = from.max(next)..(to + 1).max(next);
            let is_new = (fresh.end - fresh.start).max(0);
            self.twice += to - from + 1 - is_new;
            there += (fresh.end.min(last + 1) - fresh.start).max(0);
            self.invented += (fresh.end - fresh.start.max(last + 1)).max(0);
            next = next.max(to + 1);
        }
        self.produced += last;
        self.lost += last - there;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn record(epoch: &str, seq: i64) -> Value {
        json!({"class": "logs", "epoch": epoch, "seq": seq})
    }

    #[test]
    fn what_is_lost_doubled_or_invented_is_told_from_what_is_delivered_or_in_a_gap() {
        let gap = json!({"class": "logs", "epoch": "e", "gap": {"from": 3, "to": 4}});
        let events = [record("e", 1), record("e", 1), gap, record("e", 7), record("other", 2)];
        let mut tally = Tally::default();
        tally.count(&events, &Produced { epoch: "e".into(), last: [(Class::Logs, 5)].into() });
        let expected =
            Tally { produced: 5, delivered: 3, gaps: 2, gaps_told: 1, lost: 2, twice: 1, invented: 2, ..tally.clone() };
        assert_eq!(tally, expected);
        assert_eq!(tally.stored[&Class::Logs], 3);
    }
}
