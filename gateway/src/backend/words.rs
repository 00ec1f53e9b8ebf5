//! Words of others, before a person reads them: one line, not too long, and nothing that a terminal would obey.

use protocol::words::printable;

/// Longer ones are cut.
const WORDS: usize = 600;

/// One line, and no longer than people read.
pub(crate) fn cut(text: &str) -> String {
    let line = line(text);
    match line.char_indices().nth(WORDS) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// The same of its end.
pub(crate) fn cut_to_end(text: &str) -> String {
    let line = line(text);
    match line.char_indices().rev().nth(WORDS) {
        Some((before, letter)) => format!("…{}", &line[before + letter.len_utf8()..]),
        None => line,
    }
}

/// Whatever a program wrote, without what a terminal would obey.
fn line(text: &str) -> String {
    printable(text).split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_words_are_cut_between_letters() {
        assert_eq!(cut(&"ä".repeat(WORDS + 1)).chars().count(), WORDS + 1);
        assert_eq!(cut_to_end(&format!("{}b", "ä".repeat(WORDS))), format!("…{}b", "ä".repeat(WORDS - 1)));
        assert_eq!((cut("a\n\u{1b}[b\0"), cut_to_end("a b")), ("a [b".into(), "a b".into()));
    }
}
