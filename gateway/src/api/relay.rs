//! One request passed on over a connection, and its answer passed back.
//!
//! Promises: bodies pass in both directions as they come; a WebSocket (attach) passes as the bytes that it is; when either side goes
//! away the other learns it.

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{self, HeaderName};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use hyper::client::conn::http1;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

/// Headers that speak of one connection (RFC 9110, 7.6.1).
const OF_ONE_CONNECTION: [HeaderName; 9] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::EXPECT,
];
/// The answer's head.
const HEAD_BYTES: usize = 32 * 1024;

/// Send `request` to whoever is at the other end of `connection`, as it is but for the headers that speak of the caller's own one.
/// All of it is broken off when `over` comes.
pub(super) async fn relay<C, F>(connection: C, request: Request, over: impl Fn() -> F) -> Result<Response, hyper::Error>
where
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let (mut parts, body) = request.into_parts();
    let upgrade = parts.headers.get(header::UPGRADE).cloned().zip(parts.extensions.remove::<OnUpgrade>());
    let (upgrade, caller) = upgrade.unzip();
    strip(&mut parts.headers);
    pass_upgrade(&mut parts.headers, upgrade.as_ref());
    parts.extensions.clear();

    let builder = http1::Builder::new().max_buf_size(HEAD_BYTES).clone();
    let (mut sender, connection) = builder.handshake(TokioIo::new(connection)).await?;
    // It ends with the answer, or with whoever waits for it.
    tokio::spawn(until(over(), connection.with_upgrades()));
    let mut answer = sender.send_request(Request::from_parts(parts, body)).await?;

    if answer.status() == StatusCode::SWITCHING_PROTOCOLS
        && let Some(caller) = caller
    {
        let other = hyper::upgrade::on(&mut answer);
        tokio::spawn(until(over(), join(caller, other)));
    }
    let upgraded = answer.headers().get(header::UPGRADE).cloned();
    let (mut head, body) = answer.into_parts();
    let switched = head.status == StatusCode::SWITCHING_PROTOCOLS;
    strip(&mut head.headers);
    pass_upgrade(&mut head.headers, upgraded.as_ref().filter(|_| switched));
    // An empty body is passed as one, or a message would follow the 101.
    Ok(Response::from_parts(head, if switched { Body::empty() } else { Body::new(body) }))
}

async fn until<T>(over: impl Future<Output = ()>, work: impl Future<Output = T>) {
    tokio::select! {
        _ = work => {}
        () = over => {}
    }
}

/// What speaks of one connection, by its own word too.
pub(crate) fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&OF_ONE_CONNECTION) {
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
async fn join(caller: OnUpgrade, other: OnUpgrade) {
    if let (Ok(caller), Ok(other)) = (caller.await, other.await) {
        let _ = tokio::io::copy_bidirectional(&mut TokioIo::new(caller), &mut TokioIo::new(other)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_speaks_of_one_connection_is_not_passed_on() {
        let mut headers = HeaderMap::new();
        for (name, value) in [("connection", "close, x-one"), ("x-one", "1"), ("te", "trailers"), ("x-two", "2")] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        strip(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-two"]);
    }
}
