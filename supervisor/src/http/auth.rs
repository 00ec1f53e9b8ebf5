//! Who may call the API: who has the bearer token of a file (RFC 6750), compared in constant time, or one that the gateway
//! has signed for this call ([`signed`](super::signed)).
//!
//! The agent shares the Pod's network, so it can connect; without a token it is answered 401. The file is read anew
//! for every request, because the kubelet replaces it. Without either the API is closed: 403, saying so.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use subtle::ConstantTimeEq;

use super::signed::{Signed, Unsigned};
use super::{Trusted, reply};

/// A token longer than this is a wrong file.
const MAX_TOKEN: u64 = 64 * 1024;

/// How callers are verified; with neither, nobody may call.
#[derive(Debug)]
pub struct Verifier {
    /// The token in this file.
    pub token_file: Option<PathBuf>,
    /// Signed by the gateway.
    pub signed: Option<Signed>,
}

impl Verifier {
    fn verify(&self, presented: Option<&str>) -> Result<(), Refusal> {
        let of_file = match &self.token_file {
            Some(path) => compare(path, presented),
            None if self.signed.is_none() => Err(Refusal::Closed),
            None => Err(presented.map_or(Refusal::Missing, |_| Refusal::Wrong)),
        };
        match (of_file, &self.signed, presented) {
            (Err(why), Some(signed), Some(token)) => match signed.verify(token) {
                Ok(()) => Ok(()),
                // Neither kind: what is wrong with the file is worth more to know.
                Err(Unsigned::Shape) => Err(why),
                Err(why) => Err(Refusal::Signed(why)),
            },
            (of_file, ..) => of_file,
        }
    }
}

fn compare(path: &Path, presented: Option<&str>) -> Result<(), Refusal> {
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

enum Refusal {
    Closed,
    Unreadable,
    Missing,
    Wrong,
    Signed(Unsigned),
}

impl Refusal {
    fn answer(&self) -> (StatusCode, &'static str) {
        match self {
            Refusal::Closed => (
                StatusCode::FORBIDDEN,
                "the API is closed: neither SUPERVISOR_API_TOKEN_FILE nor SUPERVISOR_API_SIGNED is set",
            ),
            Refusal::Unreadable => (StatusCode::SERVICE_UNAVAILABLE, "the token file cannot be read now"),
            Refusal::Missing => (StatusCode::UNAUTHORIZED, "a bearer token is needed"),
            Refusal::Wrong => (StatusCode::UNAUTHORIZED, "the bearer token is not the right one"),
            Refusal::Signed(why @ (Unsigned::NoKey | Unsigned::Many)) => {
                (StatusCode::SERVICE_UNAVAILABLE, why.detail())
            }
            Refusal::Signed(why) => (StatusCode::UNAUTHORIZED, why.detail()),
        }
    }
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
        Err(why) => why.answer(),
    };
    let mut response = reply::problem(status, detail);
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}
