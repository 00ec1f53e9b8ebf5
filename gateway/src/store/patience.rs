//! A database that does not answer is given up: the network may drop everything without a word, and a server may be stopped.

use std::io;
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::{Any, AnyConnection, AnyPool};

/// Longer than a server lets a statement run (`statement_timeout`), so that an answer comes where one can.
const PATIENCE: Duration = Duration::from_secs(15);

/// Work on a connection of the pool. Where nothing comes in time, or nobody waits any more, the connection is closed and does not
/// go back: the pool would wait for what is under way on it. Nor where something failed: SQLite ends a transaction by itself where the
/// disk refuses its commit, sqlx does not learn of it, and would make the next one a part of a transaction that nobody ever commits.
pub(super) async fn on<T>(
    pool: &AnyPool,
    work: impl AsyncFnOnce(&mut AnyConnection) -> Result<T, sqlx::Error>,
) -> Result<T, sqlx::Error> {
    let mut taken = Taken(Some(pool.acquire().await?));
    let Some(connection) = &mut taken.0 else { unreachable!("just taken") };
    let silent = |_| sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, "the database does not answer"));
    let done = tokio::time::timeout(PATIENCE, work(connection)).await.map_err(silent)??;
    drop(taken.0.take());
    Ok(done)
}

/// A connection that goes back to its pool only where it is taken out of here.
struct Taken(Option<PoolConnection<Any>>);

impl Drop for Taken {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            drop(connection.detach());
        }
    }
}
