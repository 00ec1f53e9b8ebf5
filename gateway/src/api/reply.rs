//! Answers: JSON, and errors as `application/problem+json` (RFC 9457).

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use protocol::problem;
use serde::Serialize;

use crate::store::StoreError;

/// A JSON body that nobody may keep: it is true only now.
pub fn json(status: StatusCode, body: &impl Serialize) -> Response {
    with_type(status, "application/json", serde_json::to_vec(body).unwrap_or_default())
}

/// Done, and nothing to say.
pub fn nothing() -> Response {
    StatusCode::NO_CONTENT.into_response()
}

/// Any body with its media type.
pub fn with_type(status: StatusCode, media_type: &'static str, body: Vec<u8>) -> Response {
    let headers: [(HeaderName, &'static str); 2] =
        [(header::CONTENT_TYPE, media_type), (header::CACHE_CONTROL, "no-store")];
    (status, headers, body).into_response()
}

/// An error of a handler.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    detail: String,
    field: Option<String>,
    retry_after: Option<u64>,
    cursor: Option<i64>,
}

impl Problem {
    /// Any error.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Problem {
        Problem { status, detail: detail.into(), field: None, retry_after: None, cursor: None }
    }

    /// The request is wrong.
    pub fn bad(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, detail)
    }

    /// One field, parameter or header of it is wrong.
    pub fn field(field: &str, problem: impl AsRef<str>) -> Problem {
        Problem { field: Some(field.into()), ..Problem::bad(format!("{field}: {}", problem.as_ref())) }
    }

    /// Nobody knows who asks.
    pub fn unauthorized(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::UNAUTHORIZED, detail)
    }

    /// There is no sandbox of this id.
    pub fn no_sandbox(id: &str) -> Problem {
        Problem::new(StatusCode::NOT_FOUND, format!("there is no sandbox {id}"))
    }

    /// What was behind this cursor is kept no more, up to the event `removed`.
    pub fn removed(removed: i64) -> Problem {
        let detail =
            format!("events behind this cursor are kept no more; the oldest that are follow on cursor {removed}");
        Problem { cursor: Some(removed), ..Problem::new(StatusCode::GONE, detail) }
    }

    /// Trying again after so many seconds may help.
    pub fn retry_after(self, seconds: u64) -> Problem {
        Problem { retry_after: Some(seconds), ..self }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Problem {
        tracing::error!(error = crate::exit::reason(&error), "a request could not be answered from the store");
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the store cannot be used now").retry_after(5)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Body<'a> {
            #[serde(flatten)]
            problem: problem::Problem<'a>,
            /// Where the reader can go on.
            #[serde(skip_serializing_if = "Option::is_none")]
            cursor: Option<String>,
        }
        let problem = problem::Problem {
            title: self.status.canonical_reason().unwrap_or("error"),
            status: self.status.as_u16(),
            detail: &self.detail,
            field: self.field.as_deref(),
        };
        let body = Body { problem, cursor: self.cursor.map(|cursor| cursor.to_string()) };
        let bytes = serde_json::to_vec(&body).unwrap_or_default();
        let mut response = with_type(self.status, problem::MEDIA_TYPE, bytes);
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
