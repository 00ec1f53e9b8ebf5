//! Leases of gateways that work with one store together, on PostgreSQL.
//!
//! Promises: a lease ends by the database's own clock, so it does not matter what time it is on anybody's machine; one that has
//! ended is never renewed, its gateway takes another one under another id; a gateway is there for as long as its row is, and the
//! leader removes rows whose lease is over, with the sessions that they left open ([`Leave`]). Renewing has a connection of its
//! own: it does not wait for whatever else is written or read.

use std::collections::BTreeMap;
use std::time::Duration;

use sqlx::{AnyConnection, Connection, Row as _};

use super::patience::Pool;
use super::{Store, StoreError, Write, connect, patience};
use crate::awake::wall_ms;

/// How long a lease is valid.
pub const VALID: Duration = Duration::from_secs(10);

/// Unix milliseconds, whatever the transaction's own time is.
pub(super) const CLOCK: &str = "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)";

/// Now, Unix milliseconds: by the clock of a server that several machines share, or else by the one of this machine.
pub(super) async fn now(connection: &mut AnyConnection, here_ms: i64) -> Result<i64, sqlx::Error> {
    match connection.backend_name() {
        "SQLite" => Ok(here_ms),
        _ => sqlx::query_scalar(sqlx::AssertSqlSafe(format!("SELECT {CLOCK}"))).fetch_one(connection).await,
    }
}

/// The leases of all, on a connection of their own.
pub struct Leases {
    pool: Pool,
}

/// What holds right after a lease was renewed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Renewed {
    /// The awake clock, as the one of them has it that was awake for longest.
    pub awake_ms: i64,
    /// The gateway that does what one has to do for all.
    pub leader: String,
    /// Those whose lease holds, and where they are; this one is among them.
    pub there: BTreeMap<String, String>,
    /// Those whose lease is over, and since when.
    pub over: BTreeMap<String, i64>,
}

/// What a gateway has to be told of one of its sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Whose session.
    pub sandbox: String,
    /// What.
    pub word: String,
    /// See the schema.
    pub n: i64,
}

/// The words of notices.
pub mod word {
    /// Another gateway has the session now.
    pub const MOVED: &str = "moved";
    /// The sandbox is no more.
    pub const DELETED: &str = "deleted";
    /// There are new commands.
    pub const COMMANDS: &str = "commands";
}

impl Leases {
    /// Of the PostgreSQL database at `url`.
    pub async fn connect(url: &str) -> Result<Leases, StoreError> {
        Ok(Leases { pool: Pool::new(connect(url, false, 1).await?) })
    }

    /// A lease for a gateway that had none under this id.
    pub async fn take(&self, id: &str, url: &str) -> Result<(), StoreError> {
        let sql = format!("INSERT INTO gateways (id, url, until_ms) VALUES ($1, $2, {CLOCK} + $3)");
        let take = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(id.to_owned()).bind(url.to_owned()).bind(valid_ms());
        patience::on(&self.pool, async |c| take.execute(c).await).await?;
        Ok(())
    }

    /// The lease from now on for [`VALID`]; `None` where it has ended.
    pub async fn renew(&self, id: &str, awake_ms: i64) -> Result<Option<Renewed>, StoreError> {
        let renewed = patience::on(&self.pool, async |connection| {
            let mut transaction = connection.begin().await?;
            let sql = format!("UPDATE gateways SET until_ms = {CLOCK} + $2 WHERE id = $1 AND until_ms > {CLOCK}");
            let renew = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(id.to_owned()).bind(valid_ms());
            if renew.execute(&mut *transaction).await?.rows_affected() == 0 {
                return Ok(None);
            }
            let renewed = look_around(&mut transaction, id, awake_ms).await?;
            transaction.commit().await?;
            Ok(Some(renewed))
        });
        Ok(renewed.await?)
    }

    /// What it has to be told, while its lease holds; they stay until they are [`Heard`].
    pub async fn notices(&self, id: &str) -> Result<Option<Vec<Notice>>, StoreError> {
        let sql = format!(
            "SELECT sandbox, word, n FROM gateways g LEFT JOIN notices ON gateway = g.id WHERE g.id = $1 AND until_ms > {CLOCK}"
        );
        let query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(id.to_owned());
        let rows = patience::on(&self.pool, async |c| query.fetch_all(c).await).await?;
        if rows.is_empty() {
            return Ok(None);
        }
        let mut notices = Vec::new();
        for row in &rows {
            // One row without any says that the lease holds.
            if let Some(sandbox) = row.try_get("sandbox")? {
                notices.push(Notice { sandbox, word: row.try_get("word")?, n: row.try_get("n")? });
            }
        }
        Ok(Some(notices))
    }
}

fn valid_ms() -> i64 {
    VALID.as_millis() as i64
}

/// Who else is there, who leads, and how late it is by the awake clock. Who finds that nobody leads does from now on.
async fn look_around(connection: &mut AnyConnection, id: &str, awake_ms: i64) -> Result<Renewed, sqlx::Error> {
    let leader = match leader(connection).await? {
        Some(leader) => leader,
        None => lead(connection, id).await?,
    };
    let awake = "UPDATE awake SET reading_ms = GREATEST(reading_ms, $1) WHERE one = 1 RETURNING reading_ms";
    let awake_ms = sqlx::query_scalar(awake).bind(awake_ms).fetch_one(&mut *connection).await?;
    let mut renewed = Renewed { awake_ms, leader, ..Renewed::default() };
    let all = format!("SELECT id, url, until_ms, until_ms > {CLOCK} AS holds FROM gateways");
    for row in sqlx::query(sqlx::AssertSqlSafe(all)).fetch_all(connection).await? {
        let id = row.try_get("id")?;
        if row.try_get("holds")? {
            renewed.there.insert(id, row.try_get("url")?);
        } else {
            renewed.over.insert(id, row.try_get("until_ms")?);
        }
    }
    Ok(renewed)
}

/// Who leads, and has a lease that holds.
async fn leader(connection: &mut AnyConnection) -> Result<Option<String>, sqlx::Error> {
    let sql = format!(
        "SELECT l.gateway FROM leader l JOIN gateways g ON g.id = l.gateway WHERE l.one = 1 AND g.until_ms > {CLOCK}"
    );
    sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_optional(connection).await
}

/// Lead, unless somebody else was faster; who does. Waits for what a leader before is writing ([`super::Term`]).
async fn lead(connection: &mut AnyConnection, id: &str) -> Result<String, sqlx::Error> {
    let lead = format!(
        "INSERT INTO leader (one, gateway) VALUES (1, $1) ON CONFLICT (one) DO UPDATE SET gateway = $1 \
         WHERE NOT EXISTS (SELECT 1 FROM gateways g WHERE g.id = leader.gateway AND g.until_ms > {CLOCK})"
    );
    sqlx::query(sqlx::AssertSqlSafe(lead)).bind(id.to_owned()).execute(&mut *connection).await?;
    sqlx::query_scalar("SELECT gateway FROM leader WHERE one = 1").fetch_one(connection).await
}

impl Store {
    /// How many sessions each gateway has that has any.
    pub async fn sessions_by_owner(&self) -> Result<BTreeMap<String, usize>, StoreError> {
        let sql = "SELECT owner, count(*) AS sessions FROM sandboxes \
                   WHERE ended_ms IS NULL AND owner IS NOT NULL GROUP BY owner";
        let rows = self.read(async |c| sqlx::query(sql).fetch_all(c).await).await?;
        let count = |row: &sqlx::any::AnyRow| -> Result<_, sqlx::Error> {
            Ok((row.try_get("owner")?, usize::try_from(row.try_get::<i64, _>("sessions")?).unwrap_or_default()))
        };
        Ok(rows.iter().map(count).collect::<Result<_, _>>()?)
    }
}

/// A gateway is not there any more. Sessions that it has left open have ended, and nothing of them is stored from here on.
#[derive(Clone, Debug)]
pub struct Leave {
    /// Which.
    pub gateway: String,
    /// When, by the wall clock.
    pub ended_ms: i64,
    /// When this is written, by the awake clock.
    pub awake_ms: i64,
    /// It gives its lease back; anybody else's has to be over.
    pub by_itself: bool,
}

impl Leave {
    /// Of a gateway that stops, and has no session any more.
    pub fn now(gateway: String, awake_ms: i64) -> Leave {
        Leave { gateway, ended_ms: wall_ms(), awake_ms, by_itself: true }
    }
}

impl Write for Leave {
    /// How many sessions have ended; `None` where it is there, or others have seen its end.
    type Answer = Option<u64>;

    async fn apply(&self, connection: &mut AnyConnection) -> Result<Option<u64>, sqlx::Error> {
        // First: it waits for sessions that are beginning there ([`super::Begin`]), and for a renewal; after it none begins.
        let over = if self.by_itself { String::new() } else { format!(" AND until_ms <= {CLOCK}") };
        let leave = format!("DELETE FROM gateways WHERE id = $1{over}");
        let left = sqlx::query(sqlx::AssertSqlSafe(leave)).bind(&self.gateway).execute(&mut *connection).await?;
        if left.rows_affected() == 0 {
            return Ok(None);
        }
        let ended = sqlx::query(
            "UPDATE sandboxes SET ended_ms = $2, ended_awake_ms = $3, fence = fence + 1 \
             WHERE owner = $1 AND ended_ms IS NULL",
        )
        .bind(&self.gateway)
        .bind(self.ended_ms)
        .bind(self.awake_ms)
        .execute(&mut *connection)
        .await?;
        sqlx::query("DELETE FROM notices WHERE gateway = $1").bind(&self.gateway).execute(connection).await?;
        Ok(Some(ended.rows_affected()))
    }
}

/// Notices that have been obeyed.
#[derive(Clone, Debug)]
pub struct Heard {
    /// By whom.
    pub gateway: String,
    /// Which.
    pub notices: Vec<Notice>,
}

impl Write for Heard {
    type Answer = ();

    async fn apply(&self, connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
        for notice in &self.notices {
            // A newer one of its kind stays.
            sqlx::query("DELETE FROM notices WHERE gateway = $1 AND sandbox = $2 AND word = $3 AND n <= $4")
                .bind(&self.gateway)
                .bind(&notice.sandbox)
                .bind(&notice.word)
                .bind(notice.n)
                .execute(&mut *connection)
                .await?;
        }
        Ok(())
    }
}

/// Tell the gateway `to`.
pub(super) async fn notify(
    connection: &mut AnyConnection,
    to: &str,
    sandbox: &str,
    word: &str,
    n: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO notices (gateway, sandbox, word, n) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (gateway, sandbox, word) DO UPDATE SET n = $4 WHERE notices.n < $4",
    )
    .bind(to.to_owned())
    .bind(sandbox.to_owned())
    .bind(word.to_owned())
    .bind(n)
    .execute(connection)
    .await?;
    Ok(())
}
