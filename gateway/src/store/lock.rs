//! One gateway for one SQLite store: two would each keep a registry of their own, and acknowledge what the other fences off.
//!
//! The lock is of the process (flock(2) on a file beside the database), so that it ends with it, however it ends.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::StoreError;

/// Held for as long as the store is open.
#[derive(Clone, Debug)]
pub(super) struct Lock {
    _file: Arc<File>,
}

impl Lock {
    /// Take it; nobody waits for it.
    pub(super) fn take(database: &Path) -> Result<Lock, StoreError> {
        let mut path = database.as_os_str().to_owned();
        path.push(".lock");
        let path = PathBuf::from(path);
        let failed = |source: std::io::Error| StoreError::Lock { path: path.clone(), source: Arc::new(source) };
        let file = File::options().write(true).create(true).truncate(false).open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Lock { _file: Arc::new(file) }),
            Err(TryLockError::WouldBlock) => Err(StoreError::Taken(database.into())),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }
}
