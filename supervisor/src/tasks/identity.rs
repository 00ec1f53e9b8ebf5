//! Names and times of tasks.

use std::time::{SystemTime, UNIX_EPOCH};

/// Crockford's base 32: sorts like the number, has no letters that are mistaken for digits.
const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// `t-` and 26 characters that sort by time: 48 bits of milliseconds, 80 random ones.
pub(crate) fn task_id() -> String {
    format!("t-{}", sortable())
}

/// `r-` and the same.
pub(crate) fn run_id() -> String {
    format!("r-{}", sortable())
}

/// Now, RFC 3339 with milliseconds.
pub(crate) fn now() -> String {
    time(SystemTime::now())
}

/// A time, RFC 3339 with milliseconds.
pub(crate) fn time(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}

fn sortable() -> String {
    let millis = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_millis());
    let random = u128::from(peer::random::bits()) << 64 | u128::from(peer::random::bits());
    let number = (millis << 80) | (random & ((1 << 80) - 1));
    (0..26).rev().map(|digit| char::from(DIGITS[((number >> (5 * digit)) & 31) as usize])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_differ_and_later_ones_sort_later() {
        let first = task_id();
        assert_eq!(first.len(), 28);
        assert_ne!(first, task_id());
        std::thread::sleep(std::time::Duration::from_millis(2));
        assert!(first < task_id());
    }
}
