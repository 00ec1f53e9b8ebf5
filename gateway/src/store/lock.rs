//! One gateway for one store, or several that know of each other ([`super::leases`]): two that do not would each keep a registry
//! of their own, and acknowledge what the other fences off.
//!
//! SQLite: the lock is of the process (flock(2) on a file beside the database), so that it ends with it, however it ends.
//! PostgreSQL: an advisory lock of a connection of its own. It ends with that connection, so a restart of the database frees
//! it; fences keep the records right even then.

use std::fmt;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sqlx::pool::PoolConnection;
use sqlx::{Any, AnyPool};

use super::StoreError;

/// Of all advisory locks of a database, the one that means this: `chaperon` as a number.
pub(super) const SERVING: i64 = 0x6368_6170_6572_6f6e;
/// And the one of who changes the schema: `migrates`.
pub(super) const MIGRATING: i64 = 0x6d69_6772_6174_6573;

/// A server lets go of a connection's lock once it has seen the end of it, which takes a moment.
const SETTLE: Duration = Duration::from_secs(5);
/// Between two tries.
const AGAIN: Duration = Duration::from_millis(100);

/// Held for as long as the store is open.
#[derive(Clone)]
pub(super) enum Lock {
    File {
        _file: Arc<File>,
    },
    /// Nobody speaks on it; the mutex only lets it be shared.
    Connection {
        _connection: Arc<Mutex<PoolConnection<Any>>>,
    },
}

impl fmt::Debug for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Lock::File { .. } => "Lock::File",
            Lock::Connection { .. } => "Lock::Connection",
        })
    }
}

impl Lock {
    /// On the file beside an SQLite database; nobody waits for it.
    pub(super) fn beside(database: &Path) -> Result<Lock, StoreError> {
        let mut path = database.as_os_str().to_owned();
        path.push(".lock");
        let path = PathBuf::from(path);
        let failed = |source: std::io::Error| StoreError::Lock { path: path.clone(), source: Arc::new(source) };
        let file = File::options().write(true).create(true).truncate(false).open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Lock::File { _file: Arc::new(file) }),
            Err(TryLockError::WouldBlock) => Err(StoreError::Taken(database.display().to_string())),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }

    /// In a PostgreSQL database, by a connection that is kept; `shared` with others who say the same. Who has just gone is waited
    /// for a moment; then it is `taken`.
    pub(super) async fn within(
        pool: &AnyPool,
        number: i64,
        shared: bool,
        taken: StoreError,
    ) -> Result<Lock, StoreError> {
        let mut connection = pool.acquire().await?;
        let deadline = Instant::now() + SETTLE;
        let sql = if shared { "SELECT pg_try_advisory_lock_shared($1)" } else { "SELECT pg_try_advisory_lock($1)" };
        let take = || sqlx::query_scalar::<_, bool>(sql).bind(number);
        while !take().fetch_one(&mut *connection).await? {
            if Instant::now() >= deadline {
                return Err(taken);
            }
            tokio::time::sleep(AGAIN).await;
        }
        Ok(Lock::Connection { _connection: Arc::new(Mutex::new(connection)) })
    }
}
