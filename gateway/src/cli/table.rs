//! Tables and spans of time, as people read them.

use std::time::{Duration, SystemTime};

use protocol::words::printable;

/// Columns as wide as their widest cell, two blanks between; the last one is not filled up. Nothing in a cell steers the terminal:
/// much of it a sandbox has said.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|cell| printable(cell)).collect()).collect();
    let mut widths: Vec<usize> = head.iter().map(|cell| cell.chars().count()).collect();
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: Vec<&str>| {
        let mut text = String::new();
        for (cell, width) in cells.iter().zip(&widths) {
            text.push_str(&format!("{cell:width$}  "));
        }
        format!("{}\n", text.trim_end())
    };
    let mut text = line(head.to_vec());
    for row in &rows {
        text.push_str(&line(row.iter().map(String::as_str).collect()));
    }
    text
}

/// Two columns without a head, and as tame.
pub(crate) fn pairs(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    rows.iter().map(|(name, value)| format!("{name:width$}  {}\n", printable(value))).collect()
}

/// How long ago a time was, for instance `5m`; as it came where it is none.
pub(crate) fn ago(time: &str) -> String {
    let parsed = humantime::parse_rfc3339(time);
    parsed.map_or_else(|_| time.into(), |time| span(SystemTime::now().duration_since(time).unwrap_or_default()))
}

/// From one time to another, or to now.
pub(crate) fn between(from: Option<&str>, to: Option<&str>) -> String {
    let parse = |time: &str| humantime::parse_rfc3339(time).ok();
    let end = to.map_or_else(|| Some(SystemTime::now()), parse);
    let took = from.and_then(parse).zip(end).and_then(|(from, to)| to.duration_since(from).ok());
    took.map_or_else(|| "-".into(), span)
}

/// The two largest units.
pub(crate) fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0..10 => format!("{:.1}s", span.as_secs_f64()),
        10..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_cells() {
        let rows =
            [vec!["a".into(), "connected".into(), "1s".into()], vec!["long-name".into(), "new".into(), "".into()]];
        let text = table(&["NAME", "STATUS", "SINCE"], &rows);
        assert_eq!(text, "NAME       STATUS     SINCE\na          connected  1s\nlong-name  new\n");
    }

    #[test]
    fn what_a_sandbox_says_does_not_steer_the_terminal() {
        let said = "x\x1b]0;title\x07\n".to_string();
        assert_eq!(pairs(&[("reason", said.clone())]), "reason  x ]0;title  \n");
        assert_eq!(table(&["A"], &[vec![said]]), "A\nx ]0;title\n");
    }

    #[test]
    fn spans_have_two_units() {
        let of = |seconds| span(Duration::from_secs(seconds));
        assert_eq!([of(3), of(59), of(61), of(3700), of(90_000)], ["3.0s", "59s", "1m1s", "1h1m", "1d1h"]);
    }
}
