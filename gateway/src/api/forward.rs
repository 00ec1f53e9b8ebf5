//! The dev-task API of a sandbox, through its own session: the same paths, bodies and statuses as the sandbox's own port.
//!
//! Promises: it is passed on as it comes ([`super::relay`]), and no more of a body is held than the stream's credit; the user's
//! token stays here, since the sandbox's agent is not trusted with it.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{self, HeaderName};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::Response;

use super::others::PASSED_ON;
use super::relay::relay;
use super::reply::Problem;
use super::{Api, Id};
use crate::exit::reason;
use crate::sessions::Stream;

/// What is not the sandbox's business.
const OURS: [HeaderName; 3] = [header::AUTHORIZATION, header::COOKIE, PASSED_ON];

/// Everything under `/v1/sandboxes/{id}` that is the sandbox's.
pub(super) async fn forward(
    State(api): State<Arc<Api>>,
    Id(id): Id,
    mut request: Request,
) -> Result<Response, Problem> {
    let stream = open(&api, &id).await?;
    *request.uri_mut() = inner(request.uri(), &id)?;
    hide(request.headers_mut());
    request.headers_mut().insert(header::HOST, HeaderValue::from_static("sandbox"));
    // The stream ends with the session.
    relay(stream, request, std::future::pending).await.map_err(|error| {
        Problem::new(StatusCode::BAD_GATEWAY, format!("sandbox {id} did not answer: {}", reason(&error))).retry_after(1)
    })
}

/// A stream to the sandbox, or why there is none.
async fn open(api: &Api, id: &str) -> Result<Stream, Problem> {
    let unavailable = |detail| Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail);
    let Some(live) = api.sessions.registry.get(id) else {
        return Err(api.away(&api.row(id).await?));
    };
    let streams = live.streams.as_ref().ok_or_else(|| {
        let detail = format!("the supervisor of sandbox {id} takes no calls through its session");
        Problem::new(StatusCode::NOT_IMPLEMENTED, detail)
    })?;
    streams.open().ok_or_else(|| unavailable(format!("no further call to sandbox {id} can begin now")).retry_after(1))
}

/// Path and query as the sandbox knows them.
pub(crate) fn inner(uri: &Uri, id: &str) -> Result<Uri, Problem> {
    let whole = uri.path_and_query().map_or("", |path| path.as_str());
    let rest = whole.strip_prefix("/v1/sandboxes/").and_then(|rest| rest.strip_prefix(id));
    // An id has no character that needs %XX, but it may come so.
    rest.and_then(|rest| rest.parse().ok()).ok_or_else(|| Problem::field("id", "is to be written without %XX"))
}

/// The user's own.
pub(crate) fn hide(headers: &mut HeaderMap) {
    OURS.iter().for_each(|name| drop(headers.remove(name)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sandbox_sees_its_own_path_and_never_the_users_token() {
        let uri = "/v1/sandboxes/a/files/x%2Fy?limit=2".parse().expect("a path");
        assert_eq!(inner(&uri, "a").expect("inner"), "/files/x%2Fy?limit=2");
        let mut headers = HeaderMap::new();
        for (name, value) in [("authorization", "Bearer x"), ("x-two", "2")] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        hide(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-two"]);
    }
}
