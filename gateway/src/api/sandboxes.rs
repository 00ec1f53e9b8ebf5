//! Sandboxes: who they are and whether they are connected, registered and forgotten.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, UNIX_EPOCH};

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use protocol::session::{Hello, close};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::query::Query;
use super::reply::{self, Problem};
use super::{Api, Id, Whole};
use crate::awake::wall_ms;
use crate::backend::{BackendError, New};
use crate::registry::{Live, Order, Status};
use crate::store::{Forget, Register, Registered, Row};
use crate::tokens::{Hash, is_name, new_token};

/// How long a sandbox may be away whose supervisor told no Y.
const OFFLINE_AFTER: Duration = Duration::from_secs(24 * 3600);

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
}

/// RFC 3339, of Unix milliseconds.
pub(super) fn time(millis: i64) -> String {
    // humantime ends with the year 9999.
    let millis = u64::try_from(millis).unwrap_or(0).min(253_402_300_799_000);
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(millis)).to_string()
}

impl Api {
    fn sandbox(&self, row: Row) -> Sandbox {
        let live = self.sessions.registry.get(&row.id);
        let (status, since) = status(&row, live.as_deref(), self.sessions.awake.now());
        let state = live.as_ref().and_then(|live| live.state()).map(|told| told.json).or(row.state);
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
        }
    }

    /// Its row, or 404.
    pub(super) async fn row(&self, id: &str) -> Result<Row, Problem> {
        self.sessions.store.sandbox(id).await?.ok_or_else(|| Problem::no_sandbox(id))
    }
}

/// What a sandbox is, and since when.
pub(super) fn status(row: &Row, live: Option<&Live>, awake_ms: i64) -> (Status, i64) {
    if let Some(live) = live {
        return (Status::Connected, live.begun_ms);
    }
    let Some(begun) = row.begun_ms else { return (Status::New, row.created_ms) };
    // A session that is just beginning or ending.
    let Some(ended) = row.ended_ms else { return (Status::Disconnected, begun) };
    if row.gone {
        return (Status::Gone, ended);
    }
    let hello: Option<Hello> = row.hello.as_ref().and_then(|hello| serde_json::from_str(hello).ok());
    let after = hello.and_then(|hello| hello.offline).map_or(OFFLINE_AFTER.as_millis() as i64, |o| o.after_ms);
    let away = awake_ms - row.ended_awake_ms.unwrap_or(awake_ms);
    if away >= after { (Status::Expired, ended.saturating_add(after)) } else { (Status::Disconnected, ended) }
}

/// `GET /v1/sandboxes`.
pub(super) async fn list(State(api): State<Arc<Api>>, uri: Uri) -> Result<Response, Problem> {
    #[derive(Serialize)]
    struct Page {
        sandboxes: Vec<Sandbox>,
        #[serde(skip_serializing_if = "Option::is_none")]
        cursor: Option<String>,
    }
    let mut query = Query::parse(uri.query())?;
    let wanted = query.text("status");
    let mut after = query.text("cursor").unwrap_or_default();
    let limit = query.number("limit", 1, 1000)?.unwrap_or(100) as usize;
    query.finish()?;
    if let Some(word) = &wanted
        && Status::ALL.iter().all(|status| status.name() != word)
    {
        return Err(Problem::field("status", "is new, connected, disconnected, expired or gone"));
    }
    let mut sandboxes = Vec::new();
    // What a sandbox is does not stand in its row, so pages are read until enough were found.
    let cursor = loop {
        let rows = api.sessions.store.sandboxes(&after, limit as i64).await?;
        let last = rows.len() < limit;
        for row in rows {
            after.clone_from(&row.id);
            let sandbox = api.sandbox(row);
            if wanted.as_ref().is_none_or(|word| sandbox.status == word) {
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

/// `GET /v1/sandboxes/{id}`.
pub(super) async fn show(State(api): State<Arc<Api>>, Id(id): Id) -> Result<Response, Problem> {
    let row = api.row(&id).await?;
    Ok(reply::json(StatusCode::OK, &api.sandbox(row)))
}

/// `POST /v1/sandboxes`: made by the gateway's backend. It dials in when it is ready to.
pub(super) async fn create(State(api): State<Arc<Api>>, Whole(body): Whole) -> Result<Response, Problem> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Create {
        id: String,
    }
    let Create { id } = serde_json::from_slice(&body).map_err(|error| Problem::bad(format!("the body: {error}")))?;
    if !is_name(&id) {
        return Err(Problem::field("id", super::NAMES));
    }
    let Some(backend) = &api.backend else {
        let detail = format!(
            "this gateway makes no sandboxes: register {id} with PUT /v1/sandboxes/{id} and start a supervisor with the \
             token that it answers"
        );
        return Err(Problem::new(StatusCode::NOT_IMPLEMENTED, detail));
    };
    if api.sessions.store.sandbox(&id).await?.is_some() {
        return Err(Problem::new(StatusCode::CONFLICT, format!("there is a sandbox {id} already")));
    }
    let token = new_token().map_err(no_random_numbers)?;
    // Known before its supervisor dials.
    register_token(&api, &id, &token).await?;
    if let Err(error) = backend.create(New { id: id.clone(), token }).await {
        api.sessions.store.write(Forget { id: id.clone() }).await?;
        return Err(backend_problem(&error));
    }
    let row = api.row(&id).await?;
    Ok(reply::json(StatusCode::CREATED, &api.sandbox(row)))
}

/// `PUT /v1/sandboxes/{id}`: a new token, told this once.
pub(super) async fn register(State(api): State<Arc<Api>>, Id(id): Id) -> Result<Response, Problem> {
    #[derive(Serialize)]
    struct Token<'a> {
        id: &'a str,
        token: &'a str,
    }
    let token = new_token().map_err(no_random_numbers)?;
    let status = match register_token(&api, &id, &token).await? {
        Registered::New => StatusCode::CREATED,
        Registered::Renewed => StatusCode::OK,
    };
    Ok(reply::json(status, &Token { id: &id, token: &token }))
}

async fn register_token(api: &Api, id: &str, token: &str) -> Result<Registered, Problem> {
    let register = Register { id: id.into(), token: Hash::of(token).hex(), now_ms: wall_ms() };
    Ok(api.sessions.store.write(register).await?)
}

fn no_random_numbers(_: std::io::Error) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "this machine has no random numbers")
}

fn backend_problem(error: &BackendError) -> Problem {
    let status = match error {
        BackendError::Exists(_) | BackendError::Mounted { .. } => StatusCode::CONFLICT,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    Problem::new(status, crate::exit::reason(error))
}

/// `DELETE /v1/sandboxes/{id}`: with its records and its token, and with what a backend has made; its session is closed.
pub(super) async fn forget(State(api): State<Arc<Api>>, Id(id): Id) -> Result<Response, Problem> {
    // First: what the backend could not end must not be forgotten.
    if let Some(backend) = &api.backend {
        backend.delete(&id).await.map_err(|error| backend_problem(&error))?;
    }
    let known = api.sessions.store.write(Forget { id: id.clone() }).await?;
    if let Some(live) = api.sessions.registry.get(&id) {
        live.order(Order::Close(close::UNAUTHENTICATED, "the sandbox was deleted"));
    }
    match known {
        true => {
            Ok(Response::builder().status(StatusCode::NO_CONTENT).body(axum::body::Body::empty()).unwrap_or_default())
        }
        false => Err(Problem::no_sandbox(&id)),
    }
}
