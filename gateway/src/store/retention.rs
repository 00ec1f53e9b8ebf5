//! How long events are kept: bounded by age and by count for each sandbox.
//!
//! Promises: the oldest go first, so what is kept of a sandbox has no hole, and a cursor either leads on or is known to be
//! too old; they go a few in one write, between the writes of everybody else; cursors of sessions stay, so nothing that was
//! acknowledged is asked for again.

use std::time::Duration;

use sqlx::{AnyConnection, Row as _};

use super::{Store, StoreError, Write};
use crate::awake::wall_ms;
use crate::exit::reason;
use crate::lease::Lease;
use crate::metrics::Metrics;

/// Events that go in one write.
const STEP: i64 = 500;
/// Sandboxes that are looked up at a time.
const SANDBOXES: i64 = 100;
/// Between two looks at what is too old.
const EVERY: Duration = Duration::from_secs(30);

/// What is kept of each sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// No event is older, by the gateway's wall clock.
    pub age: Duration,
    /// So many of the newest.
    pub count: u32,
}

impl Keep {
    /// What was stored before this is too old.
    fn oldest_ms(self) -> i64 {
        wall_ms().saturating_sub(i64::try_from(self.age.as_millis()).unwrap_or(i64::MAX))
    }

    /// Remove what is beyond it, again and again, for as long as the gateway runs; of several, the one that leads.
    pub async fn enforce(self, store: Store, lease: Lease, metrics: std::sync::Arc<Metrics>) {
        let mut looks = tokio::time::interval(EVERY);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            if lease.leads()
                && let Err(error) = self.sweep(&store, &metrics).await
            {
                tracing::warn!(error = reason(&error), "old events cannot be removed now");
            }
        }
    }

    async fn sweep(self, store: &Store, metrics: &Metrics) -> Result<(), StoreError> {
        loop {
            let sandboxes = store.beyond(self).await?;
            let mut removed = 0;
            for sandbox in &sandboxes {
                removed += store.write(Remove { sandbox: sandbox.clone(), keep: self }).await?;
            }
            metrics.events_removed.inc_by(removed);
            if removed == 0 {
                return Ok(());
            }
        }
    }
}

impl Store {
    /// Sandboxes whose oldest event is beyond what is kept.
    async fn beyond(&self, keep: Keep) -> Result<Vec<String>, StoreError> {
        let sql = "SELECT s.id FROM sandboxes s JOIN records r ON r.sandbox = s.id \
                   AND r.position = (SELECT MIN(position) FROM records WHERE sandbox = s.id) \
                   WHERE r.position <= s.position - $1 OR r.stored_ms < $2 ORDER BY s.id LIMIT $3";
        let query = sqlx::query_scalar::<_, String>(sql);
        let query = query.bind(i64::from(keep.count)).bind(keep.oldest_ms()).bind(SANDBOXES);
        self.read(async |c| query.fetch_all(c).await).await
    }

    /// The position of the newest event of a sandbox that is kept no more; 0 where nothing was removed.
    pub async fn removed(&self, sandbox: &str) -> Result<i64, StoreError> {
        let sql = "SELECT COALESCE((SELECT MIN(position) - 1 FROM records WHERE sandbox = $1), position) \
                   FROM sandboxes WHERE id = $1";
        let query = sqlx::query_scalar::<_, i64>(sql).bind(sandbox.to_string());
        Ok(self.read(async |c| query.fetch_optional(c).await).await?.unwrap_or(0))
    }
}

/// The oldest of what is beyond, as many as go in one write; how many.
struct Remove {
    sandbox: String,
    keep: Keep,
}

impl Write for Remove {
    type Answer = u64;

    async fn apply(&self, connection: &mut AnyConnection) -> Result<u64, sqlx::Error> {
        let rows = sqlx::query(
            "SELECT r.position AS position, r.stored_ms AS stored_ms, s.position AS newest \
             FROM records r JOIN sandboxes s ON s.id = r.sandbox WHERE r.sandbox = $1 ORDER BY r.position LIMIT $2",
        )
        .bind(&self.sandbox)
        .bind(STEP)
        .fetch_all(&mut *connection)
        .await?;
        let mut last = None;
        for row in rows {
            let (position, newest): (i64, i64) = (row.try_get("position")?, row.try_get("newest")?);
            let young = row.try_get::<i64, _>("stored_ms")? >= self.keep.oldest_ms();
            if young && position > newest - i64::from(self.keep.count) {
                break;
            }
            last = Some(position);
        }
        let Some(last) = last else { return Ok(0) };
        let removed = sqlx::query("DELETE FROM records WHERE sandbox = $1 AND position <= $2")
            .bind(&self.sandbox)
            .bind(last)
            .execute(connection)
            .await?;
        Ok(removed.rows_affected())
    }
}
