//! Ends of tasks that an earlier supervisor did not tell: each is told once, as `link/feed.rs` says.

use super::Tasks;
use super::journal::Record;
use super::ledger::Ledger;
use crate::link::Feed;
use crate::link::feed::Written;

impl Tasks {
    /// Tell the end that an earlier supervisor had noted in the journal and was killed before it told. To be called before
    /// anything else is told: by its numbers it is known.
    pub async fn tell_what_was_noted(&mut self) {
        let Some(before) = self.feed.before() else { return };
        for row in self.table.values_mut() {
            let Some(told) = &row.record.told else { continue };
            let written = told.written(&before);
            if written != Written::ALL {
                tell_end(&self.feed, &mut self.ledger, &mut row.record, written).await;
            }
        }
    }

    /// What ended with an earlier supervisor. Recorded and told before anybody can ask.
    pub(super) async fn tell_what_was_lost(&mut self) {
        for row in self.table.values_mut() {
            if row.record.told.is_none() && row.record.ended_just_now() {
                tell_end(&self.feed, &mut self.ledger, &mut row.record, Written::default()).await;
            }
        }
    }
}

/// Record and tell the end of a task, as far as it is not `written`.
async fn tell_end(feed: &Feed, ledger: &mut Ledger, record: &mut Record, written: Written) {
    let turn = feed.turn().await;
    record.create = None;
    record.told = turn.as_ref().map(|turn| match &record.told {
        Some(told) => turn.numbers.clone().after(told, written),
        None => turn.numbers.clone(),
    });
    if let Err(error) = ledger.note(record).await {
        tracing::error!(error, "a task's state could not be recorded");
    }
    if let Some(turn) = turn {
        turn.end(&record.task, written).await;
    }
}
