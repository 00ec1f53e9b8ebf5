//! Records on their way from the wire to the store.

use protocol::session::Class;

use super::Session;
use crate::awake::wall_ms;
use crate::sessions::end::End;
use crate::store::{Append, Piece};

impl Session<'_> {
    pub(super) fn expected(&self, class: Class) -> i64 {
        self.next.get(&class).copied().unwrap_or(1)
    }

    /// Hand pieces to the store. What was there before is acknowledged again, as soon as nothing of its class is under way.
    pub(super) async fn append(&mut self, class: Class, pieces: Vec<Piece>, next: i64) -> Result<(), End> {
        self.next.insert(class, next);
        if pieces.is_empty() {
            if !self.under_way.has(class) {
                self.outbox.acks.insert(class, next - 1);
            }
            return Ok(());
        }
        self.count(class, &pieces);
        let bytes: usize = pieces.iter().map(|piece| piece.body.len() + 64).sum();
        let part = self.part;
        // A place in memory that all sessions share.
        let room = self.unless_closed(part.store.room(bytes)).await?;
        let append = Append {
            sandbox: self.live.sandbox.clone(),
            fence: self.live.fence,
            epoch: self.epoch.clone(),
            class,
            pieces,
            now_ms: wall_ms(),
        };
        let receipt = self.unless_closed(part.store.submit(append)).await??;
        self.under_way.records(class, next - 1, bytes, receipt, room);
        Ok(())
    }

    fn count(&self, class: Class, pieces: &[Piece]) {
        let label = vec![("class", class.name().to_string())];
        let metrics = &self.part.metrics;
        metrics.records.get_or_create(&label).inc_by(pieces.iter().filter(|piece| !piece.gap).count() as u64);
        let lost = |piece: &Piece| u64::try_from(piece.last - piece.seq + 1).unwrap_or(0);
        metrics.lost.get_or_create(&label).inc_by(pieces.iter().filter(|piece| piece.gap).map(lost).sum());
    }
}
