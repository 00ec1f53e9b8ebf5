//! From text to values. An error says what was wrong and shows a right one.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use protocol::setting::{LONGEST_MILLIS, millis};

/// `250ms`, `25s`, `5m`, `2h`, longer than nothing and at most a hundred years.
pub fn duration(text: &str) -> Result<Duration, String> {
    millis(text)?
        .filter(|millis| (1..=LONGEST_MILLIS).contains(millis))
        .map(Duration::from_millis)
        .ok_or_else(|| format!("`{text}` is too short or too long"))
}

/// `[::]:8080`, `127.0.0.1:8080` or `:8080`.
pub fn address(text: &str) -> Result<SocketAddr, String> {
    let full = if text.starts_with(':') { format!("[::]{text}") } else { text.to_string() };
    full.parse().map_err(|_| format!("`{text}` is not an address; write for instance [::]:8080 or 127.0.0.1:8080"))
}

/// A path, from / or from where the gateway was started.
pub fn path(text: &str) -> Result<PathBuf, String> {
    std::path::absolute(text).map_err(|e| format!("`{text}` is not a path: {e}"))
}

/// `sqlite:PATH` or `postgres://…`. What it says may hold a password, so no error repeats it.
pub fn database(text: &str) -> Result<String, String> {
    let wrong =
        "is not a database that this gateway knows; write sqlite:PATH or postgres://USER:PASSWORD@HOST/DATABASE";
    if ["postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme)) {
        return Ok(text.to_owned());
    }
    let path = text.strip_prefix("sqlite:").filter(|path| !path.is_empty()).ok_or(wrong)?;
    // They would mean something in a URL.
    if path.contains(['?', '#', '%']) {
        return Err("has a ?, # or % in its path; use another path".into());
    }
    let path = std::path::absolute(path).map_err(|e| format!("is not a path: {e}"))?;
    Ok(format!("sqlite:{}", path.display()))
}

/// The name of a namespace (RFC 1123, a label).
pub fn namespace(text: &str) -> Result<String, String> {
    let known = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let label = text.len() <= 63 && text.bytes().all(known) && !text.starts_with('-') && !text.ends_with('-');
    if label {
        Ok(text.into())
    } else {
        Err(format!("`{text}` is no namespace: small letters, digits and dashes, 63 at most"))
    }
}

/// A whole number within bounds.
pub fn number(low: u32, high: u32) -> impl Fn(&str) -> Result<u32, String> {
    move |text| {
        let number = text.parse().ok().filter(|n| (low..=high).contains(n));
        number.ok_or_else(|| format!("`{text}` is not a whole number from {low} to {high}"))
    }
}

/// What stands in annotations, tokens and lines of text.
pub fn visible(text: &str) -> Result<String, String> {
    let known = text.len() <= 253 && text.bytes().all(|byte| byte.is_ascii_graphic());
    if known { Ok(text.into()) } else { Err("is not visible ASCII without blanks, 253 at most".into()) }
}

/// One of these words.
pub fn one_of<'w, T: Copy>(words: &'w [(&'w str, T)]) -> impl Fn(&str) -> Result<T, String> + 'w {
    move |text| {
        let known = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        known.ok_or_else(|| {
            let all = words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ");
            format!("`{text}` is none of {all}")
        })
    }
}
