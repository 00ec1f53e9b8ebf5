//! Files that are replaced while we run: read anew when they have changed.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What was made of some files.
#[derive(Debug)]
pub struct Replaced<T> {
    paths: Vec<PathBuf>,
    known: Mutex<Option<(Vec<Version>, Arc<T>)>>,
}

/// What changes when a file does. The kubelet replaces a link, so the inode is another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Version {
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl Version {
    fn of(meta: Metadata) -> Version {
        Version { inode: meta.ino(), size: meta.size(), changed: (meta.ctime(), meta.ctime_nsec()) }
    }
}

impl<T> Replaced<T> {
    /// Nothing is read yet.
    pub fn new(paths: Vec<PathBuf>) -> Replaced<T> {
        Replaced { paths, known: Mutex::new(None) }
    }

    /// What they say now; `make` is asked only where they have changed, or could not be used before.
    pub fn get<E>(
        &self,
        make: impl FnOnce() -> Result<T, E>,
        unreadable: impl Fn(PathBuf, io::Error) -> E,
    ) -> Result<Arc<T>, E> {
        // Looked at before they are read: a change in between is seen the next time.
        let versions = self
            .paths
            .iter()
            .map(|path| std::fs::metadata(path).map(Version::of).map_err(|error| unreadable(path.clone(), error)));
        let versions = versions.collect::<Result<Vec<_>, E>>()?;
        let mut known = self.lock();
        if let Some((_, made)) = known.as_ref().filter(|(seen, _)| *seen == versions) {
            return Ok(made.clone());
        }
        let made = Arc::new(make()?);
        *known = Some((versions, made.clone()));
        Ok(made)
    }

    /// What they said when they could be used last.
    pub fn last(&self) -> Option<Arc<T>> {
        self.lock().as_ref().map(|(_, made)| made.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Option<(Vec<Version>, Arc<T>)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
