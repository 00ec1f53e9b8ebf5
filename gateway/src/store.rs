//! What outlives this process: sandboxes, records, cursors, commands.
//!
//! Promises: what [`Store::write`] has answered is on the disk; a record and the cursor that counts it are in one
//! transaction, so that each is stored once; a write of a session that a newer one has fenced off changes nothing. All
//! writes go through one task, which takes all that wait into one transaction (group commit); readers do not wait for it.
//!
//! A database that does not answer is given up after a while, and what waits for it fails ([`patience`]).
//!
//! The SQL is what SQLite and PostgreSQL both take, but for what only one of them needs: how it is [opened](Store::open), how gateways share it
//! ([`leases`]), and fewer statements where each is a way to a server (`begin.rs`, `sessions.rs`).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::metrics::Metrics;
use patience::Pool;
use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::{AnyConnection, AnyPool, ConnectOptions, Executor};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

mod begin;
mod commands;
mod events;
mod followers;
pub mod leases;
mod lock;
pub mod migrate;
mod patience;
mod retention;
mod sandboxes;
mod sessions;
mod term;
pub mod told;
mod writer;

pub use begin::{Begin, Begun, Cursors, NotBegun, UNTIL};
pub use commands::{Applied, Command, Give, Outcomes};
pub use events::{Event, Page};
pub use followers::{Followers, Following};
pub use leases::{Heard, Leases, Leave, Notice};
pub use patience::InPlace;
pub use retention::Keep;
pub use sandboxes::{Forget, Owner, Reading, Register, Registered, Row, Unwant, Wake, Want};
pub use sessions::{Append, Appended, End, Piece};
pub use term::Term;
pub use told::Tell;
pub use writer::{Write, Writer};

/// Readers at once.
const READERS: u32 = 4;
/// Bytes of records that may wait for the disk, of all sessions together.
const WAITING: usize = 32 * 1024 * 1024;
/// How long a statement waits for another process that writes.
const BUSY: Duration = Duration::from_secs(5);

/// Why nothing was stored or read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be opened.
    #[error("the database cannot be opened")]
    Open(#[source] Arc<sqlx::Error>),
    /// Another gateway has it.
    #[error("another gateway works with the database {0}: stop that one first, or name another database")]
    Taken(String),
    /// Another gateway has it, and shares it with nobody.
    #[error(
        "a gateway without GATEWAY_ADVERTISE_URL works with this database: stop that one first, or give it the setting too"
    )]
    Alone,
    /// Somebody else changes the schema.
    #[error("another `gateway migrate up` works on this database: wait for it")]
    Migrating,
    /// Nobody can know whether another gateway has it.
    #[error("the lock {path} beside the database cannot be taken")]
    Lock {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: Arc<std::io::Error>,
    },
    /// There is no database yet.
    #[error("there is no database at {0}: run `gateway migrate up`")]
    Missing(PathBuf),
    /// A statement failed.
    #[error("the database refused")]
    Query(#[source] Arc<sqlx::Error>),
    /// The schema is not the one that this program works with.
    #[error("{0}")]
    Schema(migrate::Difference),
    /// Nothing comes from it.
    #[error("the database does not answer")]
    Silent,
    /// It took so long that it may be over.
    #[error("the lease was over before it was known to hold")]
    Late,
    /// So much waits for it that this would come too late.
    #[error("the store has more to do than it can: come again")]
    Behind,
    /// The gateway is stopping.
    #[error("the store is closed")]
    Closed,
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> StoreError {
        StoreError::Query(Arc::new(error))
    }
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Store {
    readers: Pool,
    writer: Pool,
    writes: writer::Queue,
    waiting: Arc<Semaphore>,
    followers: Followers,
    _lock: lock::Lock,
}

impl Store {
    /// Open a database whose schema is current: for one gateway alone, or where `several` says so for one of several, and never for
    /// both kinds at once.
    pub async fn open(url: &str, several: bool, metrics: Arc<Metrics>) -> Result<(Store, Writer), StoreError> {
        Store::open_with(url, several, None, metrics).await
    }

    /// The same for a simulation: whoever asks the database has its answer at once.
    pub async fn open_in_place(url: &str, wait: InPlace, metrics: Arc<Metrics>) -> Result<(Store, Writer), StoreError> {
        Store::open_with(url, false, Some(wait), metrics).await
    }

    async fn open_with(
        url: &str,
        several: bool,
        in_place: Option<InPlace>,
        metrics: Arc<Metrics>,
    ) -> Result<(Store, Writer), StoreError> {
        require_database(url)?;
        let lock = lock(url, several).await?;
        let readers = Pool { connections: connect(url, false, READERS).await?, in_place: in_place.clone() };
        migrate::require_current(&readers.connections).await?;
        let followers = Followers::default();
        let pool = Pool { connections: connect(url, false, 1).await?, in_place };
        let (writes, writer) = Writer::new(pool.clone(), metrics);
        let waiting = Arc::new(Semaphore::new(WAITING));
        Ok((Store { readers, writer: pool, writes, waiting, followers, _lock: lock }, writer))
    }

    /// Write, and answer when it is on the disk.
    pub async fn write<W: Write>(&self, write: W) -> Result<W::Answer, StoreError> {
        self.submit(write).await?.await.map_err(|_| StoreError::Closed)?
    }

    /// The same in two steps: in the queue, and on the disk. What one caller submits is written in its order.
    pub async fn submit<W: Write>(&self, write: W) -> Result<Receipt<W::Answer>, StoreError> {
        self.writes.submit(write).await
    }

    /// Read, on a connection of its own.
    async fn read<T>(
        &self,
        work: impl AsyncFnOnce(&mut AnyConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, StoreError> {
        Ok(patience::on(&self.readers, work).await?)
    }

    /// A place for so many bytes that are about to be submitted; to be held until they are on the disk.
    pub async fn room(&self, bytes: usize) -> OwnedSemaphorePermit {
        let bytes = u32::try_from(bytes.min(WAITING)).unwrap_or(u32::MAX);
        self.waiting.clone().acquire_many_owned(bytes).await.expect("the semaphore is never closed")
    }

    /// Finish what is being read and written, and let go of the database.
    pub async fn close(&self) {
        self.readers.connections.close().await;
        self.writer.connections.close().await;
    }

    /// Who waits for new records.
    pub fn followers(&self) -> &Followers {
        &self.followers
    }
}

/// Comes when the write is on the disk.
pub type Receipt<A> = oneshot::Receiver<Result<A, StoreError>>;

/// The file of an SQLite database.
fn file(url: &str) -> Option<&Path> {
    url.strip_prefix("sqlite:").map(Path::new)
}

/// For one gateway at a time, or for several that know of each other. SQLite has one.
async fn lock(url: &str, several: bool) -> Result<lock::Lock, StoreError> {
    match file(url) {
        Some(path) => lock::Lock::beside(path),
        None => {
            let taken = if several { StoreError::Alone } else { StoreError::Taken("of this URL".into()) };
            lock::Lock::within(&connect(url, false, 1).await?, lock::SERVING, several, taken).await
        }
    }
}

fn require_database(url: &str) -> Result<(), StoreError> {
    match file(url).filter(|path| !path.exists()) {
        Some(path) => Err(StoreError::Missing(path.into())),
        None => Ok(()),
    }
}

/// Connections to the database at `url`; `create` makes an empty one where there is none.
async fn connect(url: &str, create: bool, most: u32) -> Result<AnyPool, StoreError> {
    sqlx::any::install_default_drivers();
    let open = |error: sqlx::Error| StoreError::Open(Arc::new(error));
    if !create {
        require_database(url)?;
    }
    let address = match file(url) {
        Some(_) => format!("{url}?mode={}", if create { "rwc" } else { "rw" }),
        // Whoever runs a PostgreSQL makes its databases.
        None => url.to_owned(),
    };
    let options: AnyConnectOptions = address.parse().map_err(open)?;
    AnyPoolOptions::new()
        .max_connections(most)
        .acquire_timeout(BUSY)
        .after_connect(|connection, _| Box::pin(prepare(connection)))
        .connect_with(options.disable_statement_logging())
        .await
        .map_err(open)
}

/// An acknowledgement follows the commit, so a commit has to be on the disk: FULL, which WAL alone is not, and
/// `synchronous_commit`, whatever the server's default is. No statement runs for ever on the server, and a server notices
/// within a minute that a gateway's machine has gone. A gateway that stops in the middle of a transaction holds up nobody for longer
/// than others wait for a lock.
async fn prepare(connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
    let busy = BUSY.as_millis();
    let settings = match connection.backend_name() {
        "SQLite" => format!("PRAGMA busy_timeout = {busy}; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL"),
        _ => format!(
            "SET synchronous_commit = on; SET statement_timeout = {}; SET lock_timeout = {busy}; \
             SET idle_in_transaction_session_timeout = 3000; SET tcp_keepalives_idle = 20; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 4",
            2 * busy
        ),
    };
    connection.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(settings))).await?;
    Ok(())
}
