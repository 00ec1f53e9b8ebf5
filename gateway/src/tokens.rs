//! Who is who: bearer tokens of users and of sandboxes.
//!
//! A file has a line for each, `NAME TOKEN` or `NAME sha256:HEX`; blank lines and lines that begin with `#` are skipped. It is
//! read anew when it has changed, so a token is taken back by taking its line out. Only hashes are kept in memory and in the
//! store. What was presented is hashed and compared as a hash, in constant time: what can be learnt from the time that it
//! takes is about hashes, of which nobody can choose a piece.

use std::collections::HashMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::replaced::Replaced;

/// Read of a file: 100,000 sandboxes fit.
const MAX_FILE: u64 = 32 * 1024 * 1024;
/// The longest name: an agent's id.
pub const MAX_NAME: usize = 128;

/// SHA-256 of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Hash([u8; 32]);

impl Hash {
    /// Of this token.
    pub fn of(token: &str) -> Hash {
        Hash(Sha256::digest(token.as_bytes()).into())
    }

    /// 64 hex digits.
    pub fn hex(&self) -> String {
        hex(&self.0)
    }

    fn from_hex(text: &str) -> Option<Hash> {
        let digits = text.as_bytes();
        let mut bytes = [0; 32];
        if digits.len() != 64 || !text.is_ascii() {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Hash(bytes))
    }
}

/// Bytes as hex digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A token that nobody can guess: 256 random bits.
pub fn new_token() -> io::Result<String> {
    let mut bytes = [0; 32];
    io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut bytes)?;
    Ok(hex(&bytes))
}

/// A token file that cannot be used. No token is ever in it.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum TokensError {
    #[error("{path} cannot be read")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path}, line {line}: {problem}")]
    Line { path: PathBuf, line: usize, problem: &'static str },
}

/// A token file.
pub struct Tokens {
    path: PathBuf,
    names: Replaced<HashMap<Hash, String>>,
}

impl Tokens {
    /// The tokens of this file. It is not read yet: [`Tokens::check`] does.
    pub fn new(path: PathBuf) -> Tokens {
        Tokens { names: Replaced::new(vec![path.clone()]), path }
    }

    /// Whether the file can be used.
    pub fn check(&self) -> Result<(), TokensError> {
        self.names().map(|_| ())
    }

    /// Whose token this is.
    pub fn name_of(&self, token: &str) -> Result<Option<String>, TokensError> {
        let (names, presented) = (self.names()?, Hash::of(token));
        let found = names.get_key_value(&presented).filter(|(hash, _)| bool::from(hash.0.ct_eq(&presented.0)));
        Ok(found.map(|(_, name)| name.clone()))
    }

    fn names(&self) -> Result<Arc<HashMap<Hash, String>>, TokensError> {
        self.names.get(|| self.read(), |path, source| TokensError::Read { path, source })
    }

    fn read(&self) -> Result<HashMap<Hash, String>, TokensError> {
        let mut text = String::new();
        let read = std::fs::File::open(&self.path).and_then(|file| file.take(MAX_FILE).read_to_string(&mut text));
        read.map_err(|source| TokensError::Read { path: self.path.clone(), source })?;
        parse(&self.path, &text)
    }
}

/// What a file says, whose name is for errors.
pub(crate) fn parse(path: &Path, text: &str) -> Result<HashMap<Hash, String>, TokensError> {
    let mut names = HashMap::new();
    for (line, content) in text.lines().enumerate().map(|(index, line)| (index + 1, line.trim())) {
        let wrong = |problem| TokensError::Line { path: path.into(), line, problem };
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        let (name, token) = content.split_once(char::is_whitespace).ok_or_else(|| wrong("is not NAME TOKEN"))?;
        if !is_name(name) {
            return Err(wrong("the name has letters, digits, dots, dashes and underscores, 128 at most"));
        }
        let hash = match token.trim().strip_prefix("sha256:") {
            Some(hex) => Hash::from_hex(hex).ok_or_else(|| wrong("after sha256: there are 64 hex digits"))?,
            None => Hash::of(token.trim()),
        };
        if names.insert(hash, name.to_string()).is_some() {
            return Err(wrong("another line has the same token"));
        }
    }
    Ok(names)
}

/// Names of users and ids of agents.
pub fn is_name(name: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    !name.is_empty() && name.len() <= MAX_NAME && name.bytes().all(known) && !name.starts_with('.')
}

/// The token of an `Authorization: Bearer …` header.
pub fn bearer(headers: &axum::http::HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(axum::http::header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Result<HashMap<Hash, String>, String> {
        parse(Path::new("tokens"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_line_has_a_token_or_its_hash() {
        let hash = Hash::of("s3cret").hex();
        let read = names(&format!("# people\n\nann s3cret2\nbob  sha256:{hash}\n")).expect("a good file");
        assert_eq!(read.get(&Hash::of("s3cret")).map(String::as_str), Some("bob"));
        assert_eq!(read.get(&Hash::of("s3cret2")).map(String::as_str), Some("ann"));
    }

    #[test]
    fn a_bad_line_is_named_and_its_token_is_not() {
        for bad in ["s3cret", "a/b s3cret", "bob sha256:s3cret", "ann s3cret\nbob s3cret"] {
            let error = names(bad).expect_err(bad);
            assert!(error.contains("line") && !error.contains("s3cret"), "{error}");
        }
    }
}
