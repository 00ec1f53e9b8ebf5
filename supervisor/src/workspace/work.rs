//! The pieces of work that a worker does, and how one is written on its command line.
//!
//! A path may be any bytes, which arguments can carry; contents come on standard input. Nothing here is secret.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use super::path::Relative;

/// One piece of work.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Work {
    /// A page of what is beneath a directory, as the JSON that clients get.
    List { root: PathBuf, directory: Option<Relative>, recursive: bool, after: Option<Relative>, limit: u64 },
    /// What is at a path, as JSON.
    Stat { root: PathBuf, path: Option<Relative> },
    /// Bytes of a file.
    Read { root: PathBuf, path: Relative, span: Span },
    /// Replace a file by exactly `length` bytes of standard input.
    Write { root: PathBuf, path: Relative, mode: u32, parents: bool, length: u64 },
    /// Remove a file, a link or an empty directory.
    Remove { root: PathBuf, path: Relative },
    /// Everything as tar.
    Pack { root: PathBuf, gzip: bool },
    /// Read the archive on standard input and write nothing.
    Check { most: u64 },
    /// Put what the archive on standard input has into an empty directory, or nothing.
    Unpack { root: PathBuf, most: u64 },
    /// The patch from the archive on standard input, a file, to what is there now.
    Diff { root: PathBuf },
    /// Empty a directory.
    Clear { root: PathBuf },
}

/// Which bytes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// All.
    Whole,
    /// From one byte to another, both included.
    Between(u64, u64),
    /// From one byte on.
    From(u64),
    /// So many at the end.
    Last(u64),
}

impl Work {
    /// The verb, then its operands; `None` and the root as an empty one.
    pub fn arguments(&self) -> Vec<OsString> {
        let path = |path: &Option<Relative>| path.as_ref().map_or_else(OsString::new, one);
        fn one(path: &Relative) -> OsString {
            OsString::from_vec(path.bytes().to_vec())
        }
        let text = |value: &dyn ToString| OsString::from(value.to_string());
        let mut words: Vec<OsString> = Vec::new();
        let (verb, root) = match self {
            Work::List { root, directory, recursive, after, limit } => {
                words.extend([path(directory), text(recursive), path(after), text(limit)]);
                ("list", Some(root))
            }
            Work::Stat { root, path: at } => {
                words.push(path(at));
                ("stat", Some(root))
            }
            Work::Read { root, path, span } => {
                words.extend([one(path), span.word().into()]);
                ("read", Some(root))
            }
            Work::Write { root, path, mode, parents, length } => {
                words.extend([one(path), text(mode), text(parents), text(length)]);
                ("write", Some(root))
            }
            Work::Remove { root, path } => {
                words.push(one(path));
                ("remove", Some(root))
            }
            Work::Pack { root, gzip } => {
                words.push(text(gzip));
                ("pack", Some(root))
            }
            Work::Check { most } => {
                words.push(text(most));
                ("check", None)
            }
            Work::Unpack { root, most } => {
                words.push(text(most));
                ("unpack", Some(root))
            }
            Work::Diff { root } => ("diff", Some(root)),
            Work::Clear { root } => ("clear", Some(root)),
        };
        let root = root.map(|root| root.clone().into_os_string());
        [OsString::from(verb)].into_iter().chain(root).chain(words).collect()
    }

    /// The inverse.
    pub fn parse(arguments: &[OsString]) -> Option<Work> {
        let (verb, rest) = arguments.split_first()?;
        let mut words = Words(rest.iter());
        let work = match verb.to_str()? {
            "list" => Work::List {
                root: words.root()?,
                directory: words.maybe_path()?,
                recursive: words.value()?,
                after: words.maybe_path()?,
                limit: words.value()?,
            },
            "stat" => Work::Stat { root: words.root()?, path: words.maybe_path()? },
            "read" => Work::Read { root: words.root()?, path: words.path()?, span: Span::parse(words.text()?)? },
            "write" => Work::Write {
                root: words.root()?,
                path: words.path()?,
                mode: words.value()?,
                parents: words.value()?,
                length: words.value()?,
            },
            "remove" => Work::Remove { root: words.root()?, path: words.path()? },
            "pack" => Work::Pack { root: words.root()?, gzip: words.value()? },
            "check" => Work::Check { most: words.value()? },
            "unpack" => Work::Unpack { root: words.root()?, most: words.value()? },
            "diff" => Work::Diff { root: words.root()? },
            "clear" => Work::Clear { root: words.root()? },
            _ => return None,
        };
        words.0.next().is_none().then_some(work)
    }

    /// The directory that it is about.
    pub fn root(&self) -> Option<&PathBuf> {
        match self {
            Work::Check { .. } => None,
            Work::List { root, .. }
            | Work::Stat { root, .. }
            | Work::Read { root, .. }
            | Work::Write { root, .. }
            | Work::Remove { root, .. }
            | Work::Pack { root, .. }
            | Work::Unpack { root, .. }
            | Work::Diff { root }
            | Work::Clear { root } => Some(root),
        }
    }

    /// Whether it changes anything.
    pub fn writes(&self) -> bool {
        matches!(self, Work::Write { .. } | Work::Remove { .. } | Work::Unpack { .. } | Work::Clear { .. })
    }
}

impl Span {
    fn word(self) -> String {
        match self {
            Span::Whole => "all".into(),
            Span::Between(first, last) => format!("{first}-{last}"),
            Span::From(first) => format!("{first}-"),
            Span::Last(count) => format!("-{count}"),
        }
    }

    /// As in `Range: bytes=…` (RFC 9110, 14.1.2); `None` for what is not one range.
    pub fn parse(text: &str) -> Option<Span> {
        if text == "all" {
            return Some(Span::Whole);
        }
        let number = |digits: &str| digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok()).flatten();
        let (first, last) = text.split_once('-')?;
        match (first, last) {
            ("", last) => number(last).map(Span::Last),
            (first, "") => number(first).map(Span::From),
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                (first <= last).then_some(Span::Between(first, last))
            }
        }
    }

    /// First byte and count, within a file of `size` bytes; `None` where it has none of them.
    pub fn within(self, size: u64) -> Option<(u64, u64)> {
        match self {
            Span::Whole => Some((0, size)),
            Span::Between(first, _) | Span::From(first) if first >= size => None,
            Span::Between(first, last) => Some((first, last.min(size - 1) - first + 1)),
            Span::From(first) => Some((first, size - first)),
            Span::Last(0) => None,
            Span::Last(_) if size == 0 => None,
            Span::Last(count) => Some((size - count.min(size), count.min(size))),
        }
    }
}

struct Words<'a>(std::slice::Iter<'a, OsString>);

impl<'a> Words<'a> {
    fn next(&mut self) -> Option<&'a OsStr> {
        self.0.next().map(OsString::as_os_str)
    }

    fn root(&mut self) -> Option<PathBuf> {
        self.next().map(PathBuf::from).filter(|root| root.is_absolute())
    }

    fn path(&mut self) -> Option<Relative> {
        Relative::new(self.next()?.as_bytes()).ok()
    }

    fn maybe_path(&mut self) -> Option<Option<Relative>> {
        match self.next()?.as_bytes() {
            b"" => Some(None),
            bytes => Relative::new(bytes).ok().map(Some),
        }
    }

    fn text(&mut self) -> Option<&'a str> {
        self.next()?.to_str()
    }

    fn value<T: std::str::FromStr>(&mut self) -> Option<T> {
        self.text()?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_work_comes_back_from_its_arguments() {
        let root = PathBuf::from("/r");
        let path = Relative::new(b"-a/\xff b").expect("plain");
        for work in [
            Work::List { root: root.clone(), directory: None, recursive: true, after: Some(path.clone()), limit: 7 },
            Work::Stat { root: root.clone(), path: None },
            Work::Read { root: root.clone(), path: path.clone(), span: Span::Last(3) },
            Work::Read { root: root.clone(), path: path.clone(), span: Span::Whole },
            Work::Write { root: root.clone(), path: path.clone(), mode: 0o644, parents: true, length: 9 },
            Work::Remove { root: root.clone(), path },
            Work::Pack { root: root.clone(), gzip: false },
            Work::Check { most: 1 },
            Work::Unpack { root: root.clone(), most: 2 },
            Work::Diff { root: root.clone() },
            Work::Clear { root },
        ] {
            assert_eq!(Work::parse(&work.arguments()), Some(work));
        }
        let words = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
        for bad in [&["read", "/r", "../x", "all"][..], &["read", "r", "x", "all"], &["diff", "/r", "more"], &["no"]] {
            assert_eq!(Work::parse(&words(bad)), None, "{bad:?}");
        }
    }

    #[test]
    fn ranges_are_those_of_http() {
        for (text, size, expected) in [
            ("0-0", 5, Some((0, 1))),
            ("2-9", 5, Some((2, 3))),
            ("4-", 5, Some((4, 1))),
            ("5-", 5, None),
            ("-2", 5, Some((3, 2))),
            ("-9", 5, Some((0, 5))),
            ("-0", 5, None),
            ("all", 0, Some((0, 0))),
            ("-1", 0, None),
        ] {
            assert_eq!(Span::parse(text).and_then(|span| span.within(size)), expected, "{text} of {size}");
        }
        for bad in ["", "-", "2-1", "a-b", "1-2,3-4", "+1-2"] {
            assert_eq!(Span::parse(bad), None, "{bad}");
        }
    }
}
