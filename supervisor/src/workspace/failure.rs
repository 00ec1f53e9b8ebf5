//! Why a piece of workspace work was not done, in words for the client and a kind for the status code.

use std::io;

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

/// What the client can make of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The request or the archive is wrong.
    Invalid,
    /// There is no such path.
    NotFound,
    /// The path leads through a link, or its mode forbids it.
    Forbidden,
    /// What is there is of another kind, or not empty.
    Conflict,
    /// The client's bytes did not come in their time.
    Late,
    /// Over a bound.
    TooLarge,
    /// No space.
    Full,
    /// Too many do the same just now.
    Busy,
    /// Anything else.
    Internal,
}

/// One thing that went wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// For the status.
    pub kind: Kind,
    /// For the person.
    pub message: String,
}

impl Failure {
    /// A failure with words.
    pub fn new(kind: Kind, message: impl Into<String>) -> Failure {
        Failure { kind, message: message.into() }
    }

    /// What the kernel said about `path`.
    pub fn at(path: &str, error: &io::Error) -> Failure {
        let errno = error.raw_os_error().map(Errno::from_raw);
        let (kind, words) = match errno {
            Some(Errno::ENOENT | Errno::ENOTDIR) => (Kind::NotFound, "is not there"),
            Some(Errno::ELOOP | Errno::EXDEV) => (Kind::Forbidden, "leads through a symbolic link"),
            Some(Errno::EACCES | Errno::EPERM | Errno::EROFS) => {
                (Kind::Forbidden, "cannot be opened with these rights")
            }
            Some(Errno::EEXIST | Errno::ENOTEMPTY) => (Kind::Conflict, "is there and not empty"),
            Some(Errno::ENAMETOOLONG) => (Kind::Invalid, "is too long"),
            Some(Errno::ENOSPC | Errno::EDQUOT) => (Kind::Full, "does not fit: no space is left"),
            Some(Errno::EISDIR) => (Kind::Conflict, "is a directory"),
            _ if error.kind() == io::ErrorKind::IsADirectory => (Kind::Conflict, "is a directory"),
            _ => return Failure::new(Kind::Internal, format!("{path}: {error}")),
        };
        Failure::new(kind, format!("{path} {words}"))
    }
}
