//! Sandboxes that this gateway makes and ends: what is asked for, and what it means where that cannot be.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;

use super::query::Query;
use super::reply::{self, Problem};
use super::{Api, Id, NAMES, Whole};
use crate::backend::{BackendError, Spec};
use crate::config::parse::duration;
use crate::exit::reason;
use crate::sandboxes::{Made, NotReady, SandboxError};
use crate::store::{Forget, Term};
use crate::tokens::is_name;

/// How long one may wait for a sandbox.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// `POST /v1/sandboxes`: made by the gateway's backend. It dials in when it is ready to; with `wait`, that is waited for.
pub(super) async fn create(State(api): State<Arc<Api>>, uri: Uri, Whole(body): Whole) -> Result<Response, Problem> {
    let wait = wait(uri.query())?;
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
            let undone = made.delete(&id).await;
            undone.unwrap_or_else(|error| {
                tracing::warn!(error = reason(&error), "a sandbox that did not start is ended later")
            });
        }
        return Err(error.into());
    }
    let status = match outcome {
        Made::New => StatusCode::CREATED,
        Made::Attached => StatusCode::OK,
    };
    Ok(reply::json(status, &api.sandbox(api.row(&id).await?)))
}

/// The query: how long is waited until it is ready.
pub(crate) fn wait(query: Option<&str>) -> Result<Option<Duration>, Problem> {
    let mut query = Query::parse(query)?;
    let waiting = |text: String| {
        let wait = duration(&text).map_err(|problem| Problem::field("wait", problem))?;
        if wait <= LONGEST_WAIT { Ok(wait) } else { Err(Problem::field("wait", "is 1h at most")) }
    };
    let wait = query.text("wait").map(waiting).transpose()?;
    query.finish()?;
    Ok(wait)
}

/// The body: an id, and beside it what [`Spec`] has. (Serde cannot refuse unknown fields of what is flattened.)
pub(crate) fn asked(body: &[u8]) -> Result<(String, Spec), Problem> {
    let wrong = |error: serde_json::Error| Problem::bad(format!("the body: {error}"));
    let mut fields: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(body).map_err(wrong)?;
    let id = match fields.remove("id") {
        Some(serde_json::Value::String(id)) if is_name(&id) => id,
        Some(_) => return Err(Problem::field("id", NAMES)),
        None => return Err(Problem::field("id", "is missing")),
    };
    let spec = serde_json::from_value(fields.into()).map_err(wrong)?;
    Ok((id, spec))
}

/// `DELETE /v1/sandboxes/{id}`: with its records and its token, and with what a backend has made; its session is closed.
pub(super) async fn forget(State(api): State<Arc<Api>>, Id(id): Id) -> Result<Response, Problem> {
    if let Some(made) = &api.made {
        return match made.delete(&id).await {
            // It goes on by itself.
            Err(SandboxError::Backend(BackendError::Slow(_))) => {
                Ok(reply::json(StatusCode::ACCEPTED, &api.sandbox(api.row(&id).await?)))
            }
            outcome => outcome.map(|()| reply::nothing()).map_err(Problem::from),
        };
    }
    let known = api.sessions.store.write(Forget { id: id.clone(), term: Term::always() }).await?;
    api.sessions.registry.deleted(&id);
    if known { Ok(reply::nothing()) } else { Err(Problem::no_sandbox(&id)) }
}

impl From<SandboxError> for Problem {
    fn from(error: SandboxError) -> Problem {
        let said = |status| Problem::new(status, reason(&error));
        match &error {
            SandboxError::Store(error) => Problem::from(error.clone()),
            SandboxError::Random(_) => said(StatusCode::SERVICE_UNAVAILABLE),
            SandboxError::Conflict(_) => said(StatusCode::CONFLICT),
            SandboxError::Over { .. } => said(StatusCode::SERVICE_UNAVAILABLE).retry_after(2),
            SandboxError::Spec { .. } => said(StatusCode::INTERNAL_SERVER_ERROR),
            SandboxError::Unknown(id) => Problem::no_sandbox(id),
            SandboxError::Backend(error) => backend_problem(error),
        }
    }
}

fn backend_problem(error: &BackendError) -> Problem {
    let said = |status| Problem::new(status, reason(error));
    match error {
        BackendError::Request { field, problem } => Problem::field(field, problem),
        BackendError::Exists(_) | BackendError::Mounted { .. } | BackendError::Taken(_) | BackendError::Slow(_) => {
            said(StatusCode::CONFLICT)
        }
        BackendError::Refused(_) => said(StatusCode::UNPROCESSABLE_ENTITY),
        // Of the cluster's, not of this caller's.
        BackendError::Full(_) => said(StatusCode::INSUFFICIENT_STORAGE),
        BackendError::Away(_) => said(StatusCode::SERVICE_UNAVAILABLE).retry_after(5),
        BackendError::Operator(_)
        | BackendError::Make { .. }
        | BackendError::Remove { .. }
        | BackendError::List { .. } => {
            tracing::error!(error = reason(error), "the backend needs its operator");
            said(StatusCode::INTERNAL_SERVER_ERROR)
        }
    }
}

impl From<NotReady> for Problem {
    fn from(error: NotReady) -> Problem {
        let said = |status| Problem::new(status, reason(&error));
        match &error {
            NotReady::Failed { .. } => said(StatusCode::UNPROCESSABLE_ENTITY),
            NotReady::Late { .. } => said(StatusCode::GATEWAY_TIMEOUT),
            NotReady::Deleted { .. } => said(StatusCode::CONFLICT),
            NotReady::Store(error) => Problem::from(error.clone()),
        }
    }
}
