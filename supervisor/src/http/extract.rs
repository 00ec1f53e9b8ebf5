//! What a handler takes from a request; what is wrong with it becomes a [`Problem`], not the framework's own words.

use std::collections::HashMap;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use tokio::time::timeout;

use super::query::Query;
use super::reply::Problem;

/// For a whole body, which is no larger than 1 MiB here: a poor line has time enough, and nobody holds a connection for longer.
const BODY_TIME: Duration = Duration::from_secs(30);

/// The body, within its size and its time.
pub(super) struct Body(pub(super) Bytes);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Body, Problem> {
        match timeout(BODY_TIME, Bytes::from_request(request, state)).await {
            Ok(Ok(bytes)) => Ok(Body(bytes)),
            Ok(Err(rejection)) => Err(Problem::new(rejection.status(), rejection.body_text())),
            Err(_) => Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "the body did not come within 30s")),
        }
    }
}

/// The task's id in the path.
pub(super) struct Id(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Id, Problem> {
        match Path::<HashMap<String, String>>::from_request_parts(parts, state).await {
            Ok(Path(mut names)) => Ok(Id(names.remove("id").unwrap_or_default())),
            Err(rejection) => Err(Problem::field("id", rejection.body_text())),
        }
    }
}

/// A path that takes no parameters.
pub(super) struct NoQuery;

impl<S: Send + Sync> FromRequestParts<S> for NoQuery {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<NoQuery, Problem> {
        Query::parse(parts.uri.query())?.finish()?;
        Ok(NoQuery)
    }
}
