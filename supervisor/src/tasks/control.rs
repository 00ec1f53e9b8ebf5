//! What is asked of tasks that are there: one is told something or cancelled, and all of them end at the stop.

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Control, Entry, Refused, Tasks, Update, run};

impl Tasks {
    pub(super) async fn control(&mut self, id: &str, control: Control) -> Result<Arc<Entry>, Refused> {
        let row = self.table.get_mut(id).ok_or(Refused::Unknown)?;
        let cancel = matches!(control, Control::End(_));
        if row.record.task.state.is_final() {
            return if cancel { Ok(row.entry.clone()) } else { Err(Refused::State("the task has ended")) };
        }
        if row.spec.is_some() {
            if !cancel {
                return Err(Refused::State("the task has not started yet"));
            }
            return self.cancel_queued(id).await;
        }
        row.cancelled |= cancel;
        let entry = row.entry.clone();
        if let Some(ways) = entry.ways() {
            // A run takes its controls at once; one that is just ending no longer does, and its end is on the way.
            let _ = ways.control.send(control).await;
        }
        Ok(entry)
    }

    async fn cancel_queued(&mut self, id: &str) -> Result<Arc<Entry>, Refused> {
        self.queue.retain(|(_, _, queued)| queued != id);
        let row = self.table.get_mut(id).ok_or(Refused::Unknown)?;
        row.spec = None;
        row.cancelled = true;
        let entry = row.entry.clone();
        self.running += 1;
        self.update(Update { id: id.to_string(), change: run::Change::NeverRan }).await;
        Ok(entry)
    }

    /// What waits stays in the journal and is the next supervisor's.
    pub(super) fn drain(&mut self, done: oneshot::Sender<()>) {
        self.stopping.get_or_insert_default().push(done);
        self.tell_who_waits_for_the_end();
    }

    pub(super) fn stop(&mut self, deadline: Instant, done: oneshot::Sender<()>) {
        for row in self.table.values_mut().filter(|row| row.orders.is_none() && row.spec.is_none()) {
            row.cancelled = true;
            row.stopped = true;
            let grace = deadline.saturating_duration_since(Instant::now());
            if let Some(ways) = row.entry.ways() {
                let _ = ways.control.try_send(Control::End(grace));
            }
        }
        self.drain(done);
    }

    pub(super) fn tell_who_waits_for_the_end(&mut self) {
        if self.running == 0
            && let Some(waiting) = &mut self.stopping
        {
            // The last time that it can be.
            let _ = self.ledger.pay();
            for done in waiting.drain(..) {
                // Who no longer waits need not be told.
                let _ = done.send(());
            }
        }
    }
}
