//! The work of one life: what an agent and tasks would tell, noted in the ledger as it is told.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use protocol::session::{Class, Record};
use serde_json::{Value, json};
use supervisor::buffer::Handle;
use supervisor::link::{Feed, Lines};
use supervisor::machine::StandIn;
use supervisor::metrics::Metrics;
use tokio::time::{Instant, sleep};

use super::doubt::Doubt;
use super::{Produced, SharedLedger, lock};
use crate::simulation::chance::Chance;
use crate::simulation::machine::Simulated;

/// Tells what an agent and tasks would.
#[derive(Clone)]
pub(super) struct Work {
    pub(super) feed: Feed,
    pub(super) lines: Lines,
    pub(super) buffer: Handle,
    pub(super) metrics: Arc<Metrics>,
    pub(super) machine: Arc<Simulated>,
    pub(super) ledger: SharedLedger,
    pub(super) doubt: Arc<Mutex<Doubt>>,
}

impl Work {
    /// Until the end of this life.
    pub(super) async fn go_on(self, mut chance: Chance) {
        loop {
            sleep(Duration::from_millis(chance.between(20, 1500))).await;
            match chance.below(6) {
                0 => self.tell().await,
                1 => self.tell_for_good(Class::Lifecycle).await,
                2 => self.tell_for_good(Class::Results).await,
                3 => self.sample(),
                _ => (0..chance.between(1, 4)).for_each(|_| self.line(chance.between(1, 100) as usize)),
            }
        }
    }

    fn next(&self) -> usize {
        lock(&self.ledger).records.len()
    }

    /// Note a record that is about to be told; its place in the ledger.
    fn note(&self, class: Class, kind: &str, body: &Value) -> usize {
        let wall_ms = self.machine.wall().as_millis() as i64;
        let boot_ms = self.machine.boot().as_millis() as i64;
        let record = Record { wall_ms, boot_ms, kind: kind.into(), body: body.clone() };
        let bytes = serde_json::to_vec(&record).expect("plain data");
        let mut ledger = lock(&self.ledger);
        ledger.records.push(Produced::new(class, bytes));
        ledger.records.len() - 1
    }

    /// Where all causes are over, and the buffer says that the disk takes its records again, what is told from now on is as safe as ever.
    /// What was told meanwhile stays in doubt: it may have been refused.
    async fn settle_doubt(&self) {
        let begun = {
            let doubt = lock(&self.doubt);
            if !doubt.is_open() || doubt.over < doubt.begun {
                return;
            }
            doubt.begun
        };
        // Its answer comes behind all that it did before it was asked, which its metrics have by then.
        if self.buffer.next().await.is_ok() && self.metrics.buffer_degraded.get() == 0 {
            // And not what began meanwhile.
            lock(&self.doubt).settled = begun;
        }
    }

    async fn tell(&self) {
        let body = json!({"number": self.next()});
        self.note(Class::Lifecycle, "agent.ready", &body);
        self.feed.tell("agent.ready", body).await;
    }

    pub(super) async fn tell_for_good(&self, class: Class) {
        self.settle_doubt().await;
        let body = json!({"number": self.next(), "text": "x".repeat(self.next() * 37 % 400)});
        let place = self.note(class, "task.result", &body);
        self.feed.tell_for_good(class, "task.result", body).await;
        let record = &mut lock(&self.ledger).records[place];
        record.written = Some(Instant::now());
        record.safe = !lock(&self.doubt).is_open();
    }

    pub(super) fn sample(&self) {
        let body = json!({"number": self.next()});
        let place = self.note(Class::Metrics, "sample", &body);
        self.buffer.offer(Class::Metrics, lock(&self.ledger).records[place].bytes.clone());
    }

    pub(super) fn line(&self, length: usize) {
        let text = format!("{} {}", self.next(), "x".repeat(length));
        self.note(Class::Logs, "line", &json!({"source": "agent", "stream": "stdout", "text": text}));
        self.lines.of(None, "stdout").take(format!("{text}\n").as_bytes());
    }
}
