//! HTTP: health and metrics are open, sessions need a sandbox's token, everything else a user's.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequest, FromRequestParts, Path, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::middleware::from_fn_with_state;
use axum::routing::{any, delete, get, post, put};

use crate::sandboxes::Sandboxes;
use crate::sessions::{self, Sessions};
use crate::tokens::Tokens;

mod auth;
mod calls;
pub(crate) mod commands;
pub(crate) mod events;
pub(crate) mod forward;
mod health;
pub(crate) mod made;
mod others;
mod query;
pub(crate) mod relay;
pub mod reply;
pub(crate) mod sandboxes;

pub use others::Others;
use others::{at_leader, at_owner};
use reply::Problem;

/// The largest body of our own paths; what passes to a sandbox has the sandbox's limits.
const MAX_BODY: usize = 64 * 1024;
/// It takes longer only from somebody who holds a connection open on purpose.
const BODY_TIME: Duration = Duration::from_secs(10);

/// What an id is.
const NAMES: &str = "has letters, digits, dots, dashes and underscores, 128 at most";

/// What handlers work with. Shared.
pub struct Api {
    /// Sessions, and through them registry and store.
    pub sessions: Arc<Sessions>,
    /// Who may call; `None` closes the API.
    pub users: Option<Tokens>,
    /// Those that this gateway makes, where it makes any.
    pub made: Option<Sandboxes>,
    /// The way to other gateways, where there may be some.
    pub others: Option<Others>,
}

/// All routes.
pub fn routes(api: Arc<Api>) -> Router {
    let open = Router::new()
        .route("/livez", get(health::live))
        .route("/readyz", get(health::ready))
        .route("/healthz", get(health::health))
        .route("/metrics", get(health::metrics))
        .with_state(api.clone());
    let session = Router::new().route(protocol::session::PATH, get(sessions::accept)).with_state(api.sessions.clone());
    let of_leader = Router::new()
        .route("/v1/sandboxes", post(made::create))
        .route("/v1/sandboxes/{id}", delete(made::forget))
        .route_layer(from_fn_with_state(api.clone(), at_leader));
    let of_owner = Router::new()
        .route("/v1/sandboxes/{id}/call-tokens", post(calls::sign))
        .route("/v1/sandboxes/{id}/dev-tasks", any(forward::forward))
        .route("/v1/sandboxes/{id}/dev-tasks/{*path}", any(forward::forward))
        .route("/v1/sandboxes/{id}/workspace-archives/{*path}", any(forward::forward))
        .route("/v1/sandboxes/{id}/files", any(forward::forward))
        .route("/v1/sandboxes/{id}/files/", any(forward::forward))
        .route("/v1/sandboxes/{id}/files/{*path}", any(forward::forward))
        .route_layer(from_fn_with_state(api.clone(), at_owner));
    let closed = Router::new()
        .route("/v1/sandboxes", get(sandboxes::list))
        .route("/v1/sandboxes/{id}", put(sandboxes::register).get(sandboxes::show))
        .route("/v1/sandboxes/{id}/events", get(events::events))
        .route("/v1/sandboxes/{id}/commands", post(commands::give))
        .route("/v1/sandboxes/{id}/commands/{n}", get(commands::show))
        .merge(of_leader)
        .merge(of_owner)
        .fallback(|| async { Problem::new(StatusCode::NOT_FOUND, "there is nothing at this path") })
        .method_not_allowed_fallback(|| async {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this path does not take this method")
        })
        .layer(DefaultBodyLimit::max(MAX_BODY))
        // Last, so that a wrong path or method is not answered either without a token.
        .layer(from_fn_with_state(api.clone(), auth::require))
        .with_state(api);
    open.merge(session).merge(closed)
}

/// The sandbox's id in the path.
struct Id(String);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Id, Problem> {
        let id = in_path(parts, state, "id").await?;
        match crate::tokens::is_name(&id) {
            true => Ok(Id(id)),
            false => Err(Problem::field("id", NAMES)),
        }
    }
}

/// A command's number in the path.
struct Number(i64);

impl<S: Send + Sync> FromRequestParts<S> for Number {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Number, Problem> {
        let n = in_path(parts, state, "n").await?.parse();
        n.map(Number).map_err(|_| Problem::field("n", "is not a whole number"))
    }
}

/// A whole body, within its size and its time.
struct Whole(Bytes);

impl<S: Send + Sync> FromRequest<S> for Whole {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Whole, Problem> {
        match tokio::time::timeout(BODY_TIME, Bytes::from_request(request, state)).await {
            Ok(Ok(bytes)) => Ok(Whole(bytes)),
            Ok(Err(rejection)) => Err(Problem::new(rejection.status(), rejection.body_text())),
            Err(_) => Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "the body did not come within 10s")),
        }
    }
}

async fn in_path<S: Send + Sync>(parts: &mut Parts, state: &S, name: &str) -> Result<String, Problem> {
    let Path(mut names) = Path::<HashMap<String, String>>::from_request_parts(parts, state)
        .await
        .map_err(|rejection| Problem::field(name, rejection.body_text()))?;
    Ok(names.remove(name).unwrap_or_default())
}
