//! The schema: changed by `gateway migrate up`, and by nothing else (000-52, 000-53).
//!
//! Each migration is a file of SQL. All that are missing are applied in one transaction, so that a schema is never
//! between two versions. Migrations only add, so what a gateway of the version before says to its database means the same after
//! them: PostgreSQL is migrated while that one still serves (decision 0022).

use std::cmp::Ordering;

use sqlx::{AnyPool, Executor};

use super::lock::{self, Lock};
use super::{StoreError, connect, file};

/// In order; the version of a schema is how many of them it has.
const MIGRATIONS: &[(&str, &str)] = &[
    ("0001_sessions", include_str!("migrations/0001_sessions.sql")),
    ("0002_backend", include_str!("migrations/0002_backend.sql")),
    ("0003_gateways", include_str!("migrations/0003_gateways.sql")),
];

/// What a schema has and what this program needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// 0 for an empty database.
    pub found: i64,
    /// The version of this program.
    pub wanted: i64,
}

impl Status {
    /// Whether this program works with it.
    pub fn check(self) -> Result<(), Difference> {
        match self.found.cmp(&self.wanted) {
            Ordering::Less => Err(Difference::Old(self)),
            Ordering::Equal => Ok(()),
            Ordering::Greater => Err(Difference::New(self)),
        }
    }
}

/// A schema that this program does not work with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Difference {
    /// Migrations are missing.
    #[error("the schema has version {} and this gateway needs {}: run `gateway migrate up`", .0.found, .0.wanted)]
    Old(Status),
    /// A later gateway has been here.
    #[error(
        "the schema has version {} and this gateway knows {}: run the gateway that made it, or a later one; \
         `gateway migrate status` tells both",
        .0.found, .0.wanted
    )]
    New(Status),
}

/// What is there.
pub async fn status(url: &str) -> Result<Status, StoreError> {
    found(&connect(url, false, 1).await?).await
}

/// Apply what is missing, in a database that is made where there is none; their names.
pub async fn up(url: &str) -> Result<Vec<&'static str>, StoreError> {
    match status(url).await {
        // Nobody is disturbed where there is nothing to do.
        Ok(status) if status.check().is_ok() => return Ok(Vec::new()),
        Ok(_) | Err(StoreError::Missing(_)) => {}
        Err(error) => return Err(error),
    }
    let _alone = alone(url).await?;
    let pool = connect(url, true, 1).await?;
    let status = found(&pool).await?;
    if status.found > status.wanted {
        return Err(StoreError::Schema(Difference::New(status)));
    }
    let missing = &MIGRATIONS[usize::try_from(status.found).unwrap_or_default()..];
    let mut transaction = pool.begin().await?;
    if status.found == 0 {
        let table = "CREATE TABLE schema_version (version BIGINT NOT NULL); INSERT INTO schema_version VALUES (0)";
        transaction.execute(sqlx::raw_sql(table)).await?;
    }
    for (_, sql) in missing {
        transaction.execute(sqlx::raw_sql(*sql)).await?;
    }
    sqlx::query("UPDATE schema_version SET version = $1").bind(status.wanted).execute(&mut *transaction).await?;
    transaction.commit().await?;
    pool.close().await;
    Ok(missing.iter().map(|(name, _)| *name).collect())
}

/// One migration at a time. An SQLite file is migrated between two gateways, never beside one.
async fn alone(url: &str) -> Result<Lock, StoreError> {
    match file(url) {
        Some(path) => Lock::beside(path),
        None => Lock::within(&connect(url, false, 1).await?, lock::MIGRATING, false, StoreError::Migrating).await,
    }
}

/// For `serve`, which changes no schema.
pub(super) async fn require_current(pool: &AnyPool) -> Result<(), StoreError> {
    found(pool).await?.check().map_err(StoreError::Schema)
}

async fn found(pool: &AnyPool) -> Result<Status, StoreError> {
    let version = sqlx::query_scalar::<_, i64>("SELECT version FROM schema_version").fetch_optional(pool).await;
    let found = match version {
        Ok(version) => version.unwrap_or(0),
        // An empty database: SQLite says so with a general error, PostgreSQL with a code of its own.
        Err(sqlx::Error::Database(error)) if is_missing_table(&*error) => 0,
        Err(error) => return Err(error.into()),
    };
    Ok(Status { found, wanted: MIGRATIONS.len() as i64 })
}

fn is_missing_table(error: &dyn sqlx::error::DatabaseError) -> bool {
    error.code().as_deref() == Some("42P01") || error.message().starts_with("no such table")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a gateway of the version before does not notice.
    #[test]
    fn migrations_only_add() {
        for (name, sql) in &MIGRATIONS[1..] {
            let lines = sql.lines().filter(|line| !line.trim_start().starts_with("--"));
            let sql: String = lines.flat_map(|line| [line, " "]).collect();
            for statement in sql.split(';').map(str::trim).filter(|statement| !statement.is_empty()) {
                let new = statement.starts_with("CREATE TABLE ") || statement.starts_with("CREATE INDEX ");
                let column = statement.starts_with("ALTER TABLE ") && statement.contains(" ADD COLUMN ");
                let optional = !statement.contains(" NOT NULL") || statement.contains(" DEFAULT ");
                assert!(new || column && optional, "{name}: {statement}: a gateway that serves would notice this");
            }
        }
    }
}
