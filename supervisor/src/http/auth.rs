//! Who may call the API: a bearer token from a file (RFC 6750), compared in constant time.
//!
//! The agent shares the Pod's network, so it can connect; without the token it is answered 401. The file is read anew
//! for every request, because the kubelet replaces it. Without a file the API is closed: 403, saying so.

use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use subtle::ConstantTimeEq;

use super::{Trusted, reply};

/// A token longer than this is a wrong file.
const MAX_TOKEN: u64 = 64 * 1024;

/// How callers are verified.
#[derive(Clone, Debug)]
pub enum Verifier {
    /// No token file: nobody may call.
    Closed,
    /// The token in this file.
    TokenFile(PathBuf),
}

impl Verifier {
    fn verify(&self, presented: Option<&str>) -> Result<(), Refusal> {
        let Verifier::TokenFile(path) = self else { return Err(Refusal::Closed) };
        let mut expected = Vec::new();
        let read = std::fs::File::open(path).and_then(|file| file.take(MAX_TOKEN).read_to_end(&mut expected));
        let expected = expected.trim_ascii();
        if read.is_err() || expected.is_empty() {
            return Err(Refusal::Unreadable);
        }
        let presented = presented.ok_or(Refusal::Missing)?;
        // Lengths are compared first and may be learnt; they are no secret.
        if bool::from(expected.ct_eq(presented.as_bytes())) { Ok(()) } else { Err(Refusal::Wrong) }
    }
}

enum Refusal {
    Closed,
    Unreadable,
    Missing,
    Wrong,
}

/// What everybody may ask.
const OPEN: [&str; 6] = ["/livez", "/readyz", "/startupz", "/healthz", "/alive", "/metrics"];

/// Whether this path is health or nothing at all. Every other route is closed, also one that is added later.
fn is_open(request: &Request) -> bool {
    match request.extensions().get::<MatchedPath>() {
        Some(route) => OPEN.contains(&route.as_str()),
        None => !request.uri().path().starts_with("/dev-tasks"),
    }
}

/// Let through whoever has the token, or calls on a connection that is trusted as a whole.
pub(super) async fn require(State(verifier): State<Arc<Verifier>>, request: Request, next: Next) -> Response {
    if is_open(&request) || request.extensions().get::<Trusted>().is_some() {
        return next.run(request).await;
    }
    let presented = request.headers().get(header::AUTHORIZATION).and_then(|value| {
        let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    let (status, detail) = match verifier.verify(presented) {
        Ok(()) => return next.run(request).await,
        Err(Refusal::Closed) => (StatusCode::FORBIDDEN, "the API is closed: no SUPERVISOR_API_TOKEN_FILE is set"),
        Err(Refusal::Unreadable) => (StatusCode::SERVICE_UNAVAILABLE, "the token file cannot be read now"),
        Err(Refusal::Missing) => (StatusCode::UNAUTHORIZED, "a bearer token is needed"),
        Err(Refusal::Wrong) => (StatusCode::UNAUTHORIZED, "the bearer token is not the right one"),
    };
    let mut response = reply::problem(status, detail);
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}
