//! Which user asks: a bearer token of the users' file.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::Api;
use super::reply::Problem;
use crate::tokens::bearer;

/// Let through whoever is a user. Without a file of users nobody is, and the answer says so.
pub(super) async fn require(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let Some(users) = &api.users else {
        let detail = "the API is closed: no GATEWAY_USER_TOKENS_FILE is set";
        return Problem::new(StatusCode::FORBIDDEN, detail).into_response();
    };
    let Some(token) = bearer(request.headers()) else {
        return Problem::unauthorized("a bearer token is needed").into_response();
    };
    match users.name_of(token) {
        Ok(Some(_)) => next.run(request).await,
        Ok(None) => Problem::unauthorized("the bearer token is no user's").into_response(),
        Err(error) => {
            tracing::error!(error = crate::exit::reason(&error), "the users' token file cannot be used");
            let detail = "tokens cannot be checked now";
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).retry_after(5).into_response()
        }
    }
}
