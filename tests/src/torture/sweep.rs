//! What every system call number is answered, by the real filter on the real kernel: `tests/sweep` has it for review, and
//! the lists of the shim must say the same.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use protocol::policy::ExecutionClass::{self, Local, Networked, Readonly};
use shim::syscalls::profile::Architecture;

use crate::bench::Line;
use crate::scene;
use crate::stage::{Cut, Profile, container_available};
use crate::supervisor::Supervisor;

/// Each has a filter of its own.
pub const CLASSES: [ExecutionClass; 3] = [Networked, Local, Readonly];
/// 1,024 numbers by each of the three gates of x86-64, in each class; less than that, for no filter is asked about a few.
const TRIED: f64 = 9_000.0;

/// How many numbers are tried, and those that are answered otherwise than they should, which are named on standard error.
pub fn measure() -> Vec<Line> {
    if !container_available() {
        return Vec::new();
    }
    let (mut tried, mut changed, mut differ, mut done) = (0, 0, 0, 0);
    for class in CLASSES {
        let text = found(class);
        let known = std::fs::read_to_string(golden(class)).unwrap_or_default();
        for line in text.lines().filter(|line| !known.lines().any(|known| known == *line)) {
            eprintln!("class {}, not in {}: {line}", class.name(), golden(class).display());
        }
        tried += answers(&text).values().filter(|answer| **answer != "not tried").count();
        changed += differences(&answers(&text), &answers(&known));
        differ += text.matches("the lists say").count();
        done += text.matches("done, and answered").count();
    }
    let line = |what: &str, measured: usize| Line::new(what, 0.0, measured as f64, "calls");
    let what = "system call numbers that a confined agent tried, by each gate and in each class";
    vec![
        Line::at_least(what, TRIED, tried as f64, "numbers"),
        line("numbers that were answered otherwise than the golden files say", changed),
        line("calls that were answered otherwise than the shim's lists say", differ),
        line("calls that were done, and should have been caught", done),
    ]
}

/// What a confined agent of this class finds.
pub fn found(class: ExecutionClass) -> String {
    let builder = Supervisor::new().profile(Profile::Restricted).container().cut(&[Cut::Catch]);
    let mut supervisor = builder.set("agent-class", class.name()).agent([scene::PROBE, "sweep", class.name()]).start();
    supervisor.wait_exit();
    supervisor.stdout.to_end();
    let text = supervisor.stdout.text();
    assert!(text.ends_with("# end\n"), "it did not come to its end:\n{text}{}", supervisor.stderr.text());
    text
}

/// Where that is kept for review.
pub fn golden(class: ExecutionClass) -> PathBuf {
    let name = format!("{}-{}.txt", Architecture::NATIVE.name(), class.name());
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("sweep").join(name)
}

/// By gate and number, each of a range by itself: a known call has its name before its answer.
fn answers(text: &str) -> BTreeMap<(&str, u32), &str> {
    let lines = text.lines().filter_map(|line| line.split_once(": "));
    let ranges = lines.filter_map(|(head, answer)| Some((range(head)?, answer)));
    ranges.flat_map(|((gate, range), answer)| range.map(move |number| ((gate, number), answer))).collect()
}

/// `0 read`, or `x32 0..=1023`; a comment is none.
fn range(head: &str) -> Option<(&str, RangeInclusive<u32>)> {
    let (first, second) = head.split_once(' ')?;
    if let Ok(number) = first.parse() {
        return Some(("native", number..=number));
    }
    let (from, to) = second.split_once("..=")?;
    let gate = if first == "unknown" { "native" } else { first };
    Some((gate, from.parse().ok()?..=to.parse().ok()?))
}

/// Those of which the two say something else, or only one says anything.
fn differences(one: &BTreeMap<(&str, u32), &str>, other: &BTreeMap<(&str, u32), &str>) -> usize {
    let changed = one.iter().filter(|(number, answer)| other.get(number) != Some(answer)).count();
    changed + other.keys().filter(|number| !one.contains_key(number)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_left_a_range_counts_as_one() {
        let known = "# number name: answer\n0 read: allow\n1 write: allow\nx32 0..=9: ENOSYS\n# end\n";
        let now = "0 read: allow\n1 write: EPERM\nx32 0..=4: ENOSYS\nx32 5..=5: allow\nx32 6..=9: ENOSYS\n";
        assert_eq!(answers(known).len(), 12);
        assert_eq!(differences(&answers(known), &answers(now)), 2);
        assert_eq!(differences(&answers(now), &answers("")), 12);
        assert_eq!(differences(&answers(""), &answers(now)), 12);
    }
}
