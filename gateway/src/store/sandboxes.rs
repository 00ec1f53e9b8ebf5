//! The rows of sandboxes: what is known of each, also while it is away.

use protocol::session::Hello;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row as _};

use super::leases::{notify, now, word};
use super::{Store, StoreError, Term, Write};

/// What is stored of a sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The agent's id.
    pub id: String,
    /// When it was made.
    pub created_ms: i64,
    /// Of its newest session.
    pub fence: i64,
    /// Of its newest event.
    pub position: i64,
    /// The hello of its newest session, as JSON.
    pub hello: Option<String>,
    /// The state that it told last before its session ended, as JSON.
    pub state: Option<String>,
    /// When its newest session began.
    pub begun_ms: Option<i64>,
    /// When that ended.
    pub ended_ms: Option<i64>,
    /// The same by the awake clock.
    pub ended_awake_ms: Option<i64>,
    /// It said that no session of its boot will follow.
    pub gone: bool,
    /// What the backend was asked to make, as JSON; `None` where somebody else makes it.
    pub spec: Option<String>,
    /// Its end is wanted.
    pub ending: bool,
    /// Which of several gateways has a session of it now.
    pub owner: Option<Owner>,
}

/// A gateway that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Its name in this life.
    pub id: String,
    /// Where the others reach it.
    pub url: String,
}

impl Row {
    /// What its supervisor said of itself in its newest session.
    pub fn told(&self) -> Option<Hello> {
        serde_json::from_str(self.hello.as_ref()?).ok()
    }
}

const ROW: &str = "SELECT s.id AS id, created_ms, fence, position, hello, state, begun_ms, ended_ms, ended_awake_ms, gone, \
                   spec, ending, g.id AS owner, g.url AS url FROM sandboxes s \
                   LEFT JOIN gateways g ON g.id = s.owner AND s.ended_ms IS NULL";

impl Store {
    /// One sandbox.
    pub async fn sandbox(&self, id: &str) -> Result<Option<Row>, StoreError> {
        let sql = format!("{ROW} WHERE s.id = $1");
        let query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(id.to_string());
        Ok(self.read(async |c| query.fetch_optional(c).await).await?.as_ref().map(row).transpose()?)
    }

    /// Sandboxes behind `after` in the order of their ids.
    pub async fn sandboxes(&self, after: &str, limit: i64) -> Result<Vec<Row>, StoreError> {
        let sql = format!("{ROW} WHERE s.id > $1 ORDER BY s.id LIMIT $2");
        let query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(after.to_string()).bind(limit);
        let rows = self.read(async |c| query.fetch_all(c).await).await?;
        Ok(rows.iter().map(row).collect::<Result<_, _>>()?)
    }

    /// Those that a backend is to make or to end, behind `after` in the order of their ids.
    pub async fn wanted(&self, after: &str, limit: i64) -> Result<Vec<Row>, StoreError> {
        let sql = format!("{ROW} WHERE s.id > $1 AND (spec IS NOT NULL OR ending <> 0) ORDER BY s.id LIMIT $2");
        let query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(after.to_string()).bind(limit);
        let rows = self.read(async |c| query.fetch_all(c).await).await?;
        Ok(rows.iter().map(row).collect::<Result<_, _>>()?)
    }

    /// How many may dial in.
    pub async fn fleet(&self) -> Result<i64, StoreError> {
        let sql = "SELECT COUNT(*) FROM sandboxes WHERE gone = 0";
        self.read(async |c| sqlx::query_scalar::<_, i64>(sql).fetch_one(c).await).await
    }

    /// Whose token has this SHA-256, in hex.
    pub async fn sandbox_of_token(&self, hash: &str) -> Result<Option<String>, StoreError> {
        let query = sqlx::query_scalar::<_, String>("SELECT id FROM sandboxes WHERE token = $1");
        self.read(async |c| query.bind(hash.to_string()).fetch_optional(c).await).await
    }

    /// The reading of the awake clock.
    pub async fn awake_ms(&self) -> Result<i64, StoreError> {
        let query = sqlx::query_scalar::<_, i64>("SELECT reading_ms FROM awake WHERE one = 1");
        Ok(self.read(async |c| query.fetch_optional(c).await).await?.unwrap_or(0))
    }
}

fn row(row: &AnyRow) -> Result<Row, sqlx::Error> {
    Ok(Row {
        id: row.try_get("id")?,
        created_ms: row.try_get("created_ms")?,
        fence: row.try_get("fence")?,
        position: row.try_get("position")?,
        hello: row.try_get("hello")?,
        state: row.try_get("state")?,
        begun_ms: row.try_get("begun_ms")?,
        ended_ms: row.try_get("ended_ms")?,
        ended_awake_ms: row.try_get("ended_awake_ms")?,
        gone: row.try_get::<i64, _>("gone")? != 0,
        spec: row.try_get("spec")?,
        ending: row.try_get::<i64, _>("ending")? != 0,
        owner: owner(row)?,
    })
}

fn owner(row: &AnyRow) -> Result<Option<Owner>, sqlx::Error> {
    let (id, url): (Option<String>, Option<String>) = (row.try_get("owner")?, row.try_get("url")?);
    Ok(id.zip(url).map(|(id, url)| Owner { id, url }))
}

/// A sandbox gets a new token; the old one is worth nothing from then on. Not one that a backend makes or ends.
#[derive(Clone, Debug)]
pub struct Register {
    /// Its id; it is made where there is none.
    pub id: String,
    /// SHA-256 of the token, in hex.
    pub token: String,
    /// By the wall clock.
    pub now_ms: i64,
}

/// Whether it was known before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registered {
    /// It was made.
    New,
    /// It has another token now.
    Renewed,
    /// It is the backend's, so nothing has changed.
    Made,
}

impl Write for Register {
    type Answer = Registered;

    async fn apply(&self, connection: &mut AnyConnection) -> Result<Registered, sqlx::Error> {
        let renewed = sqlx::query("UPDATE sandboxes SET token = $2 WHERE id = $1 AND spec IS NULL AND ending = 0")
            .bind(&self.id)
            .bind(&self.token)
            .execute(&mut *connection)
            .await?;
        if renewed.rows_affected() > 0 {
            return Ok(Registered::Renewed);
        }
        let now_ms = now(connection, self.now_ms).await?;
        let made = sqlx::query(
            "INSERT INTO sandboxes (id, token, created_ms, fence) VALUES ($1, $2, $3, $3) ON CONFLICT (id) DO NOTHING",
        )
        .bind(&self.id)
        .bind(&self.token)
        .bind(now_ms)
        .execute(connection)
        .await?;
        Ok(if made.rows_affected() > 0 { Registered::New } else { Registered::Made })
    }
}

/// A sandbox is to be made by the backend; whether there was none of this id.
#[derive(Clone, Debug)]
pub struct Want {
    /// Its id.
    pub id: String,
    /// SHA-256 of the token, in hex; `None` where it has an identity of its own.
    pub token: Option<String>,
    /// What was asked for, as JSON.
    pub spec: String,
    /// By the wall clock.
    pub now_ms: i64,
}

impl Write for Want {
    type Answer = bool;

    async fn apply(&self, connection: &mut AnyConnection) -> Result<bool, sqlx::Error> {
        let now_ms = now(connection, self.now_ms).await?;
        let wanted = sqlx::query(
            "INSERT INTO sandboxes (id, token, spec, created_ms, fence) VALUES ($1, $2, $3, $4, $4) \
             ON CONFLICT (id) DO NOTHING",
        )
        .bind(&self.id)
        .bind(&self.token)
        .bind(&self.spec)
        .bind(now_ms)
        .execute(connection)
        .await?;
        Ok(wanted.rows_affected() > 0)
    }
}

/// A sandbox is to be ended, whatever becomes of whoever says so; whether there is one, and the term goes on.
#[derive(Clone, Debug)]
pub struct Unwant {
    /// Its id.
    pub id: String,
    /// Of who says so.
    pub term: Term,
}

impl Write for Unwant {
    type Answer = bool;

    async fn apply(&self, connection: &mut AnyConnection) -> Result<bool, sqlx::Error> {
        if !self.term.goes_on(connection).await? {
            return Ok(false);
        }
        let known =
            sqlx::query("UPDATE sandboxes SET ending = 1 WHERE id = $1").bind(&self.id).execute(connection).await?;
        Ok(known.rows_affected() > 0)
    }
}

/// A sandbox is forgotten with its records, its commands and its token; whether there was one, and the term went on.
#[derive(Clone, Debug)]
pub struct Forget {
    /// Its id.
    pub id: String,
    /// Of who has ended it.
    pub term: Term,
}

impl Write for Forget {
    type Answer = bool;

    async fn apply(&self, connection: &mut AnyConnection) -> Result<bool, sqlx::Error> {
        if !self.term.goes_on(connection).await? {
            return Ok(false);
        }
        let forgotten = sqlx::query("DELETE FROM sandboxes WHERE id = $1 RETURNING owner, fence, ended_ms")
            .bind(&self.id)
            .fetch_optional(&mut *connection)
            .await?;
        for sql in [
            "DELETE FROM records WHERE sandbox = $1",
            "DELETE FROM cursors WHERE sandbox = $1",
            "DELETE FROM commands WHERE sandbox = $1",
        ] {
            sqlx::query(sql).bind(&self.id).execute(&mut *connection).await?;
        }
        if let Some(row) = &forgotten
            && let Some(owner) = row.try_get::<Option<String>, _>("owner")?
            && row.try_get::<Option<i64>, _>("ended_ms")?.is_none()
        {
            let fence: i64 = row.try_get("fence")?;
            notify(connection, &owner, &self.id, word::DELETED, fence + 1).await?;
        }
        Ok(forgotten.is_some())
    }
}

/// A life of the gateway begins: sessions that one has left open which worked alone ended with it.
#[derive(Clone, Debug)]
pub struct Wake {
    /// This one works alone, so there are no others.
    pub alone: bool,
    /// By the wall clock.
    pub now_ms: i64,
    /// By the awake clock.
    pub awake_ms: i64,
}

impl Write for Wake {
    type Answer = ();

    async fn apply(&self, connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
        if self.alone {
            for sql in [
                "DELETE FROM gateways",
                "DELETE FROM notices",
                "UPDATE sandboxes SET owner = NULL WHERE owner IS NOT NULL",
            ] {
                sqlx::query(sql).execute(&mut *connection).await?;
            }
        }
        sqlx::query(
            "UPDATE sandboxes SET ended_ms = $1, ended_awake_ms = $2 \
             WHERE begun_ms IS NOT NULL AND ended_ms IS NULL AND owner IS NULL",
        )
        .bind(self.now_ms)
        .bind(self.awake_ms)
        .execute(connection)
        .await?;
        Ok(())
    }
}

/// The reading of the awake clock is kept, where no later one is.
#[derive(Clone, Debug)]
pub struct Reading(pub i64);

impl Write for Reading {
    type Answer = ();

    async fn apply(&self, connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
        sqlx::query("UPDATE awake SET reading_ms = $1 WHERE one = 1 AND reading_ms < $1")
            .bind(self.0)
            .execute(connection)
            .await?;
        Ok(())
    }
}
