//! The dev-task API (`docs/openapi.yaml`).

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{RawQuery, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use axum::routing::{get, post};
use protocol::object::Only;
use protocol::task::{Create, State as TaskState, Task};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::time::timeout;

use super::api::Api;
use super::archives;
use super::attach;
use super::extract::{Body, Id, NoQuery};
use super::logs;
use super::query::Query;
use super::reply::{self, Problem};
use crate::tasks::{self, Entry, Handle, Refused};

/// The largest body of a request.
pub(super) const MAX_BODY: usize = 1024 * 1024;
/// The longest that an answer is held back by `?wait=`.
const MAX_WAIT: Duration = Duration::from_secs(3600);
/// Tasks on a page: default and most.
const PAGE: (usize, usize) = (100, 1000);

/// All routes of the API.
pub(super) fn routes(api: Api) -> Router {
    Router::new()
        .route("/dev-tasks", post(create).get(list))
        .route("/dev-tasks/{id}", get(show).delete(delete))
        .route("/dev-tasks/{id}/cancel", post(cancel))
        .route("/dev-tasks/{id}/signal", post(signal))
        .route("/dev-tasks/{id}/stdin", post(input))
        .route("/dev-tasks/{id}/stdin/close", post(close_input))
        .route("/dev-tasks/{id}/logs", get(logs::logs))
        .route("/dev-tasks/{id}/attach", get(attach::attach))
        .layer(axum::extract::DefaultBodyLimit::max(MAX_BODY))
        .with_state(api)
}

async fn create(
    State(api): State<Api>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Problem> {
    let mut query = Query::parse(query.as_deref())?;
    let wait = query.duration("wait", MAX_WAIT)?;
    query.finish()?;
    let (body, place) = archives::body(&api, request, MAX_BODY).await?;
    let mut create: Create = parse(&body)?;
    if body.len() > MAX_BODY && create.workspace_archive_b64.is_none() {
        let detail = format!("without an archive the body is at most {MAX_BODY} bytes");
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail));
    }
    let key = idempotency_key(&headers)?;
    let digest = Sha256::digest(&body).iter().map(|byte| format!("{byte:02x}")).collect();
    drop(body);
    let seed = archives::seed(&api, &mut create).await?;
    drop(place);
    let (entry, new) = api.tasks.create(create, key, digest, seed).await?;
    let task = ended_within(&entry, wait).await;
    let mut response = reply::json(if new { StatusCode::CREATED } else { StatusCode::OK }, &task);
    if let Ok(location) = HeaderValue::from_str(&format!("/dev-tasks/{}", task.task_id)) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

async fn show(State(tasks): State<Handle>, Id(id): Id, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    let mut query = Query::parse(query.as_deref())?;
    let wait = query.duration("wait", MAX_WAIT)?;
    query.finish()?;
    let entry = tasks.get(id).await?;
    Ok(reply::json(StatusCode::OK, &ended_within(&entry, wait).await))
}

async fn list(State(tasks): State<Handle>, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    #[derive(Serialize)]
    struct Page {
        tasks: Vec<Task>,
        next: Option<String>,
    }
    let mut query = Query::parse(query.as_deref())?;
    let state = query.text("state").map(state).transpose()?;
    let label = query.text("label").map(label).transpose()?;
    let limit = query.number("limit")?.unwrap_or(PAGE.0 as u64);
    let after = query.text("after");
    query.finish()?;
    if limit == 0 || limit > PAGE.1 as u64 {
        return Err(Problem::field("limit", format!("is from 1 to {}", PAGE.1)));
    }
    let page = tasks.list(tasks::Query { state, label, after, limit: limit as usize }).await;
    Ok(reply::json(StatusCode::OK, &Page { tasks: page.tasks, next: page.next }))
}

async fn cancel(State(tasks): State<Handle>, Id(id): Id, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    let mut query = Query::parse(query.as_deref())?;
    let wait = query.duration("wait", MAX_WAIT)?;
    query.finish()?;
    let entry = tasks.cancel(id).await?;
    Ok(reply::json(StatusCode::OK, &ended_within(&entry, wait).await))
}

async fn signal(State(tasks): State<Handle>, Id(id): Id, _: NoQuery, Body(body): Body) -> Result<Response, Problem> {
    let entry = tasks.signal(id, number(&body)?).await?;
    let task = entry.view.borrow().clone();
    Ok(reply::json(StatusCode::OK, &task))
}

/// Which signal a body asks for.
pub(crate) fn number(body: &[u8]) -> Result<i32, Problem> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Signal {
        signal: i32,
    }
    let Signal { signal } = parse(body)?;
    // 64 is the largest of Linux (signal(7)).
    if (1..=64).contains(&signal) { Ok(signal) } else { Err(Problem::field("signal", "is a number from 1 to 64")) }
}

async fn input(State(tasks): State<Handle>, Id(id): Id, _: NoQuery, Body(body): Body) -> Result<Response, Problem> {
    tasks.get(id).await?.input(body.to_vec()).await?;
    Ok(empty())
}

async fn close_input(State(tasks): State<Handle>, Id(id): Id, _: NoQuery) -> Result<Response, Problem> {
    tasks.get(id).await?.close_input().await?;
    Ok(empty())
}

async fn delete(State(tasks): State<Handle>, Id(id): Id, _: NoQuery) -> Result<Response, Problem> {
    tasks.delete(id).await?;
    Ok(empty())
}

fn empty() -> Response {
    let mut response = Response::new(axum::body::Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// The task as it is when it has ended, or when `wait` is over.
async fn ended_within(entry: &Arc<Entry>, wait: Option<Duration>) -> Task {
    let mut view = entry.view.clone();
    if let Some(wait) = wait {
        let _ = timeout(wait, view.wait_for(|task| task.state.is_final())).await;
    }
    view.borrow().clone()
}

/// A JSON object, with the name of the field that is wrong.
pub(crate) fn parse<T: for<'a> Deserialize<'a>>(body: &[u8]) -> Result<T, Problem> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let Only(value) = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let what = error.into_inner().to_string();
        if path == "." { Problem::bad(format!("the body: {what}")) } else { Problem::field(&path, what) }
    })?;
    json.end().map_err(|e| Problem::bad(format!("the body: {e}")))?;
    Ok(value)
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    match value.to_str() {
        Ok(key) if !key.is_empty() && key.len() <= 256 => Ok(Some(key.into())),
        _ => Err(Problem::field("Idempotency-Key", "is 1 to 256 visible ASCII characters")),
    }
}

fn state(name: String) -> Result<TaskState, Problem> {
    TaskState::ALL.into_iter().find(|state| state.name() == name).ok_or_else(|| {
        let all: Vec<&str> = TaskState::ALL.iter().map(|state| state.name()).collect();
        Problem::field("state", format!("is one of {}", all.join(", ")))
    })
}

fn label(text: String) -> Result<(String, String), Problem> {
    let (key, value) = text.split_once('=').ok_or_else(|| Problem::field("label", "is KEY=VALUE"))?;
    Ok((key.into(), value.into()))
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Problem {
        match refused {
            Refused::Invalid(invalid) => Problem::field(invalid.field, invalid.problem),
            Refused::Conflict(why) | Refused::State(why) => Problem::new(StatusCode::CONFLICT, why),
            Refused::Full { .. } => Problem::new(StatusCode::TOO_MANY_REQUESTS, refused.to_string()).retry_after(1),
            Refused::Unknown => Problem::new(StatusCode::NOT_FOUND, refused.to_string()),
            Refused::Stopping => Problem::new(StatusCode::SERVICE_UNAVAILABLE, refused.to_string()),
            Refused::Journal(why) => Problem::new(StatusCode::INSUFFICIENT_STORAGE, why),
        }
    }
}
