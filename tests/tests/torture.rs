//! Small forms of what `just torture` does, where no other test does it.

use tests::bench::report;
use tests::torture;

#[test]
fn power_cuts_under_load_lose_and_double_nothing_that_waited_for_the_disk() {
    assert!(report(&torture::power::measure(12)));
}
