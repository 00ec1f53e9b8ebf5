//! One file a target.

pub(crate) mod archives;
pub(crate) mod control;
pub(crate) mod files;
pub(crate) mod frames;
pub(crate) mod journal;
pub(crate) mod kernel;
pub(crate) mod log;
pub(crate) mod messages;
pub(crate) mod names;
pub(crate) mod notifications;
pub(crate) mod records;
pub(crate) mod requests;
pub(crate) mod signed;
pub(crate) mod streams;
pub(crate) mod tasks;
pub(crate) mod templates;

/// As text, where it is; parsers of text get their bytes so from their readers.
fn text(data: &[u8]) -> Option<&str> {
    std::str::from_utf8(data).ok()
}

/// Seeds that are text.
fn texts(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}
