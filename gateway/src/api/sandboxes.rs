//! Sandboxes: who they are and whether they are connected, registered and forgotten.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, UNIX_EPOCH};

use axum::extract::{Request, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::time::timeout;

use super::query::Query;
use super::reply::{self, Problem};
use super::{Api, Id};
use crate::awake::wall_ms;
use crate::backend::{self, Seen};
use crate::registry::{Live, Status};
use crate::store::{Register, Registered, Row};
use crate::tokens::{Hash, new_token};

/// How long a sandbox may be away whose supervisor told no Y.
const OFFLINE_AFTER: Duration = Duration::from_secs(24 * 3600);

/// How long another gateway may take to say what it knows of a sandbox.
const ELSEWHERE: Duration = Duration::from_secs(2);

/// One sandbox as it is now.
#[derive(Serialize)]
pub(super) struct Sandbox {
    id: String,
    status: &'static str,
    /// When it became that.
    since: String,
    created_at: String,
    /// When its session was heard last.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_heard: Option<String>,
    /// The number of its newest session.
    fence: i64,
    /// The cursor of its newest event.
    cursor: String,
    /// The hello of its newest session.
    #[serde(skip_serializing_if = "Option::is_none")]
    hello: Option<Box<RawValue>>,
    /// What it told of itself last.
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<Box<RawValue>>,
    /// What its backend knows of it, where this gateway makes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    backend: Option<Backed>,
}

/// A sandbox as its backend sees it.
#[derive(Serialize)]
struct Backed {
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// Exit code of what has failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
    /// What it is called there.
    #[serde(skip_serializing_if = "String::is_empty")]
    place: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
}

impl From<Seen> for Backed {
    fn from(seen: Seen) -> Backed {
        let exit_code = match &seen.state {
            backend::State::Failed { code, .. } => *code,
            _ => None,
        };
        let reason = seen.state.reason().map(str::to_owned);
        Backed { state: seen.state.name(), reason, exit_code, place: seen.place, node: seen.node }
    }
}

/// RFC 3339, of Unix milliseconds.
pub(super) fn time(millis: i64) -> String {
    // humantime ends with the year 9999.
    let millis = u64::try_from(millis).unwrap_or(0).min(253_402_300_799_000);
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(millis)).to_string()
}

impl Api {
    /// As it is now.
    pub(super) fn sandbox(&self, row: Row) -> Sandbox {
        let elsewhere = self.elsewhere(&row).is_some();
        // Also one that is about to end, or that is followed here in this instant: so long it is connected.
        let live = self.sessions.registry.held(&row.id).filter(|_| !elsewhere);
        let (status, since) = match elsewhere {
            true => (Status::Connected, row.begun_ms.unwrap_or(row.created_ms)),
            false => status(&row, live.as_deref(), self.sessions.awake.shared()),
        };
        let backend = self.made.as_ref().and_then(|made| made.see(&row)).map(Backed::from);
        // What it has told another gateway is not known here, and what it told before is not true any more.
        let before = row.state.filter(|_| !elsewhere);
        let state = live.as_ref().and_then(|live| live.state()).map(|told| told.json).or(before);
        let raw = |json: String| RawValue::from_string(json).ok();
        Sandbox {
            id: row.id,
            status: status.name(),
            since: time(since),
            created_at: time(row.created_ms),
            last_heard: live.map(|live| live.heard_ms.load(Ordering::Relaxed)).or(row.ended_ms).map(time),
            fence: row.fence,
            cursor: row.position.to_string(),
            hello: row.hello.and_then(raw),
            state: state.and_then(raw),
            backend,
        }
    }

    /// Its row, or 404.
    pub(super) async fn row(&self, id: &str) -> Result<Row, Problem> {
        self.sessions.store.sandbox(id).await?.ok_or_else(|| Problem::no_sandbox(id))
    }

    /// Why a sandbox without a session cannot be called, and when it may be back.
    pub(super) fn away(&self, row: &Row) -> Problem {
        let (status, since) = status(row, None, self.sessions.awake.shared());
        let detail = format!("sandbox {} is {} since {}", row.id, status.name(), time(since));
        let back = self.sessions.admission.window().as_secs() + 1;
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).retry_after(back)
    }
}

/// What a sandbox is, and since when.
fn status(row: &Row, live: Option<&Live>, awake_ms: i64) -> (Status, i64) {
    if let Some(live) = live {
        return (Status::Connected, live.begun_ms);
    }
    let Some(begun) = row.begun_ms else { return (Status::New, row.created_ms) };
    // A session that is just beginning or ending.
    let Some(ended) = row.ended_ms else { return (Status::Disconnected, begun) };
    if row.gone {
        return (Status::Gone, ended);
    }
    let after = row.told().and_then(|hello| hello.offline).map_or(OFFLINE_AFTER.as_millis() as i64, |o| o.after_ms);
    let away = awake_ms - row.ended_awake_ms.unwrap_or(awake_ms);
    if away >= after { (Status::Expired, ended.saturating_add(after)) } else { (Status::Disconnected, ended) }
}

/// So many sandboxes are told before others have their turn.
const TURN: usize = 64;

/// The query of a list.
pub(crate) struct Wanted {
    /// `None` for all.
    pub(crate) status: Option<Status>,
    /// An id.
    pub(crate) after: String,
    pub(crate) limit: usize,
}

impl Wanted {
    pub(crate) fn read(query: Option<&str>) -> Result<Wanted, Problem> {
        let mut query = Query::parse(query)?;
        let status = |word: String| {
            let known = Status::ALL.into_iter().find(|status| status.name() == word);
            known.ok_or_else(|| Problem::field("status", "is new, connected, disconnected, expired or gone"))
        };
        let status = query.text("status").map(status).transpose()?;
        let after = query.text("cursor").unwrap_or_default();
        let limit = query.number("limit", 1, 1000)?.unwrap_or(100) as usize;
        query.finish()?;
        Ok(Wanted { status, after, limit })
    }
}

/// `GET /v1/sandboxes`.
pub(super) async fn list(State(api): State<Arc<Api>>, uri: Uri) -> Result<Response, Problem> {
    #[derive(Serialize)]
    struct Page {
        sandboxes: Vec<Sandbox>,
        #[serde(skip_serializing_if = "Option::is_none")]
        cursor: Option<String>,
    }
    let Wanted { status: wanted, mut after, limit } = Wanted::read(uri.query())?;
    let mut sandboxes = Vec::new();
    // What a sandbox is does not stand in its row, so pages are read until enough were found.
    let cursor = loop {
        let rows = api.sessions.store.sandboxes(&after, limit as i64).await?;
        let last = rows.len() < limit;
        for (number, row) in rows.into_iter().enumerate() {
            // A page of a thousand is milliseconds of work, in which this thread's sessions would get no answer.
            if number % TURN == TURN - 1 {
                tokio::task::yield_now().await;
            }
            after.clone_from(&row.id);
            let sandbox = api.sandbox(row);
            if wanted.is_none_or(|status| sandbox.status == status.name()) {
                sandboxes.push(sandbox);
            }
            if sandboxes.len() == limit {
                break;
            }
        }
        if sandboxes.len() == limit {
            break Some(after);
        }
        if last {
            break None;
        }
    };
    Ok(reply::json(StatusCode::OK, &Page { sandboxes, cursor }))
}

/// `GET /v1/sandboxes/{id}`: as the gateway has it that has its session, or that makes it while it has none; where that does not say in
/// time, as the store has it.
pub(super) async fn show(State(api): State<Arc<Api>>, Id(id): Id, request: Request) -> Result<Response, Problem> {
    let row = api.row(&id).await?;
    if let Some(other) = api.elsewhere(&row).or_else(|| api.leader_of(&row))
        && let Ok(Ok(answer)) = timeout(ELSEWHERE, api.pass_on(request, other)).await
        && answer.status().is_success()
    {
        return Ok(answer);
    }
    Ok(reply::json(StatusCode::OK, &api.sandbox(row)))
}

/// `PUT /v1/sandboxes/{id}`: a new token, told this once.
pub(super) async fn register(State(api): State<Arc<Api>>, Id(id): Id) -> Result<Response, Problem> {
    #[derive(Serialize)]
    struct Token<'a> {
        id: &'a str,
        token: &'a str,
    }
    let token = new_token().map_err(no_random_numbers)?;
    let register = Register { id: id.clone(), token: Hash::of(&token).hex(), now_ms: wall_ms() };
    let status = match api.sessions.store.write(register).await? {
        Registered::New => StatusCode::CREATED,
        Registered::Renewed => StatusCode::OK,
        Registered::Made => {
            let detail = format!("this gateway makes sandbox {id} itself, or is just ending it");
            return Err(Problem::new(StatusCode::CONFLICT, detail));
        }
    };
    Ok(reply::json(status, &Token { id: &id, token: &token }))
}

pub(super) fn no_random_numbers<E>(_: E) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "this machine has no random numbers")
}
