//! Files that an agent can change, to and from clients: always through a worker.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::Response;

use protocol::percent;

use super::reply::{self, Problem};
use crate::workspace::failure::{Failure, Kind};
use crate::workspace::files::Opened;
use crate::workspace::path::Relative;
use crate::workspace::work::{Span, Work};
use crate::workspace::workers::{Input, Started, Workers};

/// A page of a listing, or one entry: more than any page has.
const MAX_JSON: usize = 32 * 1024 * 1024;
/// Entries on a page: default and most.
const PAGE: (u64, u64) = (1000, 10_000);

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Problem {
        let status = match failure.kind {
            Kind::Invalid => StatusCode::BAD_REQUEST,
            Kind::NotFound => StatusCode::NOT_FOUND,
            Kind::Forbidden => StatusCode::FORBIDDEN,
            Kind::Conflict => StatusCode::CONFLICT,
            Kind::Late => StatusCode::REQUEST_TIMEOUT,
            Kind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Kind::Full => StatusCode::INSUFFICIENT_STORAGE,
            Kind::Busy => StatusCode::TOO_MANY_REQUESTS,
            Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let problem = Problem::new(status, failure.message);
        if failure.kind == Kind::Busy { problem.retry_after(1) } else { problem }
    }
}

/// The path behind the first `skip` parts of the request's: any bytes, as `%XX` where they are no ASCII.
pub(super) fn path(uri: &Uri, skip: usize) -> Result<Option<Relative>, Problem> {
    let rest = uri.path().splitn(skip + 2, '/').nth(skip + 1).unwrap_or_default();
    if rest.is_empty() {
        return Ok(None);
    }
    let bytes = percent::decode(rest).ok_or_else(|| Problem::field("path", "has a % that is not %XX"))?;
    Relative::new(&bytes).map(Some).map_err(|e| Problem::field("path", e.to_string()))
}

/// What a page of a listing is asked for with.
pub(super) struct Paging {
    pub(super) after: Option<Relative>,
    pub(super) limit: u64,
}

impl Paging {
    pub(super) fn take(query: &mut super::query::Query) -> Result<Paging, Problem> {
        let limit = query.number("limit")?.unwrap_or(PAGE.0);
        if limit == 0 || limit > PAGE.1 {
            return Err(Problem::field("limit", format!("is from 1 to {}", PAGE.1)));
        }
        let after = query.text("after").map(|path| Relative::new(path.as_bytes()));
        let after = after.transpose().map_err(|e| Problem::field("after", e.to_string()))?;
        Ok(Paging { after, limit })
    }
}

/// The JSON that a worker makes.
pub(super) async fn json(workers: &Workers, work: &Work, input: Input) -> Result<Response, Problem> {
    let Started { head: (), output } = workers.start(work, input).await?;
    let body = output.all(MAX_JSON).await?;
    Ok(reply::with_type(StatusCode::OK, "application/json", body))
}

/// A file, or the part of it that `Range` names (RFC 9110, 14.2: one range; anything else is ignored).
pub(super) async fn file(
    workers: &Workers,
    work: impl FnOnce(Span) -> Work,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let asked = headers.get(header::RANGE).and_then(|v| v.to_str().ok()).and_then(|v| v.strip_prefix("bytes="));
    let span = asked.filter(|text| *text != "all").and_then(Span::parse);
    let work = work(span.unwrap_or(Span::Whole));
    let Started { head: Opened { size, part, mtime }, output } = workers.start(&work, Input::None).await?;
    let Some((first, count)) = part else {
        let mut response = reply::problem(StatusCode::RANGE_NOT_SATISFIABLE, "the file has no such bytes");
        insert(&mut response, header::CONTENT_RANGE, format!("bytes */{size}"));
        return Ok(response);
    };
    let mut response = stream(output.into_body(), "application/octet-stream", Some(count));
    insert(&mut response, header::ACCEPT_RANGES, "bytes".into());
    insert(&mut response, HeaderName::from_static("file-mtime"), mtime);
    if span.is_some() {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        insert(&mut response, header::CONTENT_RANGE, format!("bytes {first}-{}/{size}", first + count - 1));
    }
    Ok(response)
}

/// Everything in a directory.
pub(super) async fn archive(workers: &Workers, root: std::path::PathBuf, gzip: bool) -> Result<Response, Problem> {
    let Started { head: (), output } = workers.start(&Work::Pack { root, gzip }, Input::None).await?;
    Ok(stream(output.into_body(), if gzip { "application/gzip" } else { "application/x-tar" }, None))
}

/// Bytes as they come. Never a type that a browser would run.
pub(super) fn stream(body: Body, media_type: &'static str, length: Option<u64>) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Some(length) = length {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    response
}

pub(super) fn insert(response: &mut Response, name: HeaderName, value: String) {
    if let Ok(value) = HeaderValue::from_str(&value) {
        response.headers_mut().insert(name, value);
    }
}

/// How long the body is; what comes in chunks of unknown number is not taken.
pub(super) fn length(headers: &HeaderMap, most: u64) -> Result<u64, Problem> {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
    match length {
        None => Err(Problem::new(StatusCode::LENGTH_REQUIRED, "a Content-Length is needed")),
        Some(length) if length > most => {
            Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the body is larger than {most} bytes")))
        }
        Some(length) => Ok(length),
    }
}
