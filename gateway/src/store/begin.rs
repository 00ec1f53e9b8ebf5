//! A session begins.

use std::collections::BTreeMap;
use std::time::Duration;

use protocol::session::{Class, Outcome};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AssertSqlSafe, Row as _};
use tokio::time::Instant;

use super::Write;
use super::leases::{CLOCK, notify, word};

/// What is expected next of each class of one epoch.
pub type Cursors = BTreeMap<Class, i64>;

/// The first fence is the time, so that one of a deleted sandbox of this id is older.
const NEW: &str = "INSERT INTO sandboxes (id, created_ms, fence, hello, begun_ms, commanded, applied, owner) \
                   VALUES ($1, $2, $2, $3, $2, $4, $4, $5) ON CONFLICT (id) DO UPDATE SET";
/// Whoever has a token that was given out here is known for as long as it counts.
const KNOWN: &str = "UPDATE sandboxes SET";
/// Commands that the sandbox has applied by its own count are behind it: numbers are never used twice.
const BEGUN: &str = "fence = sandboxes.fence + 1, hello = $3, begun_ms = $2, owner = $5, \
                     ended_ms = NULL, ended_awake_ms = NULL, gone = 0, \
                     commanded = CASE WHEN sandboxes.commanded < $4 THEN $4 ELSE sandboxes.commanded END, \
                     applied = CASE WHEN sandboxes.applied < $4 THEN $4 ELSE sandboxes.applied END";

/// The fence, and the cursors of the epoch as one text.
const RETURNING: &str = "RETURNING fence, (SELECT string_agg(class || ' ' || CAST(next AS TEXT), ' ') FROM cursors \
                         WHERE sandbox = $1 AND epoch = $6)";

/// A hello whose turn comes later than this is told so. Half of what a supervisor waits for its welcome: where more come than the database can
/// take, somebody waits for all that it takes.
pub const UNTIL: Duration = Duration::from_secs(5);

/// A session begins: a new fence, which is in force once this is committed.
#[derive(Clone, Debug)]
pub struct Begin {
    /// Whose; a sandbox that is not known yet is made.
    pub sandbox: String,
    /// SHA-256 of the token that it showed, in hex, where that was given out here.
    pub token: Option<String>,
    /// As JSON.
    pub hello: String,
    /// Of its buffer.
    pub epoch: String,
    /// The newest command that it has applied.
    pub applied: i64,
    /// The gateway that has it, where there are several.
    pub owner: Option<String>,
    /// By the wall clock.
    pub now_ms: i64,
    /// It is not begun any more where its turn comes later ([`UNTIL`] after the hello).
    pub until: Instant,
}

/// A session has begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begun {
    /// Its own.
    pub fence: i64,
    /// What it goes on with.
    pub next: Cursors,
}

/// Why none has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotBegun {
    /// The owner's lease is over.
    Lease,
    /// The token counts no more: the sandbox was deleted since it was shown, or has another one.
    Token,
}

impl Write for Begin {
    type Answer = Result<Begun, NotBegun>;

    fn is_late(&self) -> bool {
        self.until <= Instant::now()
    }

    async fn apply(&self, connection: &mut AnyConnection) -> Result<Result<Begun, NotBegun>, sqlx::Error> {
        let (mut other, mut now_ms) = (None, self.now_ms);
        if let Some(owner) = &self.owner {
            let Some(found) = self.look(connection, owner).await? else { return Ok(Err(NotBegun::Lease)) };
            now_ms = found.now_ms;
            other = found.other;
        }
        let used = if self.applied > 0 { self.used_numbers(connection).await? } else { Vec::new() };
        let Some(begun) = self.begun(connection, now_ms).await? else { return Ok(Err(NotBegun::Token)) };
        self.refuse(connection, used).await?;
        if let Some(other) = other {
            notify(connection, &other, &self.sandbox, word::MOVED, begun.fence).await?;
        }
        Ok(Ok(begun))
    }
}

/// What is there before a session begins.
struct Found {
    /// By the clock of all gateways.
    now_ms: i64,
    /// The other gateway that has a session of this sandbox until now.
    other: Option<String>,
}

impl Begin {
    /// What is there, where the owner's lease holds, which cannot end before this is committed ([`super::Leave`]). Nobody else begins a session of
    /// this sandbox before that, and one that is under way elsewhere is waited for, also the first.
    async fn look(&self, connection: &mut AnyConnection, owner: &str) -> Result<Option<Found>, sqlx::Error> {
        let Some(mut row) = self.locked(connection, owner).await? else { return Ok(None) };
        let now_ms = row.try_get("now_ms")?;
        if row.try_get::<Option<String>, _>("id")?.is_none() && self.token.is_none() {
            let made = "INSERT INTO sandboxes (id, created_ms, fence, ended_ms) VALUES ($1, $2, $2, $2) \
                        ON CONFLICT (id) DO NOTHING";
            let made = sqlx::query(made).bind(&self.sandbox).bind(now_ms).execute(&mut *connection).await?;
            if made.rows_affected() == 1 {
                return Ok(Some(Found { now_ms, other: None }));
            }
            let Some(again) = self.locked(connection, owner).await? else { return Ok(None) };
            row = again;
        }
        let (other, ended): (Option<String>, Option<i64>) = (row.try_get("owner")?, row.try_get("ended_ms")?);
        Ok(Some(Found { now_ms, other: other.filter(|other| ended.is_none() && other != owner) }))
    }

    /// The lease, and the sandbox's row where there is one, which is ours until the commit: in one statement, since each is a way to the
    /// server and back. By nothing but its id: a condition would be looked at before the wait for the row, and pass over what came meanwhile.
    async fn locked(&self, connection: &mut AnyConnection, owner: &str) -> Result<Option<AnyRow>, sqlx::Error> {
        let sql = format!(
            "WITH lease AS (SELECT {CLOCK} AS now_ms FROM gateways WHERE id = $2 AND until_ms > {CLOCK} FOR KEY SHARE), \
             mine AS (SELECT id, owner, ended_ms FROM sandboxes WHERE id = $1 FOR UPDATE) \
             SELECT now_ms, id, owner, ended_ms FROM lease LEFT JOIN mine ON TRUE"
        );
        sqlx::query(AssertSqlSafe(sql)).bind(&self.sandbox).bind(owner.to_owned()).fetch_optional(connection).await
    }

    /// A sandbox that has applied more commands than were ever given here had them from a newer store, of which this is an older copy.
    /// These were given here since, under numbers that it has used. Where as many were given before it came back, that cannot be seen.
    async fn used_numbers(&self, connection: &mut AnyConnection) -> Result<Vec<i64>, sqlx::Error> {
        let waiting = "SELECT n FROM commands WHERE sandbox = $1 AND outcome IS NULL AND n <= $2 AND n > \
                       (SELECT applied FROM sandboxes WHERE id = $1 AND commanded < $2)";
        sqlx::query_scalar(waiting).bind(&self.sandbox).bind(self.applied).fetch_all(connection).await
    }

    /// Such commands never run; they say so, and are not taken for what ran.
    async fn refuse(&self, connection: &mut AnyConnection, used: Vec<i64>) -> Result<(), sqlx::Error> {
        for n in used {
            tracing::warn!(
                sandbox = self.sandbox,
                n,
                "a command has a number that was used: this store is an older copy"
            );
            let reason = "its number was used before; give it again".to_string();
            let outcome = protocol::session::encode(&Outcome { n, ok: false, reason, body: serde_json::Value::Null });
            sqlx::query("UPDATE commands SET outcome = $3 WHERE sandbox = $1 AND n = $2")
                .bind(&self.sandbox)
                .bind(n)
                .bind(outcome)
                .execute(&mut *connection)
                .await?;
        }
        Ok(())
    }

    /// The new fence, and what is expected next; none where the token counts no more.
    async fn begun(&self, connection: &mut AnyConnection, now_ms: i64) -> Result<Option<Begun>, sqlx::Error> {
        let sql = match &self.token {
            None => format!("{NEW} {BEGUN} {RETURNING}"),
            Some(_) => format!("{KNOWN} {BEGUN} WHERE id = $1 AND token = $7 {RETURNING}"),
        };
        let mut query = sqlx::query_as(AssertSqlSafe(sql))
            .bind(&self.sandbox)
            .bind(now_ms)
            .bind(&self.hello)
            .bind(self.applied)
            .bind(&self.owner)
            .bind(&self.epoch);
        if let Some(token) = &self.token {
            query = query.bind(token);
        }
        let begun: Option<(i64, Option<String>)> = query.fetch_optional(connection).await?;
        Ok(begun.map(|(fence, next)| Begun { fence, next: cursors(&next.unwrap_or_default()) }))
    }
}

/// What [`RETURNING`] has: a class and a number, and so on.
fn cursors(text: &str) -> Cursors {
    let mut words = text.split(' ');
    let mut next = Cursors::new();
    while let (Some(class), Some(n)) = (words.next(), words.next()) {
        // A class that only a later version knows is not ours.
        if let (Some(class), Ok(n)) = (Class::from_name(class), n.parse()) {
            next.insert(class, n);
        }
    }
    next
}
