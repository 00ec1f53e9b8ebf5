//! What the gateway itself has to tell of a sandbox: events of the class `backend`, among those of its supervisor.

use serde_json::{Value, json};
use sqlx::AnyConnection;

use super::Write;

/// Their class.
pub const CLASS: &str = "backend";
/// They come from no buffer.
const EPOCH: &str = "gateway";

/// One more, where it is not what was told last; whether it was not. Nothing happens where there is no such sandbox.
#[derive(Clone, Debug)]
pub struct Tell {
    /// Whose.
    pub sandbox: String,
    /// What happened.
    pub kind: String,
    /// An object.
    pub body: Value,
    /// By the wall clock.
    pub now_ms: i64,
}

impl Tell {
    /// So many positions; the last of them, where there is such a sandbox.
    async fn take(&self, connection: &mut AnyConnection, places: i64) -> Result<Option<i64>, sqlx::Error> {
        let sql = "UPDATE sandboxes SET position = position + $2 WHERE id = $1 RETURNING position";
        sqlx::query_scalar(sql).bind(&self.sandbox).bind(places).fetch_optional(connection).await
    }

    /// While the row of the sandbox is locked, so that two who have seen the same tell it once.
    async fn is_known(&self, connection: &mut AnyConnection) -> Result<bool, sqlx::Error> {
        let sql = "SELECT body FROM records WHERE sandbox = $1 AND class = $2 ORDER BY position DESC LIMIT 1";
        let last =
            sqlx::query_scalar::<_, String>(sql).bind(&self.sandbox).bind(CLASS).fetch_optional(connection).await?;
        let last: Value = last.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        Ok(last["kind"] == self.kind && last["body"] == self.body)
    }
}

impl Write for Tell {
    type Answer = bool;

    async fn apply(&self, connection: &mut AnyConnection) -> Result<bool, sqlx::Error> {
        // The row of the sandbox is locked from here on, so positions are committed in their order.
        let Some(newest) = self.take(connection, 0).await? else { return Ok(false) };
        if self.is_known(connection).await? {
            return Ok(false);
        }
        self.take(connection, 1).await?;
        let next = sqlx::query_scalar::<_, i64>(
            "INSERT INTO cursors (sandbox, epoch, class, next) VALUES ($1, $2, $3, 2) \
             ON CONFLICT (sandbox, epoch, class) DO UPDATE SET next = cursors.next + 1 RETURNING next",
        )
        .bind(&self.sandbox)
        .bind(EPOCH)
        .bind(CLASS)
        .fetch_one(&mut *connection)
        .await?;
        sqlx::query(
            "INSERT INTO records (sandbox, epoch, class, stored_ms, position, seq, last, gap, body) \
             VALUES ($1, $2, $3, $4, $5, $6, $6, 0, $7)",
        )
        .bind(&self.sandbox)
        .bind(EPOCH)
        .bind(CLASS)
        .bind(self.now_ms)
        .bind(newest + 1)
        .bind(next - 1)
        // As a supervisor's record is written.
        .bind(json!({ "wall_ms": self.now_ms, "kind": self.kind, "body": self.body }).to_string())
        .execute(connection)
        .await?;
        Ok(true)
    }
}
