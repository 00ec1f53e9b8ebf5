//! Records and gaps of a sandbox, in the order in which they were stored.

use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::{Store, StoreError};

/// One record or gap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Grows with each event of the sandbox: the cursor of readers.
    pub position: i64,
    /// The class's name.
    pub class: String,
    /// Of the buffer that it came from.
    pub epoch: String,
    /// First sequence.
    pub seq: i64,
    /// Last sequence, the same for a record.
    pub last: i64,
    /// Whether it is a gap.
    pub gap: bool,
    /// The record as it was buffered, or the gap, as JSON.
    pub body: String,
    /// When, by the gateway's wall clock.
    pub stored_ms: i64,
}

/// Which events.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    /// Only of the class of this name.
    pub class: Option<&'static str>,
    /// Those behind this position.
    pub after: i64,
    /// At most so many.
    pub limit: i64,
}

/// A page ends early where it would hold more bytes of bodies than this and one event.
const PAGE_BYTES: usize = 1024 * 1024;

impl Store {
    /// The position of the newest event of a sandbox.
    pub async fn newest(&self, sandbox: &str) -> Result<i64, StoreError> {
        let query = sqlx::query_scalar::<_, i64>("SELECT position FROM sandboxes WHERE id = $1");
        Ok(self.read(async |c| query.bind(sandbox.to_string()).fetch_optional(c).await).await?.unwrap_or(0))
    }

    /// Events of a sandbox, oldest first.
    pub async fn events(&self, sandbox: &str, page: Page) -> Result<Vec<Event>, StoreError> {
        let sql = match page.class {
            Some(_) => {
                "SELECT position, class, epoch, seq, last, gap, body, stored_ms FROM records \
                 WHERE sandbox = $1 AND position > $2 AND class = $4 ORDER BY position LIMIT $3"
            }
            None => {
                "SELECT position, class, epoch, seq, last, gap, body, stored_ms FROM records \
                 WHERE sandbox = $1 AND position > $2 ORDER BY position LIMIT $3"
            }
        };
        let mut query = sqlx::query(sql).bind(sandbox.to_string()).bind(page.after).bind(page.limit);
        if let Some(class) = page.class {
            query = query.bind(class);
        }
        self.read(async |connection| {
            let mut rows = query.fetch(connection);
            let (mut events, mut bytes) = (Vec::new(), 0);
            while let Some(row) = futures_util::TryStreamExt::try_next(&mut rows).await? {
                let event = event(&row)?;
                bytes += event.body.len();
                events.push(event);
                if bytes >= PAGE_BYTES {
                    break;
                }
            }
            Ok(events)
        })
        .await
    }
}

fn event(row: &AnyRow) -> Result<Event, sqlx::Error> {
    Ok(Event {
        position: row.try_get("position")?,
        class: row.try_get("class")?,
        epoch: row.try_get("epoch")?,
        seq: row.try_get("seq")?,
        last: row.try_get("last")?,
        gap: row.try_get::<i64, _>("gap")? != 0,
        body: row.try_get("body")?,
        stored_ms: row.try_get("stored_ms")?,
    })
}
