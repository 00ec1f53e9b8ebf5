//! The link and both of its ends: what holding it costs, and how long the first task takes.

use super::{Line, buffer};

mod first;
mod idle;
mod sessions;

/// All but the kills, which are `torture`'s; `short` holds sessions for half a minute.
pub fn measure(short: bool) -> Vec<Line> {
    let mut lines = idle::measure();
    lines.push(first::measure());
    lines.extend(sessions::measure(short));
    lines.extend(buffer::measure());
    lines
}
