//! Produced = delivered + gaps: what a gateway has of a sandbox, held to what the sandbox's own buffer says that it produced.

use std::collections::BTreeMap;
use std::path::Path;

use protocol::session::{Class, Extent};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use supervisor::buffer::{self, Config, Limits};
use supervisor::state::StateDir;

/// Numbers that one segment may hold at most (docs/features/buffer.md).
const SPAN: i64 = 65_536;
/// What a gap stands for that says `damaged` of all that a segment could hold: its header is not there. A maker that was killed before it
/// wrote one leaves such a file, too, and then it never had a record.
pub const DAMAGED_FILE: &str = "damaged file";
/// With `sync = always` a record of these is on the disk before its number is told, or anything else follows from it. The buffer has a list
/// of its own, and this is not that one: an oracle that took it would agree with whatever it says.
pub(crate) const FOR_GOOD: [Class; 2] = [Class::Lifecycle, Class::Results];

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
    /// Numbers that gaps stand for.
    pub gaps: i64,
    /// Gaps of each class, by the reason that they give, or [`DAMAGED_FILE`].
    pub reasons: BTreeMap<(Class, String), Gaps>,
    /// Neither stored nor in a gap.
    pub lost: i64,
    /// Stored, or in a gap, more than once.
    pub twice: i64,
    /// Stored and never produced.
    pub invented: i64,
}

/// Gaps of one class that give the same reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gaps {
    /// So many.
    pub told: i64,
    /// Numbers that they stand for.
    pub numbers: i64,
}

impl Tally {
    /// Add what a gateway's `events` say of a sandbox.
    pub fn count(&mut self, events: &[Value], produced: &Produced) {
        for class in Class::ALL {
            let last = produced.last.get(&class).copied().unwrap_or(0);
            let of_class = events.iter().filter(|event| event["class"] == class.name());
            let before = self.delivered;
            self.count_class(class, of_class, &produced.epoch, last);
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
        self.gaps += other.gaps;
        for (of, gaps) in &other.reasons {
            self.note_gaps(of.clone(), *gaps);
        }
        self.lost += other.lost;
        self.twice += other.twice;
        self.invented += other.invented;
    }

    /// All gaps in words: how many of which class and reason, and of how many numbers.
    pub fn gaps_in_words(&self) -> String {
        let words = |((class, reason), gaps): (&(Class, String), &Gaps)| {
            format!("{} of {}, {reason}, {} numbers", gaps.told, class.name(), gaps.numbers)
        };
        let all: Vec<String> = self.reasons.iter().map(words).collect();
        if all.is_empty() { "none".into() } else { all.join("; ") }
    }

    fn note_gaps(&mut self, of: (Class, String), more: Gaps) {
        let gaps = self.reasons.entry(of).or_default();
        gaps.told += more.told;
        gaps.numbers += more.numbers;
    }

    /// Each number from 1 to `last` once.
    fn count_class<'e>(&mut self, class: Class, events: impl Iterator<Item = &'e Value>, epoch: &str, last: i64) {
        let mut spans = Vec::new();
        for event in events {
            let number = |name: &str| event["gap"][name].as_i64().unwrap_or_default();
            if event["epoch"] != epoch {
                self.invented += 1;
            } else if let Some(seq) = event["seq"].as_i64() {
                self.delivered += 1;
                spans.push((seq, seq));
            } else {
                let numbers = number("to") - number("from") + 1;
                self.gaps += numbers;
                self.note_gaps((class, reason(&event["gap"], numbers)), Gaps { told: 1, numbers });
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

/// Of a gap of so many numbers.
fn reason(gap: &Value, numbers: i64) -> String {
    match gap["reason"].as_str().unwrap_or_default() {
        "damaged" if numbers >= SPAN => DAMAGED_FILE.into(),
        told => told.into(),
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
        let expected = Tally { produced: 5, delivered: 3, gaps: 2, lost: 2, twice: 1, invented: 2, ..tally.clone() };
        assert_eq!(tally, expected);
        assert_eq!(tally.stored[&Class::Logs], 3);
    }

    #[test]
    fn damage_of_a_whole_file_is_told_from_damage_of_records() {
        let gap = |class: &str, from: i64, to: i64, reason: &str| json!({"class": class, "epoch": "e", "gap": {"from": from, "to": to, "reason": reason}});
        let events = [
            gap("logs", 1, SPAN, "damaged"),
            gap("logs", SPAN + 1, SPAN + 2, "damaged"),
            gap("logs", SPAN + 3, SPAN + 3, "damaged"),
            gap("results", 1, SPAN, "crash"),
        ];
        let last = [(Class::Logs, SPAN + 3), (Class::Results, SPAN)].into();
        let mut tally = Tally::default();
        tally.count(&events, &Produced { epoch: "e".into(), last });
        let expected = [
            ((Class::Results, "crash".to_owned()), Gaps { told: 1, numbers: SPAN }),
            ((Class::Logs, "damaged".to_owned()), Gaps { told: 2, numbers: 3 }),
            ((Class::Logs, DAMAGED_FILE.to_owned()), Gaps { told: 1, numbers: SPAN }),
        ];
        assert_eq!(tally.reasons, expected.into());
    }
}
