//! Sandboxes: who they are and whether they are connected, registered and forgotten.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, UNIX_EPOCH};

use axum::extract::State as Shared;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use protocol::session::{Hello, close};
use serde::Serialize;
use serde_json::value::RawValue;

use super::query::Query;
use super::reply::{self, Problem};
use super::{Api, Id, Whole};
use crate::awake::wall_ms;
use crate::backend::{BackendError, Seen, Spec, State};
use crate::config::parse::duration;
use crate::registry::{Live, Order, Status};
use crate::sandboxes::{Made, NotReady, SandboxError};
use crate::store::{Forget, Register, Registered, Row};
use crate::tokens::{Hash, is_name, new_token};

/// How long a sandbox may be away whose supervisor told no Y.
const OFFLINE_AFTER: Duration = Duration::from_secs(24 * 3600);

/// How long one may wait for a sandbox.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

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
            State::Failed { code, .. } => *code,
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
    fn sandbox(&self, row: Row) -> Sandbox {
        let live = self.sessions.registry.get(&row.id);
        let (status, since) = status(&row, live.as_deref(), self.sessions.awake.now());
        let backend = self.made.as_ref().and_then(|made| made.see(&row)).map(Backed::from);
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
            backend,
        }
    }

    /// Its row, or 404.
    pub(super) async fn row(&self, id: &str) -> Result<Row, Problem> {
        self.sessions.store.sandbox(id).await?.ok_or_else(|| Problem::no_sandbox(id))
    }

    /// Why a sandbox without a session cannot be called, and when it may be back.
    pub(super) fn away(&self, row: &Row) -> Problem {
        let (status, since) = status(row, None, self.sessions.awake.now());
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
    let hello: Option<Hello> = row.hello.as_ref().and_then(|hello| serde_json::from_str(hello).ok());
    let after = hello.and_then(|hello| hello.offline).map_or(OFFLINE_AFTER.as_millis() as i64, |o| o.after_ms);
    let away = awake_ms - row.ended_awake_ms.unwrap_or(awake_ms);
    if away >= after { (Status::Expired, ended.saturating_add(after)) } else { (Status::Disconnected, ended) }
}

/// `GET /v1/sandboxes`.
pub(super) async fn list(Shared(api): Shared<Arc<Api>>, uri: Uri) -> Result<Response, Problem> {
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
pub(super) async fn show(Shared(api): Shared<Arc<Api>>, Id(id): Id) -> Result<Response, Problem> {
    let row = api.row(&id).await?;
    Ok(reply::json(StatusCode::OK, &api.sandbox(row)))
}

/// `POST /v1/sandboxes`: made by the gateway's backend. It dials in when it is ready to; with `wait`, that is waited for.
pub(super) async fn create(Shared(api): Shared<Arc<Api>>, uri: Uri, Whole(body): Whole) -> Result<Response, Problem> {
    let mut query = Query::parse(uri.query())?;
    let wait = query.text("wait").map(|text| waiting(&text)).transpose()?;
    query.finish()?;
    let (id, spec) = asked(&body)?;
    let Some(made) = &api.made else {
        let detail = format!(
            "this gateway makes no sandboxes: register {id} with PUT /v1/sandboxes/{id} and start a supervisor with the \
             token that it answers"
        );
        return Err(Problem::new(StatusCode::NOT_IMPLEMENTED, detail));
    };
    let outcome = made.create(&id, spec).await?;
    if let Some(limit) = wait
        && let Err(error) = made.ready(&id, limit).await
    {
        // Who waits gets a sandbox or none.
        if matches!(error, NotReady::Failed { .. }) && outcome == Made::New {
            made.delete(&id).await?;
        }
        return Err(error.into());
    }
    let status = match outcome {
        Made::New => StatusCode::CREATED,
        Made::Attached => StatusCode::OK,
    };
    Ok(reply::json(status, &api.sandbox(api.row(&id).await?)))
}

fn waiting(text: &str) -> Result<Duration, Problem> {
    let wait = duration(text).map_err(|problem| Problem::field("wait", problem))?;
    if wait <= LONGEST_WAIT { Ok(wait) } else { Err(Problem::field("wait", "is 1h at most")) }
}

/// The body: an id, and beside it what [`Spec`] has. (Serde cannot refuse unknown fields of what is flattened.)
fn asked(body: &[u8]) -> Result<(String, Spec), Problem> {
    let wrong = |error: serde_json::Error| Problem::bad(format!("the body: {error}"));
    let mut fields: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(body).map_err(wrong)?;
    let id = match fields.remove("id") {
        Some(serde_json::Value::String(id)) if is_name(&id) => id,
        Some(_) => return Err(Problem::field("id", super::NAMES)),
        None => return Err(Problem::field("id", "is missing")),
    };
    let spec = serde_json::from_value(fields.into()).map_err(wrong)?;
    Ok((id, spec))
}

/// `PUT /v1/sandboxes/{id}`: a new token, told this once.
pub(super) async fn register(Shared(api): Shared<Arc<Api>>, Id(id): Id) -> Result<Response, Problem> {
    #[derive(Serialize)]
    struct Token<'a> {
        id: &'a str,
        token: &'a str,
    }
    if api.sessions.store.sandbox(&id).await?.is_some_and(|row| row.spec.is_some()) {
        let detail = format!("this gateway makes sandbox {id} itself, and gives it its token");
        return Err(Problem::new(StatusCode::CONFLICT, detail));
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

pub(super) fn no_random_numbers<E>(_: E) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "this machine has no random numbers")
}

impl From<SandboxError> for Problem {
    fn from(error: SandboxError) -> Problem {
        let said = |status| Problem::new(status, crate::exit::reason(&error));
        match &error {
            SandboxError::Store(error) => Problem::from(error.clone()),
            SandboxError::Random(_) => said(StatusCode::SERVICE_UNAVAILABLE),
            SandboxError::Conflict(_) => said(StatusCode::CONFLICT),
            SandboxError::Unknown(id) => Problem::no_sandbox(id),
            SandboxError::Backend(error) => backend_problem(error),
        }
    }
}

fn backend_problem(error: &BackendError) -> Problem {
    let said = |status| Problem::new(status, crate::exit::reason(error));
    match error {
        BackendError::Request { field, problem } => Problem::field(field, problem),
        BackendError::Exists(_) | BackendError::Mounted { .. } | BackendError::Taken(_) => said(StatusCode::CONFLICT),
        BackendError::Refused(_) => said(StatusCode::UNPROCESSABLE_ENTITY),
        // Of the cluster's, not of this caller's.
        BackendError::Full(_) => said(StatusCode::INSUFFICIENT_STORAGE),
        BackendError::Away(_) => said(StatusCode::SERVICE_UNAVAILABLE).retry_after(5),
        BackendError::Slow(_) => said(StatusCode::ACCEPTED),
        BackendError::Operator(_)
        | BackendError::Make { .. }
        | BackendError::Remove { .. }
        | BackendError::List { .. } => {
            tracing::error!(error = crate::exit::reason(error), "the backend needs its operator");
            said(StatusCode::INTERNAL_SERVER_ERROR)
        }
    }
}

impl From<NotReady> for Problem {
    fn from(error: NotReady) -> Problem {
        let said = |status| Problem::new(status, crate::exit::reason(&error));
        match &error {
            NotReady::Failed { .. } => said(StatusCode::UNPROCESSABLE_ENTITY),
            NotReady::Late { .. } => said(StatusCode::GATEWAY_TIMEOUT),
            NotReady::Deleted { .. } => said(StatusCode::CONFLICT),
            NotReady::Store(error) => Problem::from(error.clone()),
        }
    }
}

/// `DELETE /v1/sandboxes/{id}`: with its records and its token, and with what a backend has made; its session is closed.
pub(super) async fn forget(Shared(api): Shared<Arc<Api>>, Id(id): Id) -> Result<Response, Problem> {
    if let Some(made) = &api.made {
        return match made.delete(&id).await {
            // It goes on by itself.
            Err(SandboxError::Backend(BackendError::Slow(_))) => {
                Ok(reply::json(StatusCode::ACCEPTED, &api.sandbox(api.row(&id).await?)))
            }
            outcome => outcome.map(|()| reply::nothing()).map_err(Problem::from),
        };
    }
    let known = api.sessions.store.write(Forget { id: id.clone() }).await?;
    if let Some(live) = api.sessions.registry.get(&id) {
        live.order(Order::Close(close::UNAUTHENTICATED, "the sandbox was deleted"));
    }
    if known { Ok(reply::nothing()) } else { Err(Problem::no_sandbox(&id)) }
}
