//! The dev-task API of a sandbox, through its own session: the same paths, bodies and statuses as the sandbox's own port.
//!
//! Promises: bodies pass in both directions as they come, and no more of them is held than the stream's credit; the user's
//! token stays here, since the sandbox's agent is not trusted with it; when either side goes away the other learns it. A
//! WebSocket (attach) passes as the bytes that it is.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{self, HeaderName};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::Response;
use hyper::client::conn::http1;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::reply::Problem;
use super::{Api, Id};
use crate::exit::reason;
use crate::sessions::Stream;

/// Headers that speak of one connection (RFC 9110, 7.6.1), and those that are not the sandbox's business.
const NOT_PASSED: [HeaderName; 11] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::EXPECT,
    header::AUTHORIZATION,
    header::COOKIE,
];
/// The answer's head.
const HEAD_BYTES: usize = 32 * 1024;

/// Everything under `/v1/sandboxes/{id}` that is the sandbox's.
pub(super) async fn forward(State(api): State<Arc<Api>>, Id(id): Id, request: Request) -> Result<Response, Problem> {
    let stream = open(&api, &id).await?;
    let (mut parts, body) = request.into_parts();
    let upgrade = parts.headers.get(header::UPGRADE).cloned().zip(parts.extensions.remove::<OnUpgrade>());
    parts.uri = inner(&parts.uri, &id)?;
    strip(&mut parts.headers);
    parts.headers.insert(header::HOST, HeaderValue::from_static("sandbox"));
    let (upgrade, caller) = upgrade.unzip();
    pass_upgrade(&mut parts.headers, upgrade.as_ref());
    parts.extensions.clear();

    let gone = |error: hyper::Error| {
        Problem::new(StatusCode::BAD_GATEWAY, format!("sandbox {id} did not answer: {}", reason(&error))).retry_after(1)
    };
    let builder = http1::Builder::new().max_buf_size(HEAD_BYTES).clone();
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(gone)?;
    // It ends with the answer, or with whoever waits for it.
    tokio::spawn(connection.with_upgrades());
    let mut answer = sender.send_request(Request::from_parts(parts, body)).await.map_err(gone)?;

    if answer.status() == StatusCode::SWITCHING_PROTOCOLS
        && let Some(caller) = caller
    {
        let sandbox = hyper::upgrade::on(&mut answer);
        tokio::spawn(join(caller, sandbox));
    }
    let upgraded = answer.headers().get(header::UPGRADE).cloned();
    let (mut head, body) = answer.into_parts();
    let switched = head.status == StatusCode::SWITCHING_PROTOCOLS;
    strip(&mut head.headers);
    pass_upgrade(&mut head.headers, upgraded.as_ref().filter(|_| switched));
    // An empty body is passed as one, or a message would follow the 101.
    Ok(Response::from_parts(head, if switched { Body::empty() } else { Body::new(body) }))
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
fn inner(uri: &Uri, id: &str) -> Result<Uri, Problem> {
    let whole = uri.path_and_query().map_or("", |path| path.as_str());
    let rest = whole.strip_prefix("/v1/sandboxes/").and_then(|rest| rest.strip_prefix(id));
    // An id has no character that needs %XX, but it may come so.
    rest.and_then(|rest| rest.parse().ok()).ok_or_else(|| Problem::field("id", "is to be written without %XX"))
}

fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&NOT_PASSED) {
        headers.remove(name);
    }
}

fn pass_upgrade(headers: &mut HeaderMap, protocol: Option<&HeaderValue>) {
    if let Some(protocol) = protocol {
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, protocol.clone());
    }
}

/// Bytes both ways until both have ended, or one has broken.
async fn join(caller: OnUpgrade, sandbox: OnUpgrade) {
    if let (Ok(caller), Ok(sandbox)) = (caller.await, sandbox.await) {
        let _ = tokio::io::copy_bidirectional(&mut TokioIo::new(caller), &mut TokioIo::new(sandbox)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sandbox_sees_its_own_path_and_never_the_users_token() {
        let uri = "/v1/sandboxes/a/files/x%2Fy?limit=2".parse().expect("a path");
        assert_eq!(inner(&uri, "a").expect("inner"), "/files/x%2Fy?limit=2");
        let mut headers = HeaderMap::new();
        for (name, value) in
            [("authorization", "Bearer x"), ("connection", "close, x-one"), ("x-one", "1"), ("x-two", "2")]
        {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        strip(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-two"]);
    }
}
