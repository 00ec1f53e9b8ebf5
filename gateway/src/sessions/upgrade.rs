//! The dial: token, headers, admission, and then the connection is a session's.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper_util::rt::TokioIo;
use protocol::session::{Refusal, SUBPROTOCOL};
use protocol::websocket;

use super::{Sessions, session};
use crate::api::reply::{self, Problem};
use crate::identity::{self, IdentityError};
use crate::tokens::{Hash, bearer};

/// Whoever dials again may well come to one of the others.
const ELSEWHERE: Duration = Duration::from_millis(250);

/// Who dials.
pub(super) struct Who {
    /// The agent's id.
    pub(super) sandbox: String,
    /// SHA-256 of its token, in hex, where that was given out here.
    pub(super) token: Option<String>,
}

/// `GET /v1/session`.
pub async fn accept(State(sessions): State<Arc<Sessions>>, mut request: Request) -> Response {
    let who = match who(&sessions, request.headers()).await {
        Ok(who) => who,
        Err(problem) => return refused(&sessions, "token", problem.into_response()),
    };
    let key = match key(request.headers()) {
        Ok(key) => key,
        Err(problem) => return refused(&sessions, "headers", problem.into_response()),
    };
    // Nobody has a place here who could not take it.
    if let Some(response) = turned_away(&sessions) {
        return response;
    }
    let mut draining = sessions.draining.clone();
    let admitted = tokio::select! {
        biased;
        _ = draining.wait_for(|draining| *draining) => Ok(()),
        admitted = sessions.admission.wait(&who.sandbox) => admitted,
    };
    if let Err(later) = admitted {
        let (why, reason) = match later.behind {
            true => ("behind", "as many sessions are beginning as may; come again then"),
            false => ("rate", "many dial at once; this place is kept"),
        };
        return refused(&sessions, why, refusal(&sessions, reason, later.after));
    }
    // Before the look: a drain that begins after it waits for this one.
    let coming = sessions.registry.coming();
    if let Some(response) = turned_away(&sessions) {
        return response;
    }
    let Some(upgrade) = request.extensions_mut().remove::<hyper::upgrade::OnUpgrade>() else {
        return Problem::bad("this connection cannot become a WebSocket").into_response();
    };
    tokio::spawn(async move {
        if let Ok(upgraded) = upgrade.await {
            session::run(sessions, who, coming, TokioIo::new(upgraded)).await;
        }
    });
    let headers = [
        (header::CONNECTION, HeaderValue::from_static("Upgrade")),
        (header::UPGRADE, HeaderValue::from_static("websocket")),
        (header::SEC_WEBSOCKET_ACCEPT, answer_to(&key)),
        (header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL)),
    ];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}

/// What anybody is answered while no session may begin here.
fn turned_away(sessions: &Sessions) -> Option<Response> {
    if *sessions.draining.borrow() {
        // Long enough for another gateway to be there, or to be found.
        let wait = if sessions.lease.gateways() > 1 { ELSEWHERE } else { sessions.admission.window() };
        return Some(refused(sessions, "draining", refusal(sessions, "this gateway is stopping", wait)));
    }
    if sessions.lease.is_lost() {
        let wait = sessions.admission.window();
        return Some(refused(sessions, "lease", refusal(sessions, "this gateway has no lease now", wait)));
    }
    None
}

/// Whose token it is.
async fn who(sessions: &Sessions, headers: &HeaderMap) -> Result<Who, Problem> {
    let token = bearer(headers).ok_or_else(|| Problem::unauthorized("a sandbox's bearer token is needed"))?;
    let away = || Problem::new(StatusCode::SERVICE_UNAVAILABLE, "tokens cannot be checked now").retry_after(5);
    if let Some(tokens) = &sessions.tokens {
        match tokens.name_of(token) {
            Ok(Some(sandbox)) => return Ok(Who { sandbox, token: None }),
            Ok(None) => {}
            Err(error) => {
                tracing::error!(error = crate::exit::reason(&error), "the sandboxes' token file cannot be used");
                return Err(away());
            }
        }
    }
    if let Some(identity) = &sessions.identity {
        match identity.sandbox_of(token).await {
            Ok(Some(sandbox)) => return Ok(Who { sandbox, token: None }),
            Ok(None) => {}
            Err(error) => {
                identity::log(&error);
                return Err(match error {
                    IdentityError::Refused(why) => Problem::unauthorized(why),
                    _ => away(),
                });
            }
        }
    }
    let hash = Hash::of(token).hex();
    match sessions.store.sandbox_of_token(&hash).await {
        Ok(Some(sandbox)) => Ok(Who { sandbox, token: Some(hash) }),
        Ok(None) => Err(Problem::unauthorized("the bearer token is no sandbox's")),
        Err(error) => {
            tracing::error!(error = crate::exit::reason(&error), "a token cannot be looked up");
            Err(away())
        }
    }
}

/// What the peer wants to see again, of a request that wants our WebSocket.
fn key(headers: &HeaderMap) -> Result<HeaderValue, Problem> {
    let has = |name, word: &str| {
        let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|part| part.trim().eq_ignore_ascii_case(word))
    };
    if !has(header::CONNECTION, "upgrade") || !has(header::UPGRADE, "websocket") {
        return Err(Problem::new(StatusCode::UPGRADE_REQUIRED, "this path is for WebSockets only"));
    }
    if !has(header::SEC_WEBSOCKET_VERSION, "13") {
        return Err(Problem::field("Sec-WebSocket-Version", "must be 13"));
    }
    if !has(header::SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL) {
        return Err(Problem::field("Sec-WebSocket-Protocol", format!("must have {SUBPROTOCOL}")));
    }
    headers.get(header::SEC_WEBSOCKET_KEY).cloned().ok_or_else(|| Problem::field("Sec-WebSocket-Key", "is missing"))
}

fn answer_to(key: &HeaderValue) -> HeaderValue {
    HeaderValue::try_from(websocket::accept(key.as_bytes())).expect("base64 is ASCII")
}

/// Come back after so long.
fn refusal(sessions: &Sessions, reason: &str, wait: Duration) -> Response {
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let body = Refusal {
        reason: reason.into(),
        // Rounded up: a place is not given away before its time.
        reconnect_in_ms: millis(wait) + 1,
        window_ms: Some(millis(sessions.admission.window())),
    };
    let mut response = reply::json(StatusCode::SERVICE_UNAVAILABLE, &body);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs() + 1));
    response
}

fn refused(sessions: &Sessions, why: &'static str, response: Response) -> Response {
    sessions.metrics.refused.get_or_create(&vec![("reason", why.to_string())]).inc();
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_to_a_key_is_that_of_the_standard() {
        let answer = answer_to(&HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ=="));
        assert_eq!(answer, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
