//! The buffer on the event loop: one owner, its work on the blocking pool, its syncs in groups.
//!
//! While nothing happens there is no timer and no thread. A record that came opens its class's window; when that ends,
//! everything of the class that came in between is synced at once, unless the gateway has it by then.

use std::sync::Arc;
use std::time::Duration;

use protocol::session::Class;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use super::disk::Disk;
use super::handle::{Ask, Ends, Handle, Offer, handle};
use super::{Buffer, BufferError, Config, Counts, Reason};
use crate::exit::reason;
use crate::machine::Machine;
use crate::metrics::Metrics;

/// A disk that refused a sync is asked again after so long.
pub(super) const RETRY: Duration = Duration::from_secs(5);
/// Questions and offers that are taken at a time.
const BATCH: usize = 64;
/// Their records tell how something ended, so whoever appends one with `sync = always` waits for the disk.
const FOR_GOOD: [Class; 2] = [Class::Lifecycle, Class::Results];

/// Owns the buffer.
pub struct Part<D: Disk> {
    buffer: Buffer<D>,
    sync_always: bool,
    ends: Ends,
    machine: Machine,
    metrics: Arc<Metrics>,
    counted: Counts,
    /// What the log was last told.
    degraded: bool,
    /// When each class is to be synced.
    due: [Option<Instant>; 4],
}

/// What is done in one go on the blocking pool.
#[derive(Default)]
struct Batch {
    asks: Vec<Ask>,
    offers: Vec<Offer>,
    /// Records that were dropped before they came here.
    dropped: Vec<(Class, i64, u64)>,
    sync: Vec<Class>,
}

/// What came of it.
#[derive(Default)]
struct Done {
    /// There may be something new to send.
    news: bool,
    records: Vec<Class>,
    synced: Vec<Class>,
    unsynced: Vec<Class>,
    /// The first thing that the disk refused.
    trouble: Option<String>,
    closed: Option<Closing>,
}

struct Closing {
    reply: oneshot::Sender<Result<(), BufferError>>,
    result: Result<(), BufferError>,
}

/// A handle for everybody, and the part that owns the open `buffer`.
pub fn new<D: Disk>(buffer: Buffer<D>, config: &Config, machine: Machine, metrics: Arc<Metrics>) -> (Handle, Part<D>) {
    let (handle, ends) = handle(buffer.epoch());
    let sync_always = config.sync_always;
    let part = Part {
        buffer,
        sync_always,
        ends,
        machine,
        metrics,
        counted: Counts::default(),
        degraded: false,
        due: [None; 4],
    };
    (handle, part)
}

impl<D: Disk<File: Send> + Send + 'static> Part<D> {
    /// Until it is closed, or until nobody has a handle any more.
    pub async fn run(mut self) {
        self.tell(&Done::default());
        loop {
            let Some(batch) = self.next().await else {
                let _ = self.machine.block(move || self.buffer.close()).await;
                return;
            };
            let (mut buffer, always, begun) = (self.buffer, self.sync_always, Instant::now());
            let worked = self.machine.block(move || {
                let done = work(&mut buffer, batch, always);
                (buffer, done)
            });
            // A panic is a bug, and told by the hook; what was written is on disk, and the next start finds it.
            let Ok((buffer, done)) = worked.await else { return };
            self.buffer = buffer;
            self.tell(&done);
            self.schedule(&done, begun);
            if let Some(Closing { reply, result }) = done.closed {
                let _ = reply.send(result);
                return;
            }
        }
    }

    /// What is to be done next; `None` where nobody is left.
    async fn next(&mut self) -> Option<Batch> {
        let mut batch = Batch::default();
        let due = self.due.iter().flatten().min().copied();
        let timer = async {
            match due {
                Some(due) => sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        let Ends { asks, offers, .. } = &mut self.ends;
        tokio::select! {
            // Whatever comes first, what was offered and what is due goes with it.
            biased;
            count = asks.recv_many(&mut batch.asks, BATCH) => if count == 0 { return None },
            Some(offer) = offers.recv() => batch.offers.push(offer),
            () = timer => {}
        }
        // At the end nothing stays behind.
        let ends = batch.asks.iter().any(|ask| matches!(ask, Ask::Close { .. }));
        while (ends || batch.offers.len() < BATCH)
            && let Ok(offer) = offers.try_recv()
        {
            batch.offers.push(offer);
        }
        batch.offers.iter().for_each(|offer| self.ends.offered.taken(offer.length()));
        batch.dropped = self.ends.offered.dropped().into_iter().map(|(class, (n, bytes))| (class, n, bytes)).collect();
        let now = Instant::now();
        batch.sync =
            Class::ALL.into_iter().filter(|class| self.due[*class as usize].is_some_and(|at| at <= now)).collect();
        Some(batch)
    }

    /// Set the timers: half of each window, from when the batch was `begun`, so that the disk's own time fits into the promise.
    fn schedule(&mut self, done: &Done, begun: Instant) {
        for class in Class::ALL {
            let due = &mut self.due[class as usize];
            *due = match self.buffer.next_sync(class) {
                None => None,
                Some(_) if done.unsynced.contains(&class) => Some(Instant::now() + RETRY),
                // Whatever is due now is new.
                Some(window) if done.synced.contains(&class) => Some(begun + window / 2),
                // What became due meanwhile stays so: nobody has done it. But what was written now waits for no other try.
                Some(window) => {
                    let next = begun + window / 2;
                    Some(due.map_or(next, |due| if done.records.contains(&class) { due.min(next) } else { due }))
                }
            };
        }
    }

    fn tell(&mut self, done: &Done) {
        let (metrics, counts) = (&self.metrics, self.buffer.counts());
        for class in &done.records {
            metrics.buffer_records.get_or_create(&vec![("class", class.name().to_owned())]).inc();
        }
        for (reason, numbers) in &counts.gaps {
            let before = self.counted.gaps.get(reason).copied().unwrap_or_default();
            metrics.buffer_gaps.get_or_create(&vec![("reason", reason.name().to_owned())]).inc_by(numbers - before);
        }
        metrics.buffer_quarantined.inc_by(counts.quarantined - self.counted.quarantined);
        metrics.buffer_syncs.inc_by(counts.syncs - self.counted.syncs);
        metrics.buffer_sync_failures.inc_by(counts.sync_failures - self.counted.sync_failures);
        metrics.buffer_bytes.set(self.buffer.bytes());
        let degraded = self.buffer.is_degraded();
        metrics.buffer_degraded.set(u64::from(degraded));
        if degraded && !self.degraded {
            let reason = done.trouble.clone().unwrap_or_default();
            tracing::warn!(
                reason,
                "the disk refuses records of the buffer; they become gaps until it takes them again"
            );
        } else if self.degraded && !degraded {
            tracing::info!("the disk takes the records of the buffer again");
        }
        self.degraded = degraded;
        if counts.quarantined > self.counted.quarantined {
            tracing::warn!(files = counts.quarantined, "files of the buffer could not be read and were put aside");
        }
        self.counted = counts.clone();
        if done.news {
            self.ends.news.send_modify(|count| *count += 1);
        }
    }
}

fn work<D: Disk>(buffer: &mut Buffer<D>, batch: Batch, always: bool) -> Done {
    let mut done = Done::default();
    let before = told(buffer);
    let (mut waiting, mut peeks, mut close) = (Vec::new(), Vec::new(), None);
    for ask in batch.asks {
        match ask {
            Ask::Append { class, bytes, reply } => {
                let answer = buffer.append(class, &bytes);
                done.appended(class, &answer);
                match (always && FOR_GOOD.contains(&class), answer) {
                    (true, Ok(seq)) => waiting.push((class, reply, seq)),
                    (_, answer) => drop(reply.send(answer)),
                }
            }
            Ask::Peek { class, from, max, reply } => peeks.push((class, from, max, reply)),
            Ask::Acknowledge { class, seq, reply } => drop(reply.send(buffer.acknowledge(class, seq))),
            Ask::Extents { reply } => drop(reply.send(buffer.extents())),
            Ask::Next { reply } => {
                drop(reply.send(Class::ALL.into_iter().map(|class| (class, buffer.next(class))).collect()));
            }
            Ask::Close { reply } => close = Some(reply),
        }
    }
    for offer in batch.offers {
        match offer {
            Offer::Record { class, bytes } => {
                let answer = buffer.append(class, &bytes);
                done.appended(class, &answer);
            }
            Offer::Lost { class, count, bytes } => done.lost(buffer, class, count, bytes),
        }
    }
    for (class, count, bytes) in batch.dropped {
        done.lost(buffer, class, count, bytes);
    }
    // One sync for all that wait.
    let mut due = batch.sync;
    due.extend(FOR_GOOD.into_iter().filter(|class| waiting.iter().any(|(of, ..)| of == class)));
    due.sort_unstable();
    due.dedup();
    for class in due {
        match buffer.sync(class) {
            Ok(()) => done.synced.push(class),
            Err(error) => {
                done.unsynced.push(class);
                done.refused(&error);
            }
        }
    }
    for (class, reply, seq) in waiting {
        let _ = reply.send(if done.synced.contains(&class) { Ok(seq) } else { Err(BufferError::Unsynced { seq }) });
    }
    // Behind the sync, where there was one: what the gateway has and the disk has not would be told once more after a loss of power.
    for (class, from, max, reply) in peeks {
        let _ = reply.send(buffer.peek(class, from, max));
    }
    // Also a gap that could only be written now, after a crash or on a disk that refused it: it is told by whoever is told of news.
    done.news |= before != told(buffer);
    done.closed = close.map(|reply| Closing { reply, result: buffer.close() });
    done
}

/// Of each class.
fn told<D: Disk>(buffer: &Buffer<D>) -> [i64; 4] {
    Class::ALL.map(|class| buffer.told(class))
}

impl Done {
    fn appended(&mut self, class: Class, answer: &Result<i64, BufferError>) {
        self.news = true;
        match answer {
            Ok(_) => self.records.push(class),
            Err(error) => self.refused(error),
        }
    }

    fn lost<D: Disk>(&mut self, buffer: &mut Buffer<D>, class: Class, count: i64, bytes: u64) {
        buffer.lose(class, count, bytes, Reason::Budget);
        self.news = true;
    }

    fn refused(&mut self, error: &BufferError) {
        self.trouble.get_or_insert_with(|| reason(error));
    }
}
