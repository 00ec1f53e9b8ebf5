//! Tokens with which a user calls a sandbox's own port, past the session.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use protocol::call;
use serde::Serialize;

use super::reply::{self, Problem};
use super::sandboxes::{no_random_numbers, time};
use super::{Api, Id};
use crate::awake::wall_ms;

/// `POST /v1/sandboxes/{id}/call-tokens`: for one call to the supervisor that is in session now. A supervisor takes it where
/// `SUPERVISOR_API_SIGNED` says so.
pub(super) async fn sign(State(api): State<Arc<Api>>, Id(id): Id) -> Result<Response, Problem> {
    #[derive(Serialize)]
    struct Token<'a> {
        token: String,
        audience: &'a str,
        expires_at: String,
    }
    let row = api.row(&id).await?;
    if api.sessions.registry.get(&id).is_none() {
        return Err(api.away(&row));
    }
    let pod = row.told().and_then(|hello| hello.pod);
    let audience = call::audience(pod.as_ref(), &id);
    let signed = api.sessions.signer.sign(&id, audience, wall_ms()).map_err(no_random_numbers)?;
    let token = Token { token: signed.token, audience, expires_at: time(signed.expires_ms) };
    Ok(reply::json(StatusCode::CREATED, &token))
}
