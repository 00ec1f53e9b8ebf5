//! What the gateway itself has to tell of a sandbox: events of the class `backend`, among those of its supervisor.

use sqlx::AnyConnection;

use super::{Store, StoreError, Write};

/// Their class.
pub const CLASS: &str = "backend";
/// They come from no buffer.
const EPOCH: &str = "gateway";

impl Store {
    /// The body of the newest of them.
    pub async fn told(&self, sandbox: &str) -> Result<Option<String>, StoreError> {
        let sql = "SELECT body FROM records WHERE sandbox = $1 AND class = $2 ORDER BY position DESC LIMIT 1";
        let query = sqlx::query_scalar::<_, String>(sql).bind(sandbox.to_string()).bind(CLASS);
        self.read(async |c| query.fetch_optional(c).await).await
    }
}

/// One more; nothing happens where there is no such sandbox.
#[derive(Clone, Debug)]
pub struct Tell {
    /// Whose.
    pub sandbox: String,
    /// As a supervisor's record is written: `wall_ms`, `kind`, `body`.
    pub body: String,
    /// By the wall clock.
    pub now_ms: i64,
}

impl Write for Tell {
    type Answer = ();

    async fn apply(&self, connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
        // The row of the sandbox is locked from here on, so positions are committed in their order.
        let position = sqlx::query_scalar::<_, i64>(
            "UPDATE sandboxes SET position = position + 1 WHERE id = $1 RETURNING position",
        )
        .bind(&self.sandbox)
        .fetch_optional(&mut *connection)
        .await?;
        let Some(position) = position else { return Ok(()) };
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
        .bind(position)
        .bind(next - 1)
        .bind(&self.body)
        .execute(connection)
        .await?;
        Ok(())
    }
}
