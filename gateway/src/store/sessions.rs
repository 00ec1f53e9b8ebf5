//! What a session writes: records and gaps, its end. All of it only as long as its fence is the newest.

use std::fmt::Write as _;

use protocol::session::Class;
use sqlx::{AnyConnection, AssertSqlSafe};

use super::Write;

/// Rows in one statement.
const ROWS: usize = 64;
/// So few go with all else of a write in one statement, where the database takes that: as many statements are kept prepared, twice.
const FEW: usize = 4;
/// The cursor moves only from where the records begin. What is not the first has one already: without it, the write before was refused, and
/// this one would leave a hole.
const FIRST: &str = "INSERT INTO cursors (sandbox, epoch, class, next) VALUES ($1, $2, $3, $5) \
                     ON CONFLICT (sandbox, epoch, class) DO UPDATE SET next = $5 WHERE cursors.next = $4";
const NEXT: &str = "UPDATE cursors SET next = $5 WHERE sandbox = $1 AND epoch = $2 AND class = $3 AND next = $4";

/// Sequences of one class, in order, without a hole, and the cursor behind them.
#[derive(Clone, Debug)]
pub struct Append {
    /// Whose.
    pub sandbox: String,
    /// Of the session.
    pub fence: i64,
    /// Of the buffer.
    pub epoch: String,
    /// Of all of them.
    pub class: Class,
    /// At least one; the first begins where the cursor is.
    pub pieces: Vec<Piece>,
    /// By the wall clock.
    pub now_ms: i64,
}

/// One record, or one gap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// First sequence.
    pub seq: i64,
    /// Last sequence, the same for a record.
    pub last: i64,
    /// Whether it is a gap.
    pub gap: bool,
    /// The record as it was buffered, or the gap, as JSON.
    pub body: String,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// Stored.
    Stored,
    /// A newer session has the sandbox, or it was deleted: nothing was stored.
    Fenced,
    /// The cursor is elsewhere: nothing was stored. The write before was refused, or it is a bug of ours.
    Moved,
}

impl Write for Append {
    type Answer = Appended;

    fn is_one_statement(&self, connection: &AnyConnection) -> bool {
        self.pieces.len() <= FEW && connection.backend_name() == "PostgreSQL"
    }

    async fn apply(&self, connection: &mut AnyConnection) -> Result<Appended, sqlx::Error> {
        let (Some(first), Some(last)) = (self.pieces.first(), self.pieces.last()) else { return Ok(Appended::Stored) };
        if self.is_one_statement(connection) {
            return self.at_once(connection, first.seq, last.last + 1).await;
        }
        // First: from here on the row of the sandbox is locked, so the fence stays as it is, and positions are committed in their order.
        let places = self.pieces.len() as i64;
        let Some(position) = self.take(connection, places).await? else { return Ok(Appended::Fenced) };
        let moved = sqlx::query(if first.seq == 1 { FIRST } else { NEXT })
            .bind(&self.sandbox)
            .bind(&self.epoch)
            .bind(self.class.name())
            .bind(first.seq)
            .bind(last.last + 1)
            .execute(&mut *connection)
            .await?;
        if moved.rows_affected() != 1 {
            self.take(connection, -places).await?;
            return Ok(Appended::Moved);
        }
        self.insert(connection, position - places).await?;
        Ok(Appended::Stored)
    }
}

impl Append {
    /// So many positions, or back; the last of them, where the session's fence is the newest.
    async fn take(&self, connection: &mut AnyConnection, places: i64) -> Result<Option<i64>, sqlx::Error> {
        let sql = "UPDATE sandboxes SET position = position + $3 WHERE id = $1 AND fence = $2 RETURNING position";
        let take = sqlx::query_scalar(sql).bind(&self.sandbox).bind(self.fence).bind(places);
        take.fetch_optional(connection).await
    }

    /// The same in one statement of PostgreSQL's: of a write, each way to its server and back is most of the time. Where it waits for the row of the
    /// sandbox it sees what was committed meanwhile of that row, and of the cursor's where that was there before: a newer fence, more positions.
    /// No cursor of this session moves meanwhile, but by a transaction of its own that was [given up](super::patience) and is committed late;
    /// then it is not as it must be, nothing is stored, and the session ends.
    async fn at_once(&self, connection: &mut AnyConnection, first: i64, next: i64) -> Result<Appended, sqlx::Error> {
        let mut query = sqlx::query_as(AssertSqlSafe(append_of(self.pieces.len(), first == 1)))
            .bind(&self.sandbox)
            .bind(self.fence)
            .bind(&self.epoch)
            .bind(self.class.name())
            .bind(self.now_ms)
            .bind(first)
            .bind(next);
        for piece in &self.pieces {
            query = query.bind(piece.seq).bind(piece.last).bind(i64::from(piece.gap)).bind(&piece.body);
        }
        // All of the answer: its row is sent before the commit of a statement that is a transaction of its own.
        Ok(match query.fetch_all(&mut *connection).await?[..] {
            [(0_i64, _)] => Appended::Fenced,
            [(_, 0_i64)] => Appended::Moved,
            [_] => Appended::Stored,
            _ => return Err(sqlx::Error::RowNotFound),
        })
    }

    async fn insert(&self, connection: &mut AnyConnection, mut position: i64) -> Result<(), sqlx::Error> {
        for pieces in self.pieces.chunks(ROWS) {
            let sql = insert_of(pieces.len());
            let mut query = sqlx::query(AssertSqlSafe(sql))
                .bind(&self.sandbox)
                .bind(&self.epoch)
                .bind(self.class.name())
                .bind(self.now_ms);
            for piece in pieces {
                position += 1;
                let gap = i64::from(piece.gap);
                query = query.bind(position).bind(piece.seq).bind(piece.last).bind(gap).bind(&piece.body);
            }
            // Only statements of full length come again.
            query.persistent(pieces.len() == ROWS || pieces.len() == 1).execute(&mut *connection).await?;
        }
        Ok(())
    }
}

/// How many rows of the sandbox and of its cursor were found as they must be; the pieces are stored where both were.
fn append_of(pieces: usize, first: bool) -> String {
    let cursor = if first {
        "INSERT INTO cursors (sandbox, epoch, class, next) SELECT $1, $3, $4, $7 FROM mine \
         ON CONFLICT (sandbox, epoch, class) DO UPDATE SET next = $7 WHERE cursors.next = $6"
    } else {
        "UPDATE cursors SET next = $7 FROM mine WHERE sandbox = $1 AND epoch = $3 AND class = $4 AND next = $6"
    };
    let mut rows = String::new();
    for piece in 0..pieces {
        let n = 8 + piece * 4;
        let comma = if piece == 0 { "" } else { ", " };
        // Writing to a String cannot fail.
        let _ = write!(rows, "{comma}({}, ${n}, ${}, ${}, ${})", piece + 1, n + 1, n + 2, n + 3);
    }
    format!(
        "WITH mine AS (SELECT id FROM sandboxes WHERE id = $1 AND fence = $2 FOR UPDATE), \
         moved AS ({cursor} RETURNING next), \
         taken AS (UPDATE sandboxes SET position = position + {pieces} FROM moved WHERE id = $1 \
         RETURNING position - {pieces} AS before), \
         stored AS (INSERT INTO records (sandbox, epoch, class, stored_ms, position, seq, last, gap, body) \
         SELECT $1, $3, $4, $5, before + piece.place, piece.seq, piece.last, piece.gap, piece.body \
         FROM taken, (VALUES {rows}) AS piece (place, seq, last, gap, body)) \
         SELECT (SELECT count(*) FROM mine), (SELECT count(*) FROM moved)"
    )
}

/// One statement for so many rows.
fn insert_of(rows: usize) -> String {
    let mut sql =
        String::from("INSERT INTO records (sandbox, epoch, class, stored_ms, position, seq, last, gap, body) VALUES ");
    for row in 0..rows {
        let n = 5 + row * 5;
        let comma = if row == 0 { "" } else { ", " };
        // Writing to a String cannot fail.
        let _ = write!(sql, "{comma}($1, $2, $3, $4, ${n}, ${}, ${}, ${}, ${})", n + 1, n + 2, n + 3, n + 4);
    }
    sql
}

/// A session has ended; nothing happens where a newer one goes on.
#[derive(Clone, Debug)]
pub struct End {
    /// Whose.
    pub sandbox: String,
    /// Of the session.
    pub fence: i64,
    /// The last state that it told, and its digest.
    pub state: Option<(String, String)>,
    /// No session of its boot will follow.
    pub gone: bool,
    /// By the wall clock.
    pub now_ms: i64,
    /// By the awake clock.
    pub awake_ms: i64,
}

impl Write for End {
    type Answer = ();

    async fn apply(&self, connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
        let (state, digest) = self.state.clone().unzip();
        sqlx::query(
            "UPDATE sandboxes SET ended_ms = $3, ended_awake_ms = $4, gone = $5, \
             state = COALESCE($6, state), digest = COALESCE($7, digest) WHERE id = $1 AND fence = $2",
        )
        .bind(&self.sandbox)
        .bind(self.fence)
        .bind(self.now_ms)
        .bind(self.awake_ms)
        .bind(i64::from(self.gone))
        .bind(state)
        .bind(digest)
        .execute(connection)
        .await?;
        Ok(())
    }
}
