//! HTTP: health and metrics are open, sessions need a sandbox's token, everything else a user's.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, FromRequestParts, Path};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::routing::{get, put};

use crate::sessions::{self, Sessions};
use crate::tokens::Tokens;

mod auth;
mod events;
mod health;
mod query;
pub mod reply;
mod sandboxes;

use reply::Problem;

/// The largest body of our own paths; what passes to a sandbox has the sandbox's limits.
const MAX_BODY: usize = 64 * 1024;

/// What handlers work with. Shared.
pub struct Api {
    /// Sessions, and through them registry and store.
    pub sessions: Arc<Sessions>,
    /// Who may call; `None` closes the API.
    pub users: Option<Tokens>,
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
    let closed = Router::new()
        .route("/v1/sandboxes", get(sandboxes::list))
        .route("/v1/sandboxes/{id}", put(sandboxes::register).get(sandboxes::show).delete(sandboxes::forget))
        .route("/v1/sandboxes/{id}/events", get(events::events))
        .fallback(|| async { Problem::new(StatusCode::NOT_FOUND, "there is nothing at this path") })
        .method_not_allowed_fallback(|| async {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this path does not take this method")
        })
        .layer(DefaultBodyLimit::max(MAX_BODY))
        // Last, so that a wrong path or method is not answered either without a token.
        .layer(axum::middleware::from_fn_with_state(api.clone(), auth::require))
        .with_state(api);
    open.merge(session).merge(closed)
}

/// The sandbox's id in the path.
struct Id(String);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Id, Problem> {
        let Path(mut names) = Path::<HashMap<String, String>>::from_request_parts(parts, state)
            .await
            .map_err(|rejection| Problem::field("id", rejection.body_text()))?;
        let id = names.remove("id").unwrap_or_default();
        match crate::tokens::is_name(&id) {
            true => Ok(Id(id)),
            false => Err(Problem::field("id", "has letters, digits, dots, dashes and underscores, 128 at most")),
        }
    }
}
