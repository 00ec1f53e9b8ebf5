//! What one session has handed to the store and what is not yet known to be on the disk, in that order.

use std::collections::VecDeque;

use protocol::session::{Class, close};
use tokio::sync::OwnedSemaphorePermit;

use super::end::End;
use crate::store::{Appended, Applied, Receipt};

/// Bytes of records under way that we allow; twice as much is never held.
pub(super) const IN_FLIGHT: usize = 256 * 1024;
/// Writes under way.
const WRITES: usize = 256;

/// The oldest first.
#[derive(Default)]
pub(super) struct UnderWay {
    writes: VecDeque<Write>,
    bytes: usize,
}

enum Write {
    Records { class: Class, last: i64, bytes: usize, receipt: Receipt<Appended>, _room: OwnedSemaphorePermit },
    Outcomes { n: i64, receipt: Receipt<Applied> },
}

/// What is on the disk now.
pub(super) enum Stored {
    /// Of this class, up to this sequence.
    Records { class: Class, last: i64 },
    /// Of commands, up to this one.
    Outcomes { n: i64 },
}

impl UnderWay {
    /// Nothing more is to be taken for now.
    pub(super) fn is_full(&self) -> bool {
        self.bytes >= IN_FLIGHT * 2 || self.writes.len() >= WRITES
    }

    /// Whether there are records of this class.
    pub(super) fn has(&self, class: Class) -> bool {
        self.writes.iter().any(|write| matches!(write, Write::Records { class: c, .. } if *c == class))
    }

    /// Records of `class` up to `last`; they hold `room` until they are stored.
    pub(super) fn records(
        &mut self,
        class: Class,
        last: i64,
        bytes: usize,
        receipt: Receipt<Appended>,
        room: OwnedSemaphorePermit,
    ) {
        self.bytes += bytes;
        self.writes.push_back(Write::Records { class, last, bytes, receipt, _room: room });
    }

    /// Outcomes of commands up to `n`.
    pub(super) fn outcomes(&mut self, n: i64, receipt: Receipt<Applied>) {
        self.writes.push_back(Write::Outcomes { n, receipt });
    }

    /// The oldest, once it is on the disk; for ever where there is none. It may be given up and asked for again.
    pub(super) async fn stored(&mut self) -> Result<Stored, End> {
        let stopped = || End::close(close::GOING_AWAY, "the gateway stops");
        let stored = match self.writes.front_mut() {
            None => std::future::pending().await,
            Some(Write::Records { class, last, bytes, receipt, .. }) => {
                match receipt.await.map_err(|_| stopped())?? {
                    Appended::Stored => {
                        self.bytes -= *bytes;
                        Stored::Records { class: *class, last: *last }
                    }
                    Appended::Fenced => return Err(End::fenced()),
                    Appended::Moved => return Err(End::close(close::INTERNAL, "the cursor moved elsewhere")),
                }
            }
            Some(Write::Outcomes { n, receipt }) => match receipt.await.map_err(|_| stopped())?? {
                Applied::Stored => Stored::Outcomes { n: *n },
                Applied::Fenced => return Err(End::fenced()),
            },
        };
        self.writes.pop_front();
        Ok(stored)
    }
}
