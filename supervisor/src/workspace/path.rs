//! A path beneath a root: what a client or an archive may name.
//!
//! Plain names with `/` between, nothing else: not empty, no `.` and `..`, no NUL, bounded in length and depth. Bytes,
//! because file names are.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Longest path, deepest nesting, and what `NAME_MAX` says of one name (limits.h).
const MAX_PATH: usize = 2048;
const MAX_DEPTH: usize = 100;
const MAX_NAME: usize = 255;

/// A checked path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Relative(Vec<u8>);

/// Why a path is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum PathError {
    #[error("is empty")]
    Empty,
    #[error("is absolute")]
    Absolute,
    #[error("has a part that is empty, `.` or `..`")]
    Step,
    #[error("has a NUL byte")]
    Nul,
    #[error("is longer than {MAX_PATH} bytes, has a name longer than {MAX_NAME}, or is deeper than {MAX_DEPTH}")]
    TooLong,
}

impl Relative {
    /// Check `bytes`.
    pub fn new(bytes: &[u8]) -> Result<Relative, PathError> {
        if bytes.is_empty() {
            return Err(PathError::Empty);
        }
        if bytes[0] == b'/' {
            return Err(PathError::Absolute);
        }
        if bytes.contains(&0) {
            return Err(PathError::Nul);
        }
        if bytes.len() > MAX_PATH {
            return Err(PathError::TooLong);
        }
        let mut depth = 0;
        for name in bytes.split(|b| *b == b'/') {
            if matches!(name, b"" | b"." | b"..") {
                return Err(PathError::Step);
            }
            depth += 1;
            if name.len() > MAX_NAME || depth > MAX_DEPTH {
                return Err(PathError::TooLong);
            }
        }
        Ok(Relative(bytes.to_vec()))
    }

    /// An archive's path: with a leading `./` and a slash at the end. `None` is the root itself.
    pub fn from_archive(bytes: &[u8]) -> Result<Option<Relative>, PathError> {
        if bytes.first() == Some(&b'/') {
            return Err(PathError::Absolute);
        }
        let mut names = bytes.split(|b| *b == b'/').filter(|name| !matches!(*name, b"" | b"."));
        let Some(first) = names.next() else { return Ok(None) };
        let mut path = first.to_vec();
        for name in names {
            path.push(b'/');
            path.extend(name);
        }
        Relative::new(&path).map(Some)
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// For system calls.
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }

    /// Its last name.
    pub fn name(&self) -> &OsStr {
        OsStr::from_bytes(self.0.rsplit(|b| *b == b'/').next().unwrap_or_default())
    }

    /// What it lies in; `None` for the root.
    pub fn parent(&self) -> Option<Relative> {
        let end = self.0.iter().rposition(|b| *b == b'/')?;
        Some(Relative(self.0[..end].to_vec()))
    }

    /// Its names in order.
    pub fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|b| *b == b'/')
    }

    /// A name beneath it; `None` as the directory is the root.
    pub fn beneath(directory: Option<&Relative>, name: &OsStr) -> Result<Relative, PathError> {
        let mut path = directory.map_or_else(Vec::new, |d| [d.bytes(), b"/"].concat());
        path.extend(name.as_bytes());
        Relative::new(&path)
    }

    /// Whether a symlink here with this target stays inside, as its words say. What the words do not show (a link on
    /// the way) is why nobody of ours ever follows one.
    pub fn link_stays_inside(&self, target: &[u8]) -> bool {
        if target.is_empty() || target.first() == Some(&b'/') || target.contains(&0) || target.len() > MAX_PATH {
            return false;
        }
        let mut depth = self.names().count() - 1;
        for name in target.split(|b| *b == b'/') {
            match name {
                b"" | b"." => {}
                b".." if depth == 0 => return false,
                b".." => depth -= 1,
                _ => depth += 1,
            }
        }
        true
    }

    /// For messages and JSON.
    pub fn display(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_accepted_path_never_leaves_its_root(bytes in proptest::collection::vec(prop_oneof![Just(b'.'), Just(b'/'), Just(b'a'), Just(0u8)], 0..12)) {
            let checked = [Relative::new(&bytes).ok(), Relative::from_archive(&bytes).ok().flatten()];
            for path in checked.into_iter().flatten() {
                prop_assert!(path.as_path().components().all(|c| matches!(c, std::path::Component::Normal(_))));
            }
        }

        #[test]
        fn an_accepted_link_never_leads_outside(
            at in "[a-c](/[a-c]){0,3}",
            target in proptest::collection::vec(prop_oneof![Just(".."), Just("."), Just("a"), Just("")], 1..8),
        ) {
            let at = Relative::new(at.as_bytes()).expect("plain");
            let target = target.join("/");
            if at.link_stays_inside(target.as_bytes()) {
                let mut depth = at.names().count() as i64 - 1;
                for name in target.split('/') {
                    depth += match name { ".." => -1, "" | "." => 0, _ => 1 };
                    prop_assert!(depth >= 0);
                }
            }
        }
    }

    #[test]
    fn what_is_refused_is_named() {
        for (path, error) in [
            ("", PathError::Empty),
            ("/etc", PathError::Absolute),
            ("a/../b", PathError::Step),
            ("..", PathError::Step),
            ("a//b", PathError::Step),
            ("a/", PathError::Step),
            ("./a", PathError::Step),
            ("a\0", PathError::Nul),
        ] {
            assert_eq!(Relative::new(path.as_bytes()), Err(error), "{path:?}");
        }
        assert_eq!(Relative::new(&[b'a'; 256]), Err(PathError::TooLong));
        assert_eq!(
            Relative::new("a/".repeat(100).as_bytes().strip_suffix(b"/").expect("one")).map(|p| p.names().count()),
            Ok(100)
        );
        assert_eq!(Relative::new(format!("{}a", "a/".repeat(100)).as_bytes()), Err(PathError::TooLong));
    }

    #[test]
    fn an_archives_way_of_writing_paths_is_understood() {
        assert_eq!(Relative::from_archive(b"./a/b/").expect("fine").expect("a path").bytes(), b"a/b");
        assert_eq!(Relative::from_archive(b"./"), Ok(None));
        assert_eq!(Relative::from_archive(b"/a"), Err(PathError::Absolute));
        assert_eq!(Relative::from_archive(b"./../a"), Err(PathError::Step));
    }
}
