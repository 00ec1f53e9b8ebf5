//! Records on their way from the buffer to the gateway.
//!
//! Promises: each class in order and without a hole, lifecycle first; no more bytes are under way than the gateway takes, and
//! lifecycle always has room; what the gateway acknowledges is let go of, and nothing else is. After a lost session the next
//! one begins where the gateway says, so a record arrives once.

use std::collections::{BTreeMap, VecDeque};

use protocol::session::{Class, Data, Entry, Extent, FromSupervisor, Gap, Welcome, encode};
use serde_json::value::RawValue;
use tokio::sync::watch;

use crate::buffer::{BufferError, Handle, Piece};

/// Bytes of records in one frame: more would keep a beat waiting. A record that is larger goes alone.
const FRAME: usize = 32 * 1024;
/// Lifecycle's own, beside what the gateway takes.
const OWN: u64 = 64 * 1024;

/// A frame of records.
struct Parcel {
    /// As it is sent.
    text: String,
    class: Class,
    last: i64,
    bytes: u64,
}

/// What one session has sent and not been acknowledged.
pub(super) struct Delivery {
    buffer: Handle,
    news: watch::Receiver<u64>,
    most: u64,
    lanes: BTreeMap<Class, Lane>,
    ready: VecDeque<Parcel>,
}

struct Lane {
    /// The next to read from the buffer.
    next: i64,
    /// There was nothing more when it was read last.
    empty: bool,
    /// The last that was sent, or that the gateway had before.
    sent: i64,
    under_way: VecDeque<(i64, u64)>,
    bytes: u64,
}

impl Delivery {
    /// From where the gateway is, as the welcome says.
    pub(super) async fn new(
        buffer: Handle,
        welcome: &Welcome,
        extents: &BTreeMap<Class, Extent>,
    ) -> Result<Delivery, BufferError> {
        let (news, most) = (buffer.news(), welcome.in_flight);
        let mut delivery = Delivery { buffer, news, most, lanes: BTreeMap::new(), ready: VecDeque::new() };
        for class in Class::ALL {
            let expected = welcome.next.get(&class).copied().unwrap_or(1).max(1);
            let extent = extents.get(&class).copied().unwrap_or(Extent { first_unacked: 1, last: 0 });
            // An acknowledgement that was lost with the last session.
            if expected > extent.first_unacked {
                delivery.buffer.acknowledge(class, expected - 1).await?;
            }
            let next = expected.max(extent.first_unacked);
            let lane = Lane { next, empty: false, sent: next - 1, under_way: VecDeque::new(), bytes: 0 };
            delivery.lanes.insert(class, lane);
            // A gateway that has forgotten what it acknowledged gets that told as lost: here it is no more.
            if expected < extent.first_unacked {
                let gap =
                    Gap { class, from: expected, to: extent.first_unacked - 1, bytes: 0, reason: "evicted".into() };
                delivery.pack(class, gap.to, 0, &FromSupervisor::Gap(gap));
            }
        }
        Ok(delivery)
    }

    /// There may be something new in the buffer.
    pub(super) fn look_again(&mut self) {
        self.lanes.values_mut().for_each(|lane| lane.empty = false);
    }

    /// Until there may be.
    pub(super) async fn news(&mut self) {
        if self.news.changed().await.is_err() {
            // The buffer is closed: nothing new will come.
            std::future::pending::<()>().await;
        }
        self.look_again();
    }

    /// The next frame, where there is one and the gateway takes it.
    pub(super) async fn next(&mut self) -> Result<Option<String>, BufferError> {
        if self.ready.is_empty() {
            self.read().await?;
        }
        let Some(parcel) = self.ready.pop_front() else { return Ok(None) };
        if let Some(lane) = self.lanes.get_mut(&parcel.class) {
            lane.sent = lane.sent.max(parcel.last);
            lane.under_way.push_back((parcel.last, parcel.bytes));
            lane.bytes += parcel.bytes;
        }
        Ok(Some(parcel.text))
    }

    /// All of `class` up to `seq` is stored for good. What was never sent cannot be: nothing is let go of then.
    pub(super) async fn acknowledged(&mut self, class: Class, seq: i64) -> Result<(), BufferError> {
        if let Some(lane) = self.lanes.get_mut(&class) {
            if seq > lane.sent {
                return Err(BufferError::Ahead { class, seq });
            }
            while let Some((_, bytes)) = lane.under_way.front().copied().filter(|(last, _)| *last <= seq) {
                lane.under_way.pop_front();
                lane.bytes -= bytes;
            }
        }
        self.buffer.acknowledge(class, seq).await
    }

    /// Whether the gateway has everything that there is.
    pub(super) fn is_done(&self) -> bool {
        self.ready.is_empty() && self.lanes.values().all(|lane| lane.empty && lane.under_way.is_empty())
    }

    /// Frames of the first class that has something.
    async fn read(&mut self) -> Result<(), BufferError> {
        let under_way: u64 = self.lanes.values().map(|lane| lane.bytes).sum();
        for class in Class::ALL {
            let Some(lane) = self.lanes.get_mut(&class).filter(|lane| !lane.empty) else { continue };
            let own = if class == Class::Lifecycle && lane.bytes < OWN { OWN } else { 0 };
            if under_way >= self.most.max(FRAME as u64) + own {
                continue;
            }
            let pieces = self.buffer.peek(class, lane.next, FRAME).await?;
            match pieces.last() {
                None => lane.empty = true,
                Some(Piece::Record { seq, .. }) => lane.next = seq + 1,
                Some(Piece::Gap { to, .. }) => lane.next = to + 1,
            }
            if !pieces.is_empty() {
                self.frames(class, pieces);
                return Ok(());
            }
        }
        Ok(())
    }

    fn frames(&mut self, class: Class, pieces: Vec<Piece>) {
        let mut records = Vec::new();
        let mut bytes = 0;
        for piece in pieces {
            match piece {
                Piece::Record { seq, bytes: record } => {
                    bytes += record.len() as u64;
                    let text = String::from_utf8_lossy(&record).into_owned();
                    match RawValue::from_string(text) {
                        Ok(record) => records.push(Entry { seq, record }),
                        // Written by a part that does not write JSON: a bug, and told as what it is for the gateway.
                        Err(_) => {
                            self.records(class, &mut records, &mut bytes);
                            let gap = Gap { class, from: seq, to: seq, bytes: 0, reason: "damaged".into() };
                            self.pack(class, seq, 0, &FromSupervisor::Gap(gap));
                        }
                    }
                }
                Piece::Gap { from, to, bytes: lost, reason } => {
                    self.records(class, &mut records, &mut bytes);
                    let gap = Gap { class, from, to, bytes: lost, reason: reason.name().into() };
                    self.pack(class, to, 0, &FromSupervisor::Gap(gap));
                }
            }
        }
        self.records(class, &mut records, &mut bytes);
    }

    fn records(&mut self, class: Class, records: &mut Vec<Entry>, bytes: &mut u64) {
        let records = std::mem::take(records);
        if let Some(last) = records.last().map(|entry| entry.seq) {
            self.pack(class, last, *bytes, &FromSupervisor::Data(Data { class, records }));
        }
        *bytes = 0;
    }

    fn pack(&mut self, class: Class, last: i64, bytes: u64, frame: &FromSupervisor) {
        self.ready.push_back(Parcel { text: encode(frame), class, last, bytes });
    }
}
