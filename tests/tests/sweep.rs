//! What every system call number is answered, by the real filter on the real kernel: `just torture sweep` keeps it as evidence.

use tests::bench::Line;
use tests::stage::container_available;
use tests::torture::sweep;

/// Bless a change on purpose with `BLESS=1 cargo test -p tests --test sweep`.
#[test]
fn every_number_is_answered_on_this_kernel_as_the_lists_say_and_changes_only_on_purpose() {
    if !container_available() {
        return;
    }
    if std::env::var_os("BLESS").is_some() {
        for class in sweep::CLASSES {
            std::fs::write(sweep::golden(class), sweep::found(class)).expect("the golden file is writable");
        }
    }
    let lines = sweep::measure();
    lines.iter().for_each(Line::print);
    assert!(lines.iter().all(Line::kept), "what was found is told above; is that meant?");
}
