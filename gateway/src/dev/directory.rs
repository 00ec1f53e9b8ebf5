//! The directory of `gateway dev`: one owner, private, and what is in it.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::config::parse;
use crate::exit::{self, Fault};
use crate::tokens::{Hash, new_token};

/// Why the directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub(super) enum DirectoryError {
    #[error("{path} cannot be made")]
    Make { path: PathBuf, source: io::Error },
    #[error(
        "{path} is in use by the `gateway dev` of pid {owner}: stop that one, or name another directory with --dir"
    )]
    InUse { path: PathBuf, owner: String },
    #[error("{path} cannot be used")]
    Use { path: PathBuf, source: io::Error },
    #[error("{path} cannot hold a database: it {problem}")]
    Name { path: PathBuf, problem: String },
}

impl DirectoryError {
    pub(super) fn fault(&self) -> Fault {
        let code = match self {
            DirectoryError::InUse { .. } => exit::TEMPORARY,
            _ => exit::CONFIGURATION,
        };
        Fault::new(code, self)
    }
}

/// Open and locked; the kernel lets the lock go with the process.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    _lock: File,
}

impl Directory {
    pub(super) fn open(path: &Path) -> Result<Directory, DirectoryError> {
        let make = |path: &Path| {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
            made.map_err(|source| DirectoryError::Make { path: path.into(), source })
        };
        make(path)?;
        let used = |source| DirectoryError::Use { path: path.into(), source };
        // Supervisors and their files are told by their paths, which must be the same whoever starts them from where.
        let path = path.canonicalize().map_err(used)?;
        make(&path.join("sandboxes"))?;
        let mut lock = private().read(true).truncate(false).open(path.join("lock")).map_err(used)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut owner = String::new();
                let _ = (&lock).take(32).read_to_string(&mut owner);
                return Err(DirectoryError::InUse { path, owner: owner.trim().into() });
            }
            Err(TryLockError::Error(source)) => return Err(used(source)),
        }
        lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id())).map_err(used)?;
        Ok(Directory { path, _lock: lock })
    }

    pub(super) fn sandboxes(&self) -> PathBuf {
        self.path.join("sandboxes")
    }

    /// The file of users: one, with the token's hash.
    pub(super) fn users(&self) -> PathBuf {
        self.path.join("users")
    }

    pub(super) fn database(&self) -> Result<String, DirectoryError> {
        let path = self.path.join("gateway.db");
        parse::database(&format!("sqlite:{}", path.display())).map_err(|problem| DirectoryError::Name { path, problem })
    }

    /// Where the gateway listened last.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        std::fs::read_to_string(self.path.join("address")).ok()?.trim().parse().ok()
    }

    /// Write down where it listens, and the user's token where there is none; the token's file.
    pub(super) fn prepare(&self, address: SocketAddr) -> Result<PathBuf, DirectoryError> {
        let token_file = self.path.join("token");
        let prepared = || {
            let write = |path: &Path, text: String| private().truncate(true).open(path)?.write_all(text.as_bytes());
            write(&self.path.join("address"), address.to_string())?;
            let token = match std::fs::read_to_string(&token_file) {
                Ok(token) if !token.trim().is_empty() => token,
                _ => {
                    let token = new_token()?;
                    write(&token_file, token.clone())?;
                    token
                }
            };
            write(&self.users(), format!("dev sha256:{}\n", Hash::of(token.trim()).hex()))
        };
        prepared().map_err(|source| DirectoryError::Use { path: self.path.clone(), source })?;
        Ok(token_file)
    }
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create(true).mode(0o600);
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_one_owner_who_is_named_to_the_second() {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        let path = scratch.path().join("dev");
        let first = Directory::open(&path).expect("free");
        let fault = Directory::open(&path).expect_err("in use").fault();
        assert_eq!(fault.code, exit::TEMPORARY);
        assert!(fault.reason.contains(&std::process::id().to_string()), "{}", fault.reason);
        drop(first);
        Directory::open(&path).expect("free again");
    }

    #[test]
    fn the_token_stays_and_is_private() {
        use std::os::unix::fs::PermissionsExt;
        let scratch = tempfile::tempdir().expect("a scratch directory");
        let directory = Directory::open(&scratch.path().join("dev")).expect("free");
        let address = "127.0.0.1:8080".parse().expect("an address");
        let file = directory.prepare(address).expect("prepared");
        let token = std::fs::read_to_string(&file).expect("written");
        assert_eq!(directory.prepare(address).expect("prepared"), file);
        assert_eq!(std::fs::read_to_string(&file).expect("written"), token);
        assert_eq!(std::fs::metadata(&file).expect("written").permissions().mode() & 0o777, 0o600);
        assert_eq!(directory.address(), Some(address));
        let users = crate::tokens::Tokens::new(directory.users());
        assert_eq!(users.name_of(&token).expect("a good file").as_deref(), Some("dev"));
    }
}
