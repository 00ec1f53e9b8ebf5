//! Answers: JSON, and errors as `application/problem+json` (RFC 9457).

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use protocol::problem;
use serde::Serialize;

/// A JSON body that nobody may keep: health is true only now.
pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    with_type(status, "application/json", serde_json::to_vec(body).unwrap_or_default())
}

/// An error with its reason.
pub(super) fn problem(status: StatusCode, detail: &str) -> Response {
    Problem::new(status, detail).into_response()
}

/// An error of a handler.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    detail: String,
    field: Option<String>,
    /// What a client needs to do better.
    header: Option<Box<(HeaderName, HeaderValue)>>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Problem {
        Problem { status, detail: detail.into(), field: None, header: None }
    }

    /// The request is wrong.
    pub(super) fn bad(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, detail)
    }

    /// One field, parameter or header of it is wrong.
    pub(super) fn field(field: &str, problem: impl AsRef<str>) -> Problem {
        let detail = format!("{field}: {}", problem.as_ref());
        Problem { field: Some(field.into()), ..Problem::bad(detail) }
    }

    /// It is this field that brought it.
    pub(super) fn of(self, field: &str) -> Problem {
        Problem { field: Some(field.into()), detail: format!("{field}: {}", self.detail), ..self }
    }

    /// Trying again after so many seconds may help.
    pub(super) fn retry_after(self, seconds: u32) -> Problem {
        self.with(header::RETRY_AFTER, HeaderValue::from(seconds))
    }

    /// This header says what would help.
    pub(super) fn with(self, name: HeaderName, value: HeaderValue) -> Problem {
        Problem { header: Some(Box::new((name, value))), ..self }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = problem::Problem {
            title: self.status.canonical_reason().unwrap_or("error"),
            status: self.status.as_u16(),
            detail: &self.detail,
            field: self.field.as_deref(),
        };
        let bytes = serde_json::to_vec(&body).unwrap_or_default();
        let mut response = with_type(self.status, problem::MEDIA_TYPE, bytes);
        response.headers_mut().extend(self.header.map(|header| *header));
        response
    }
}

/// Any body with its media type.
pub(super) fn with_type(status: StatusCode, media_type: &'static str, body: Vec<u8>) -> Response {
    let headers: [(HeaderName, &'static str); 2] =
        [(header::CONTENT_TYPE, media_type), (header::CACHE_CONTROL, "no-store")];
    (status, headers, body).into_response()
}
