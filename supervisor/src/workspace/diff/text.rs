//! One path's part of a patch, in git's words (gitdiff-format: `git help diff`, "generating patch text").

use std::io::{self, Write};
use std::time::{Duration, Instant};

use sha1::{Digest, Sha1};
use similar::{Algorithm, DiffOp, DiffTag, capture_diff_slices_deadline, group_diff_ops};

use super::binary;
use super::{Mode, Side};
use crate::workspace::path::Relative;

/// Unchanged lines around a change.
const CONTEXT: usize = 3;
/// Beyond this a worse patch is better than a later one.
const PATIENCE: Duration = Duration::from_secs(2);
/// As git: a NUL among the first bytes makes a file binary.
const LOOKED_AT: usize = 8000;
/// Lines of larger files are not compared.
const MAX_TEXT: usize = 8 * 1024 * 1024;

/// From one side to the other. A file that became a link, or the other way, goes and comes.
pub(super) fn change(path: &Relative, old: Option<&Side>, new: Option<&Side>, out: &mut impl Write) -> io::Result<()> {
    match (old, new) {
        (Some(old), Some(new)) if (old.mode == Mode::Link) != (new.mode == Mode::Link) => {
            one(path, Some(old), None, out)?;
            one(path, None, Some(new), out)
        }
        // Written back while it was looked at.
        (Some(old), Some(new)) if old.mode == new.mode && old.content == new.content => Ok(()),
        _ => one(path, old, new, out),
    }
}

fn one(path: &Relative, old: Option<&Side>, new: Option<&Side>, out: &mut impl Write) -> io::Result<()> {
    let (a, b) = (quoted("a/", path), quoted("b/", path));
    writeln!(out, "diff --git {a} {b}")?;
    let mut same_mode = String::new();
    match (old, new) {
        (None, Some(new)) => writeln!(out, "new file mode {}", new.mode.octal())?,
        (Some(old), None) => writeln!(out, "deleted file mode {}", old.mode.octal())?,
        (Some(old), Some(new)) if old.mode != new.mode => {
            writeln!(out, "old mode {}\nnew mode {}", old.mode.octal(), new.mode.octal())?;
        }
        (Some(old), _) => same_mode = format!(" {}", old.mode.octal()),
        (None, None) => {}
    }
    let (before, after) = (content(old), content(new));
    if before == after && old.is_some() && new.is_some() {
        return Ok(());
    }
    writeln!(out, "index {}..{}{same_mode}", name(old), name(new))?;
    if before == after {
        return Ok(());
    }
    if is_binary(before) || is_binary(after) {
        return binary::write(before, after, out);
    }
    let file = |side: Option<&Side>, name: &str| match side {
        None => "/dev/null".to_string(),
        Some(_) => name.to_string(),
    };
    writeln!(out, "--- {}\n+++ {}", file(old, &a), file(new, &b))?;
    hunks(before, after, out)
}

fn hunks(before: &[u8], after: &[u8], out: &mut impl Write) -> io::Result<()> {
    let (before, after) = (lines(before), lines(after));
    let until = Some(Instant::now() + PATIENCE);
    let ops = capture_diff_slices_deadline(Algorithm::Myers, &before, &after, until);
    for hunk in group_diff_ops(ops, CONTEXT) {
        let (Some(first), Some(last)) = (hunk.first(), hunk.last()) else { continue };
        let from = range(first.old_range().start, last.old_range().end);
        let to = range(first.new_range().start, last.new_range().end);
        writeln!(out, "@@ -{from} +{to} @@")?;
        for op in &hunk {
            operation(op, &before, &after, out)?;
        }
    }
    Ok(())
}

fn operation(op: &DiffOp, before: &[&[u8]], after: &[&[u8]], out: &mut impl Write) -> io::Result<()> {
    let mut put = |sign: u8, lines: &[&[u8]]| {
        lines.iter().try_for_each(|line| {
            out.write_all(&[sign])?;
            out.write_all(line)?;
            if line.last() == Some(&b'\n') { Ok(()) } else { out.write_all(b"\n\\ No newline at end of file\n") }
        })
    };
    if op.tag() == DiffTag::Equal {
        return put(b' ', &before[op.old_range()]);
    }
    put(b'-', &before[op.old_range()])?;
    put(b'+', &after[op.new_range()])
}

/// `START,COUNT`, counted from 1; of nothing, the line before it.
fn range(start: usize, end: usize) -> String {
    match end - start {
        0 => format!("{start},0"),
        1 => format!("{}", start + 1),
        count => format!("{},{count}", start + 1),
    }
}

/// With their newlines, so that a last line without one differs from the same line with one.
fn lines(content: &[u8]) -> Vec<&[u8]> {
    content.split_inclusive(|b| *b == b'\n').collect()
}

fn content(side: Option<&Side>) -> &[u8] {
    side.map_or(b"", |side| &side.content)
}

fn is_binary(content: &[u8]) -> bool {
    content.len() > MAX_TEXT || content[..content.len().min(LOOKED_AT)].contains(&0)
}

/// git's name of a content, in full, as `git apply` wants it for binary files; zeros for none.
fn name(side: Option<&Side>) -> String {
    let Some(side) = side else { return "0".repeat(40) };
    let mut hash = Sha1::new();
    hash.update(format!("blob {}\0", side.content.len()));
    hash.update(&side.content);
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// As git with `core.quotePath`: in C's way where a name has other than printable ASCII, and also where it has a blank,
/// which git's own reader takes for the end of a name in some places.
fn quoted(prefix: &str, path: &Relative) -> String {
    let plain = |b: &u8| (0x20..0x7f).contains(b) && !matches!(b, b'"' | b'\\');
    let mut text = String::from(prefix);
    if path.bytes().iter().all(|b| plain(b) && *b != b' ') {
        text.push_str(&path.display());
        return text;
    }
    for byte in path.bytes() {
        match byte {
            b'"' => text.push_str("\\\""),
            b'\\' => text.push_str("\\\\"),
            b'\n' => text.push_str("\\n"),
            b'\t' => text.push_str("\\t"),
            byte if plain(byte) => text.push(char::from(*byte)),
            byte => text.push_str(&format!("\\{byte:03o}")),
        }
    }
    format!("\"{text}\"")
}
