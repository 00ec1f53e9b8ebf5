//! Commands to a sandbox: stored before anybody is told, applied once, also when the sandbox is away now.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::reply::{self, Problem};
use super::sandboxes::time;
use super::{Api, Id, Number, Whole};
use crate::awake::wall_ms;
use crate::store::{self, Give};
use crate::tokens::is_name;

/// A command as it is told.
#[derive(Serialize)]
struct Command {
    n: i64,
    #[serde(rename = "do")]
    verb: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<Box<RawValue>>,
    given_at: String,
    /// `waiting`, or `applied`: done, or refused for good.
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<Box<RawValue>>,
}

impl From<store::Command> for Command {
    fn from(command: store::Command) -> Command {
        Command {
            n: command.n,
            verb: command.verb,
            body: RawValue::from_string(command.body).ok(),
            given_at: time(command.given_ms),
            status: if command.applied || command.outcome.is_some() { "applied" } else { "waiting" },
            outcome: command.outcome.and_then(|outcome| RawValue::from_string(outcome).ok()),
        }
    }
}

/// `POST /v1/sandboxes/{id}/commands`.
pub(super) async fn give(State(api): State<Arc<Api>>, Id(id): Id, Whole(body): Whole) -> Result<Response, Problem> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Given<'a> {
        #[serde(rename = "do")]
        verb: String,
        #[serde(borrow, default)]
        body: Option<&'a RawValue>,
    }
    let given: Given = serde_json::from_slice(&body).map_err(|error| Problem::bad(error.to_string()))?;
    if !is_name(&given.verb) {
        return Err(Problem::field("do", "has letters, digits, dots, dashes and underscores, 128 at most"));
    }
    let (verb, now_ms) = (given.verb, wall_ms());
    let body = given.body.map_or("{}", RawValue::get).to_string();
    let give = Give { sandbox: id.clone(), verb: verb.clone(), body: body.clone(), now_ms };
    let n = api.sessions.store.write(give).await?.ok_or_else(|| Problem::no_sandbox(&id))?;
    if let Some(live) = api.sessions.registry.get(&id) {
        live.tell_of_commands();
    }
    let command = store::Command { n, verb, body, given_ms: now_ms, outcome: None, applied: false };
    let mut response = reply::json(StatusCode::ACCEPTED, &Command::from(command));
    if let Ok(place) = HeaderValue::from_str(&format!("/v1/sandboxes/{id}/commands/{n}")) {
        response.headers_mut().insert(header::LOCATION, place);
    }
    Ok(response)
}

/// `GET /v1/sandboxes/{id}/commands/{n}`.
pub(super) async fn show(State(api): State<Arc<Api>>, Id(id): Id, Number(n): Number) -> Result<Response, Problem> {
    let none = || Problem::new(StatusCode::NOT_FOUND, format!("sandbox {id} was never given a command {n}"));
    let command = api.sessions.store.command(&id, n).await?.ok_or_else(none)?;
    Ok(reply::json(StatusCode::OK, &Command::from(command)))
}
