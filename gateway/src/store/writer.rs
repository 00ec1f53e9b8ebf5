//! The one task that writes: all that wait go into one transaction, in the order in which they were handed in, and everybody is answered after its
//! commit. So where a session's end is stored, its records are, and nobody begins the next one before them.
//!
//! A write that breaks a rule of the schema, or that another gateway holds up, fails alone: the others of its transaction are tried
//! again without it. What the
//! database itself refuses (away, full, read-only) fails for all that wait in the group, once.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::{AnyConnection, Connection};
use tokio::sync::{mpsc, oneshot};

use super::patience::Pool;
use super::{Receipt, StoreError, patience};
use crate::exit::reason;
use crate::metrics::Metrics;

/// Writes that wait; the next caller waits for a place.
const QUEUE: usize = 1024;
/// The most that go into one transaction.
const GROUP: usize = 256;

/// Of a transaction: whoever waits for its end waits for all that is in it.
const TURN: Duration = Duration::from_secs(1);

/// Something that is stored: its statements, which may run more than once, and what they find out.
pub trait Write: Send + Sync + 'static {
    /// Told after the commit.
    type Answer: Send + 'static;

    /// Whether nobody needs it any more now that it is its turn: then it fails, and costs nothing.
    fn is_late(&self) -> bool {
        false
    }

    /// Whether it is a single statement there, which is a transaction of its own: it has to be read to its end, since what comes before that may come
    /// before the commit.
    fn is_one_statement(&self, _: &AnyConnection) -> bool {
        false
    }

    /// Run the statements in the transaction that is open on `connection`.
    fn apply(&self, connection: &mut AnyConnection) -> impl Future<Output = Result<Self::Answer, sqlx::Error>> + Send;
}

/// Where writes are handed in.
#[derive(Clone)]
pub(super) struct Queue(mpsc::Sender<Box<dyn Waiting>>);

impl Queue {
    pub(super) async fn submit<W: Write>(&self, write: W) -> Result<Receipt<W::Answer>, StoreError> {
        let (reply, receipt) = oneshot::channel();
        let waiting = Ticket { write, answer: None, reply };
        self.0.send(Box::new(waiting)).await.map_err(|_| StoreError::Closed)?;
        Ok(receipt)
    }
}

/// A write with the one who waits for it, whatever its answer is.
trait Waiting: Send {
    fn is_late(&self) -> bool;
    fn is_one_statement(&self, connection: &AnyConnection) -> bool;
    fn apply<'a>(&'a mut self, connection: &'a mut AnyConnection) -> Applying<'a>;
    fn answer(self: Box<Self>, committed: Result<(), StoreError>);
}

type Applying<'a> = Pin<Box<dyn Future<Output = Result<(), sqlx::Error>> + Send + 'a>>;

struct Ticket<W: Write> {
    write: W,
    answer: Option<W::Answer>,
    reply: oneshot::Sender<Result<W::Answer, StoreError>>,
}

impl<W: Write> Waiting for Ticket<W> {
    fn is_late(&self) -> bool {
        self.write.is_late()
    }

    fn is_one_statement(&self, connection: &AnyConnection) -> bool {
        self.write.is_one_statement(connection)
    }

    fn apply<'a>(&'a mut self, connection: &'a mut AnyConnection) -> Applying<'a> {
        Box::pin(async {
            self.answer = Some(self.write.apply(connection).await?);
            Ok(())
        })
    }

    fn answer(self: Box<Self>, committed: Result<(), StoreError>) {
        // Whoever has gone meanwhile does not need it.
        let _ = match (committed, self.answer) {
            (Ok(()), Some(answer)) => self.reply.send(Ok(answer)),
            (Err(error), _) => self.reply.send(Err(error)),
            (Ok(()), None) => self.reply.send(Err(StoreError::Closed)),
        };
    }
}

/// The writer: run it in a task of its own.
pub struct Writer {
    pool: Pool,
    metrics: Arc<Metrics>,
    writes: mpsc::Receiver<Box<dyn Waiting>>,
}

impl Writer {
    pub(super) fn new(pool: Pool, metrics: Arc<Metrics>) -> (Queue, Writer) {
        let (sender, writes) = mpsc::channel(QUEUE);
        (Queue(sender), Writer { pool, metrics, writes })
    }

    /// Write until nobody can hand in any more.
    pub async fn run(mut self) {
        let mut group = Vec::new();
        // What the group before has left over goes first.
        while !group.is_empty() || self.writes.recv_many(&mut group, GROUP).await > 0 {
            group.extract_if(.., |write| write.is_late()).for_each(too_late);
            if group.is_empty() {
                continue;
            }
            match self.commit(&mut group).await {
                Ok(done) => self.answer(group.drain(..done), Ok(())),
                Err(error) if group.len() > 1 && is_of_one(&error) => self.one_by_one(&mut group).await,
                Err(error) => self.answer(group.drain(..), Err(error)),
            }
        }
    }

    async fn one_by_one(&self, group: &mut Vec<Box<dyn Waiting>>) {
        for write in group.drain(..) {
            if write.is_late() {
                too_late(write);
                continue;
            }
            let mut alone = [write];
            let committed = self.commit(&mut alone).await;
            self.answer(alone, committed.map(|_| ()));
        }
    }

    /// How many of them are committed: as many as there is time for, and one at least.
    async fn commit(&self, group: &mut [Box<dyn Waiting>]) -> Result<usize, sqlx::Error> {
        patience::on(&self.pool, async |connection| {
            // A transaction around it would be two more ways to the server and back.
            if let [alone] = &mut *group
                && alone.is_one_statement(connection)
            {
                alone.apply(connection).await?;
                return Ok(1);
            }
            let (begun, mut done) = (Instant::now(), 0);
            let mut transaction = connection.begin().await?;
            for write in group {
                write.apply(&mut transaction).await?;
                done += 1;
                if begun.elapsed() > TURN {
                    break;
                }
            }
            transaction.commit().await?;
            Ok(done)
        })
        .await
    }

    fn answer(&self, group: impl IntoIterator<Item = Box<dyn Waiting>>, committed: Result<(), sqlx::Error>) {
        let committed = committed.map_err(StoreError::from);
        if let Err(error) = &committed {
            self.metrics.store_failures.inc();
            tracing::error!(error = reason(error), "the store refused to write");
        }
        group.into_iter().for_each(|write| write.answer(committed.clone()));
    }
}

fn too_late(write: Box<dyn Waiting>) {
    write.answer(Err(StoreError::Behind));
}

/// A rule of the schema, a value that the database cannot take (SQLSTATE class 22) or that we cannot read back, or a row that another
/// gateway holds: for longer than one waits (55P03), or while it waits for one of ours (40P01).
fn is_of_one(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(error) => {
            let code = error.code().unwrap_or_default();
            let value = code.len() == 5 && code.starts_with("22");
            value || code == "40P01" || code == "55P03" || !matches!(error.kind(), sqlx::error::ErrorKind::Other)
        }
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::Encode(_) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Notify;
    use tokio::time::Instant;

    use super::*;
    use crate::store::{Begin, Store, UNTIL, migrate};

    /// Something that says when it is its turn, and takes its time.
    struct Slow(Arc<Notify>);

    impl Write for Slow {
        type Answer = ();

        async fn apply(&self, _: &mut AnyConnection) -> Result<(), sqlx::Error> {
            self.0.notify_one();
            tokio::time::sleep(Duration::from_millis(200)).await;
            Ok(())
        }
    }

    fn begin(sandbox: &str, until: Instant) -> Begin {
        let (sandbox, hello, epoch) = (sandbox.into(), "{}".into(), "e".into());
        Begin { sandbox, token: None, hello, epoch, applied: 0, owner: None, now_ms: 1, until }
    }

    #[tokio::test]
    async fn a_session_whose_turn_comes_too_late_is_not_begun() {
        let place = tempfile::tempdir().expect("a scratch directory");
        let url = format!("sqlite:{}", place.path().join("gateway.db").display());
        migrate::up(&url).await.expect("a new database");
        let (store, writer) = Store::open(&url, false, Arc::default()).await.expect("nobody else has it");
        tokio::spawn(writer.run());
        let turn = Arc::new(Notify::new());
        let slow = store.submit(Slow(turn.clone())).await.expect("it runs");
        turn.notified().await;
        let now = Instant::now();
        let late = store.submit(begin("late", now)).await.expect("it runs");
        let early = store.submit(begin("early", now + UNTIL)).await.expect("it runs");
        slow.await.expect("an answer").expect("it is stored");
        assert!(matches!(late.await, Ok(Err(StoreError::Behind))));
        early.await.expect("an answer").expect("it is stored").expect("a session");
    }
}
