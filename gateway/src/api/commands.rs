//! Commands to a sandbox: stored before anybody is told, applied once, also when the sandbox is away now.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use protocol::object::Only;
use protocol::session::{self, FromGateway};
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
    let ((verb, body), now_ms) = (given(&body)?, wall_ms());
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

/// The body: what is to be done, and the text of what belongs to it.
pub(crate) fn given(body: &[u8]) -> Result<(String, String), Problem> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Given<'a> {
        #[serde(rename = "do")]
        verb: String,
        #[serde(borrow, default)]
        body: Option<&'a RawValue>,
    }
    let Only(given): Only<Given> = serde_json::from_slice(body).map_err(|error| Problem::bad(error.to_string()))?;
    if !is_name(&given.verb) {
        return Err(Problem::field("do", "has letters, digits, dots, dashes and underscores, 128 at most"));
    }
    let body = given.body.map_or("{}", RawValue::get);
    could_be_told(&given.verb, body).map_err(|problem| Problem::field("body", problem))?;
    Ok((given.verb, body.to_owned()))
}

/// What a sandbox cannot read, of too many levels or with a number like 1e999, must not be kept: it would be told without its body, or end
/// each session that it is told in. (A whole number of more than 64 bits is told as the nearest that a double has; RFC 8259, 6.)
fn could_be_told(verb: &str, body: &str) -> Result<(), String> {
    let body = serde_json::from_str(body).map_err(|error| error.to_string())?;
    let command = session::Command { n: 0, after: None, verb: verb.into(), body };
    let told = session::encode(&FromGateway::Command(Box::new(command)));
    FromGateway::decode(&told).map(drop).map_err(|error| error.to_string())
}

/// `GET /v1/sandboxes/{id}/commands/{n}`.
pub(super) async fn show(State(api): State<Arc<Api>>, Id(id): Id, Number(n): Number) -> Result<Response, Problem> {
    let none = || Problem::new(StatusCode::NOT_FOUND, format!("sandbox {id} was never given a command {n}"));
    let command = api.sessions.store.command(&id, n).await?.ok_or_else(none)?;
    Ok(reply::json(StatusCode::OK, &Command::from(command)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_whose_body_could_not_be_told_is_refused() {
        let deep = |levels| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        // As deep as a value may be, and one level too many in the frame that tells it.
        for body in ["1e999", r#""\ud800""#, &deep(127), &deep(200)] {
            assert!(given(format!(r#"{{"do":"stop","body":{body}}}"#).as_bytes()).is_err(), "{body}");
        }
        assert!(given(br#"["stop",{}]"#).is_err(), "fields without names");
        let (verb, body) = given(br#"{"do":"stop","body":{"a": 1}}"#).expect("a command");
        assert_eq!((verb.as_str(), body.as_str()), ("stop", r#"{"a": 1}"#));
    }
}
