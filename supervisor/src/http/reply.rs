//! Answers: JSON, and errors as `application/problem+json` (RFC 9457).

use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// A JSON body that nobody may keep: health is true only now.
pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    with_type(status, "application/json", serde_json::to_vec(body).unwrap_or_default())
}

/// An error with its reason.
pub(super) fn problem(status: StatusCode, detail: &str) -> Response {
    #[derive(Serialize)]
    struct Problem<'a> {
        title: &'a str,
        status: u16,
        detail: &'a str,
    }
    let title = status.canonical_reason().unwrap_or("error");
    let body = Problem { title, status: status.as_u16(), detail };
    with_type(status, "application/problem+json", serde_json::to_vec(&body).unwrap_or_default())
}

/// Any body with its media type.
pub(super) fn with_type(status: StatusCode, media_type: &'static str, body: Vec<u8>) -> Response {
    let headers: [(HeaderName, &'static str); 2] =
        [(header::CONTENT_TYPE, media_type), (header::CACHE_CONTROL, "no-store")];
    (status, headers, body).into_response()
}
