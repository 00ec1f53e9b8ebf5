//! A rule taken away must turn a probe red, or nothing proves it: a sample of what `just torture mutations` does with all.

use tests::bench::Line;
use tests::stage::container_available;
use tests::torture::mutations;

#[test]
fn a_rule_taken_away_lets_a_probe_out() {
    if !container_available() {
        return;
    }
    let lines = mutations::measure(true);
    lines.iter().for_each(Line::print);
    assert!(lines.iter().all(Line::kept), "survivors are named above");
}
