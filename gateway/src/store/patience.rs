//! A database that does not answer is given up: the network may drop everything without a word, and a server may be stopped.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::{Any, AnyConnection, AnyPool};

/// Longer than a server lets a statement run (`statement_timeout`), so that an answer comes where one can.
const PATIENCE: Duration = Duration::from_secs(15);

/// Runs work of the database to its end before it returns, or has the database fail, before the work or behind it. In a simulation: time stands
/// still meanwhile, and nothing else goes on.
pub type InPlace = Arc<dyn for<'a> Fn(Pin<&'a mut (dyn Future<Output = ()> + 'a)>) -> io::Result<()> + Send + Sync>;

/// Connections to one database, and how their work is waited for. Cheap to clone.
#[derive(Clone)]
pub(super) struct Pool {
    pub(super) connections: AnyPool,
    /// Only in a simulation.
    pub(super) in_place: Option<InPlace>,
}

impl Pool {
    /// Whoever asks goes on when the answer comes.
    pub(super) fn new(connections: AnyPool) -> Pool {
        Pool { connections, in_place: None }
    }
}

/// Work on a connection of the pool, waited for as the pool says.
pub(super) async fn on<T>(
    pool: &Pool,
    work: impl AsyncFnOnce(&mut AnyConnection) -> Result<T, sqlx::Error>,
) -> Result<T, sqlx::Error> {
    let working = patiently(&pool.connections, work);
    let Some(in_place) = &pool.in_place else { return working.await };
    let mut done = None;
    in_place(pin!(async { done = Some(working.await) }))?;
    done.unwrap_or(Err(sqlx::Error::PoolClosed))
}

/// Where nothing comes in time, or nobody waits any more, the connection is closed and does not go back: the pool would wait for what is
/// under way on it. Nor where something failed: SQLite ends a transaction by itself where the disk refuses its commit, sqlx does not learn
/// of it, and would make the next one a part of a transaction that nobody ever commits.
async fn patiently<T>(
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
