//! Who is who: bearer tokens of users and of sandboxes.
//!
//! A file has a line for each, `NAME TOKEN` or `NAME sha256:HEX`; blank lines and lines that begin with `#` are skipped. It is
//! read anew when it has changed, so a token is taken back by taking its line out. Only hashes are kept in memory and in the
//! store. What was presented is hashed and compared as a hash, in constant time: what can be learnt from the time that it
//! takes is about hashes, of which nobody can choose a piece.

use std::collections::HashMap;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// A longer file is a wrong one: 100,000 sandboxes fit.
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

/// A token file that cannot be used. No token is ever in it.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum TokensError {
    #[error("{path} cannot be read")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path}, line {line}: {problem}")]
    Line { path: PathBuf, line: usize, problem: &'static str },
}

/// A token file, read anew when it has changed. Cheap to clone.
#[derive(Clone)]
pub struct Tokens(Arc<File>);

struct File {
    path: PathBuf,
    known: Mutex<Option<Known>>,
}

struct Known {
    version: Version,
    names: Arc<HashMap<Hash, String>>,
}

/// What changes when a file does. The kubelet replaces the link, so the inode is another.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Version {
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl Tokens {
    /// The tokens of this file. It is not read yet: [`Tokens::check`] does.
    pub fn new(path: PathBuf) -> Tokens {
        Tokens(Arc::new(File { path, known: Mutex::new(None) }))
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
        let read = |source| TokensError::Read { path: self.0.path.clone(), source };
        let version = std::fs::metadata(&self.0.path).map(|meta| Version::of(&meta)).map_err(read)?;
        let mut known = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.as_ref().filter(|known| known.version == version) {
            return Ok(known.names.clone());
        }
        if version.size > MAX_FILE {
            return Err(read(io::Error::other(format!("it has more than {MAX_FILE} bytes"))));
        }
        let text = std::fs::read_to_string(&self.0.path).map_err(read)?;
        let names = Arc::new(parse(&self.0.path, &text)?);
        *known = Some(Known { version, names: names.clone() });
        Ok(names)
    }
}

impl Version {
    fn of(meta: &Metadata) -> Version {
        Version { inode: meta.ino(), size: meta.size(), changed: (meta.ctime(), meta.ctime_nsec()) }
    }
}

fn parse(path: &Path, text: &str) -> Result<HashMap<Hash, String>, TokensError> {
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
