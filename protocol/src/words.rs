//! Words of others on their way to a person, who may read them in a terminal.

/// Whether a terminal obeys this letter instead of showing it, or shows others in another order for it: control characters (ECMA-48), the
/// bidirectional formatting characters (Unicode, UAX #9, 2; CVE-2021-42574), and the separators of lines and paragraphs.
pub fn steers(letter: char) -> bool {
    let bidirectional =
        matches!(letter, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    letter.is_control() || bidirectional || matches!(letter, '\u{2028}' | '\u{2029}')
}

/// The same words on one line, with a blank for each letter that [`steers`].
pub fn printable(text: &str) -> String {
    text.replace(steers, " ")
}

/// The same JSON, with an escape (RFC 8259, 7) for each letter that [`steers`], but its line breaks: outside of strings it has no other.
pub fn printable_json(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for letter in json.chars() {
        match letter {
            // The basic plane has all of them.
            letter if steers(letter) && letter != '\n' => text += &format!("\\u{:04x}", u32::from(letter)),
            letter => text.push(letter),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_steers_the_terminal_or_turns_the_line_around() {
        assert_eq!(printable("a\u{1b}[2J\u{9b}K\u{7f}\r\n\u{202e}b\u{2069}\u{2028}c ä–日"), "a [2J K    b  c ä–日");
    }

    #[test]
    fn json_says_the_same_without_steering_the_terminal() {
        let said = "a\u{1b}[2J\u{9b}K\u{7f}\n\u{202e}b ä😀";
        let json = serde_json::to_string_pretty(&serde_json::json!({"detail": said})).expect("plain data");
        let tame = printable_json(&json);
        assert!(tame.lines().all(|line| !line.contains(steers)), "{tame:?}");
        let read: serde_json::Value = serde_json::from_str(&tame).expect("JSON");
        assert_eq!(read["detail"], said);
    }
}
