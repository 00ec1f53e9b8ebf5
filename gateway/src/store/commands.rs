//! Commands: given a number in the store before anybody is told, and applied once by the sandbox.

use protocol::session::Outcome;
use sqlx::{AnyConnection, Row as _};

use super::leases::{notify, word};
use super::{Store, StoreError, Write};

/// A command as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Its number within the sandbox.
    pub n: i64,
    /// What to do.
    pub verb: String,
    /// Its arguments, as JSON.
    pub body: String,
    /// When it was given.
    pub given_ms: i64,
    /// What became of it, as JSON.
    pub outcome: Option<String>,
    /// The sandbox has it behind it, also where its outcome was lost.
    pub applied: bool,
}

/// A new command; its number, or nothing where there is no such sandbox.
#[derive(Clone, Debug)]
pub struct Give {
    /// For whom.
    pub sandbox: String,
    /// What to do.
    pub verb: String,
    /// Its arguments, as JSON.
    pub body: String,
    /// By the wall clock.
    pub now_ms: i64,
}

impl Write for Give {
    type Answer = Option<i64>;

    async fn apply(&self, connection: &mut AnyConnection) -> Result<Option<i64>, sqlx::Error> {
        let n = sqlx::query_scalar::<_, i64>(
            "UPDATE sandboxes SET commanded = commanded + 1 WHERE id = $1 RETURNING commanded",
        )
        .bind(&self.sandbox)
        .fetch_optional(&mut *connection)
        .await?;
        let Some(n) = n else { return Ok(None) };
        sqlx::query("INSERT INTO commands (sandbox, n, verb, body, given_ms) VALUES ($1, $2, $3, $4, $5)")
            .bind(&self.sandbox)
            .bind(n)
            .bind(&self.verb)
            .bind(&self.body)
            .bind(self.now_ms)
            .execute(&mut *connection)
            .await?;
        let owner = "SELECT owner FROM sandboxes WHERE id = $1 AND ended_ms IS NULL AND owner IS NOT NULL";
        let owner = sqlx::query_scalar::<_, String>(owner).bind(&self.sandbox).fetch_optional(&mut *connection).await?;
        if let Some(owner) = owner {
            notify(connection, &owner, &self.sandbox, word::COMMANDS, n).await?;
        }
        Ok(Some(n))
    }
}

/// What a session reports: commands up to `n` are applied, and what became of some.
#[derive(Clone, Debug)]
pub struct Outcomes {
    /// Whose.
    pub sandbox: String,
    /// Of the session.
    pub fence: i64,
    /// The newest that was applied.
    pub n: i64,
    /// What became of them.
    pub outcomes: Vec<Outcome>,
}

/// What became of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// Stored.
    Stored,
    /// A newer session has the sandbox, or it was deleted: nothing was stored.
    Fenced,
}

impl Write for Outcomes {
    type Answer = Applied;

    async fn apply(&self, connection: &mut AnyConnection) -> Result<Applied, sqlx::Error> {
        let moved = sqlx::query(
            "UPDATE sandboxes SET applied = CASE WHEN applied < $3 THEN $3 ELSE applied END \
             WHERE id = $1 AND fence = $2",
        )
        .bind(&self.sandbox)
        .bind(self.fence)
        .bind(self.n)
        .execute(&mut *connection)
        .await?;
        if moved.rows_affected() == 0 {
            return Ok(Applied::Fenced);
        }
        for outcome in &self.outcomes {
            let json = protocol::session::encode(outcome);
            // The first report counts.
            sqlx::query("UPDATE commands SET outcome = $3 WHERE sandbox = $1 AND n = $2 AND outcome IS NULL")
                .bind(&self.sandbox)
                .bind(outcome.n)
                .bind(json)
                .execute(&mut *connection)
                .await?;
        }
        Ok(Applied::Stored)
    }
}

const COMMAND: &str = "SELECT c.n AS n, c.verb AS verb, c.body AS body, c.given_ms AS given_ms, c.outcome AS outcome, \
                       CASE WHEN c.n <= s.applied THEN 1 ELSE 0 END AS applied \
                       FROM commands c JOIN sandboxes s ON s.id = c.sandbox";

impl Store {
    /// Commands behind `after` that nobody has applied, oldest first.
    pub async fn waiting_commands(&self, sandbox: &str, after: i64, limit: i64) -> Result<Vec<Command>, StoreError> {
        let sql = format!("{COMMAND} WHERE c.sandbox = $1 AND c.n > $2 AND c.n > s.applied ORDER BY c.n LIMIT $3");
        let query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(sandbox.to_string()).bind(after).bind(limit);
        let rows = self.read(async |c| query.fetch_all(c).await).await?;
        Ok(rows.iter().map(command).collect::<Result<_, _>>()?)
    }

    /// One command.
    pub async fn command(&self, sandbox: &str, n: i64) -> Result<Option<Command>, StoreError> {
        let sql = format!("{COMMAND} WHERE c.sandbox = $1 AND c.n = $2");
        let query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(sandbox.to_string()).bind(n);
        let row = self.read(async |c| query.fetch_optional(c).await).await?;
        Ok(row.as_ref().map(command).transpose()?)
    }
}

fn command(row: &sqlx::any::AnyRow) -> Result<Command, sqlx::Error> {
    Ok(Command {
        n: row.try_get("n")?,
        verb: row.try_get("verb")?,
        body: row.try_get("body")?,
        given_ms: row.try_get("given_ms")?,
        outcome: row.try_get("outcome")?,
        applied: row.try_get::<i64, _>("applied")? != 0,
    })
}
