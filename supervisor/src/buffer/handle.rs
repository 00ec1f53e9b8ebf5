//! The side of the buffer that everybody else sees.
//!
//! What matters waits ([`Handle::append`]); what is only nice to have never does ([`Handle::offer`]): where it does not
//! fit, its number becomes a gap.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use protocol::session::{Class, Extent};
use tokio::sync::{mpsc, oneshot, watch};

use super::{BufferError, MAX_RECORD, Piece};

/// Records that were offered and are not written yet; more are dropped.
const OFFERS: usize = 1024;
/// Bytes of those.
const OFFERED_BYTES: u64 = 1024 * 1024;

/// One question, and where its answer goes.
pub(super) enum Ask {
    Append { class: Class, bytes: Vec<u8>, reply: oneshot::Sender<Result<i64, BufferError>> },
    Peek { class: Class, from: i64, max: usize, reply: oneshot::Sender<Result<Vec<Piece>, BufferError>> },
    Acknowledge { class: Class, seq: i64, reply: oneshot::Sender<Result<(), BufferError>> },
    Extents { reply: oneshot::Sender<BTreeMap<Class, Extent>> },
    Next { reply: oneshot::Sender<BTreeMap<Class, (i64, i64)>> },
    Close { reply: oneshot::Sender<Result<(), BufferError>> },
}

/// What nobody waits for.
pub(super) enum Offer {
    /// A record.
    Record { class: Class, bytes: Vec<u8> },
    /// So many records that were dropped, and their bytes.
    Lost { class: Class, count: i64, bytes: u64 },
}

impl Offer {
    /// What it holds in memory.
    pub(super) fn length(&self) -> usize {
        match self {
            Offer::Record { bytes, .. } => bytes.len(),
            Offer::Lost { .. } => 0,
        }
    }
}

/// What is on its way from those who offer.
#[derive(Debug, Default)]
pub(super) struct Offered(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Bytes that wait.
    bytes: u64,
    /// Records that were dropped, and their bytes.
    dropped: BTreeMap<Class, (i64, u64)>,
}

impl State {
    fn count_dropped(&mut self, class: Class, count: i64, bytes: u64) {
        let dropped = self.dropped.entry(class).or_default();
        dropped.0 += count;
        dropped.1 += bytes;
    }
}

impl Offered {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These bytes wait no longer.
    pub(super) fn taken(&self, bytes: usize) {
        let mut state = self.lock();
        state.bytes = state.bytes.saturating_sub(bytes as u64);
    }

    /// What was dropped since this was asked.
    pub(super) fn dropped(&self) -> BTreeMap<Class, (i64, u64)> {
        std::mem::take(&mut self.lock().dropped)
    }
}

/// Reaches the owner of the buffer.
#[derive(Clone, Debug)]
pub struct Handle {
    asks: mpsc::Sender<Ask>,
    offers: mpsc::Sender<Offer>,
    offered: Arc<Offered>,
    news: watch::Receiver<u64>,
    epoch: Arc<str>,
}

/// The owner's ends of what a handle uses.
pub(super) struct Ends {
    pub(super) asks: mpsc::Receiver<Ask>,
    pub(super) offers: mpsc::Receiver<Offer>,
    pub(super) offered: Arc<Offered>,
    pub(super) news: watch::Sender<u64>,
}

pub(super) fn handle(epoch: String) -> (Handle, Ends) {
    let (asks, asked) = mpsc::channel(64);
    let (offers, offering) = mpsc::channel(OFFERS);
    let (news, heard) = watch::channel(0);
    let offered = Arc::new(Offered::default());
    let ends = Ends { asks: asked, offers: offering, offered: offered.clone(), news };
    (Handle { asks, offers, offered, news: heard, epoch: epoch.into() }, ends)
}

impl Handle {
    /// Write a record; on return it outlives this process, and within 50 ms (lifecycle) or 200 ms the loss of power. With
    /// `sync = always` a lifecycle record or a result outlives that on return.
    pub async fn append(&self, class: Class, bytes: Vec<u8>) -> Result<i64, BufferError> {
        self.ask(|reply| Ask::Append { class, bytes, reply }).await
    }

    /// Write a record soon, or drop it where too many wait; its number is then a gap, `budget`.
    pub fn offer(&self, class: Class, bytes: Vec<u8>) {
        let length = bytes.len() as u64;
        let mut state = self.offered.lock();
        if state.bytes + length <= OFFERED_BYTES
            && bytes.len() <= MAX_RECORD
            && self.offers.try_send(Offer::Record { class, bytes }).is_ok()
        {
            state.bytes += length;
            return;
        }
        state.count_dropped(class, 1, length);
    }

    /// So many records were dropped by the one who had them: they get their numbers behind what was offered before, and
    /// these are a gap, `budget`.
    pub fn lose(&self, class: Class, count: i64, bytes: u64) {
        let mut state = self.offered.lock();
        if self.offers.try_send(Offer::Lost { class, count, bytes }).is_err() {
            // Told with the offers that fill the queue.
            state.count_dropped(class, count, bytes);
        }
    }

    /// What stands at `from` and after it; see [`Buffer::peek`](super::Buffer::peek).
    pub async fn peek(&self, class: Class, from: i64, max_bytes: usize) -> Result<Vec<Piece>, BufferError> {
        self.ask(|reply| Ask::Peek { class, from, max: max_bytes, reply }).await
    }

    /// The gateway has everything of `class` up to `seq` for good.
    pub async fn acknowledge(&self, class: Class, seq: i64) -> Result<(), BufferError> {
        self.ask(|reply| Ask::Acknowledge { class, seq, reply }).await
    }

    /// What there is of each class that has, or had, anything.
    pub async fn extents(&self) -> Result<BTreeMap<Class, Extent>, BufferError> {
        let (reply, answer) = oneshot::channel();
        self.asks.send(Ask::Extents { reply }).await.map_err(|_| BufferError::Closed)?;
        answer.await.map_err(|_| BufferError::Closed)
    }

    /// Of each class, the number behind the last that is on the disk, and the one that the next record gets.
    pub async fn next(&self) -> Result<BTreeMap<Class, (i64, i64)>, BufferError> {
        let (reply, answer) = oneshot::channel();
        self.asks.send(Ask::Next { reply }).await.map_err(|_| BufferError::Closed)?;
        answer.await.map_err(|_| BufferError::Closed)
    }

    /// Names this log: another one begins its numbers anew.
    pub fn epoch(&self) -> &str {
        &self.epoch
    }

    /// Changes when there may be something new to send.
    pub fn news(&self) -> watch::Receiver<u64> {
        self.news.clone()
    }

    /// Make everything durable, and end. Nothing is taken after it.
    pub async fn close(&self) -> Result<(), BufferError> {
        self.ask(|reply| Ask::Close { reply }).await
    }

    async fn ask<T>(&self, ask: impl FnOnce(oneshot::Sender<Result<T, BufferError>>) -> Ask) -> Result<T, BufferError> {
        let (reply, answer) = oneshot::channel();
        self.asks.send(ask(reply)).await.map_err(|_| BufferError::Closed)?;
        answer.await.unwrap_or(Err(BufferError::Closed))
    }
}
