//! One line about what is being waited for, on a terminal only.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::table::span;

/// What is over sooner needs no line.
const QUIET: Duration = Duration::from_millis(400);
const TICK: Duration = Duration::from_millis(120);

/// Wait for `future` and show `text` with the time that it takes.
pub(crate) async fn during<F: Future>(text: &str, future: F) -> F::Output {
    let began = Instant::now();
    let terminal = std::io::stderr().is_terminal();
    let mut ticks = interval_at(began + QUIET, TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut future = std::pin::pin!(future);
    let mut shown = false;
    let output = loop {
        tokio::select! {
            output = future.as_mut() => break output,
            _ = ticks.tick(), if terminal => {
                shown = true;
                // Back to the first column, and clear what was there.
                let _ = write!(std::io::stderr(), "\r\x1b[K{text} {}", span(began.elapsed()));
            }
        }
    };
    if shown {
        let _ = write!(std::io::stderr(), "\r\x1b[K");
    }
    output
}
