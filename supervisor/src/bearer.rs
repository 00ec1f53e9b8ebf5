//! Bearer tokens that we show to others (RFC 6750): from a file that is read anew each time, because the kubelet replaces it,
//! into a header that no log shows.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use axum::http::HeaderValue;

/// A token longer than this is a wrong file.
const MAX_TOKEN: u64 = 64 * 1024;

/// What the file says now, without the white space around it; it may be empty.
pub(crate) fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MAX_TOKEN).read_to_string(&mut text)?;
    Ok(text.trim().into())
}

/// `Authorization`, marked as sensitive. `None` where the token has bytes that no header may have.
pub(crate) fn header(token: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(format!("Bearer {token}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}
