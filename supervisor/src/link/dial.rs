//! From an address to an upgraded connection: a line, through a proxy or not, and the handshake of WebSocket over hyper.
//!
//! Promises: one deadline for all of it; the token is read anew and stands in nothing but its header; redirects are not
//! followed; an answer that names a time for the next dial is understood.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use peer::names::Names;
use peer::tls::Tls;
use peer::{Address, PeerError, Stream};
use protocol::session::{PATH, Refusal, SUBPROTOCOL};
use protocol::websocket;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::config::Config;
use super::proxy::{Proxy, ProxyError};
use super::reconnect::Why;
use crate::bearer;
use crate::machine::Machine;
use crate::streaming;
use peer::random;

/// The whole of it.
const PATIENCE: Duration = Duration::from_secs(30);
/// Read of a refusal.
const MAX_REFUSAL: usize = 4096;

/// A connection on which WebSocket frames may follow.
pub(crate) type Connection = TokioIo<Upgraded>;

/// Why there is none. The token and the peer's words are in none of them.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub(crate) enum DialError {
    #[error("the token file cannot be read")]
    Token(#[source] io::Error),
    #[error(transparent)]
    Peer(#[from] PeerError),
    #[error("there is no way through the proxy")]
    Proxy(#[from] ProxyError),
    #[error("the connection broke in the handshake")]
    Http(#[from] hyper::Error),
    #[error("the gateway refuses the token with {0}")]
    Denied(StatusCode),
    #[error("the gateway answers {status}")]
    Refused { status: StatusCode, reserved: Option<Duration>, window: Option<Duration> },
    #[error("the gateway does not speak this protocol: {0}")]
    Answer(&'static str),
    #[error("there was no answer within {}s", PATIENCE.as_secs())]
    Timeout,
}

impl DialError {
    /// The word in metrics and logs.
    pub(super) fn name(&self) -> &'static str {
        match self {
            DialError::Token(_) => "token",
            DialError::Peer(error) => error.name(),
            DialError::Proxy(_) => "proxy",
            DialError::Http(_) => "broken",
            DialError::Denied(_) => "denied",
            DialError::Refused { .. } => "refused",
            DialError::Answer(_) => "answer",
            DialError::Timeout => "timeout",
        }
    }

    /// What it means for the next dial.
    pub(crate) fn why(&self) -> Why {
        match self {
            DialError::Refused { reserved: Some(time), .. } => Why::Reserved(*time),
            DialError::Denied(_) => Why::Refused,
            _ => Why::Failed,
        }
    }
}

/// Dials one gateway.
pub(super) struct Dialler {
    gateway: Address,
    proxy: Option<Proxy>,
    token_file: Option<std::path::PathBuf>,
    tls: Arc<Tls>,
    names: Names,
    machine: Machine,
}

impl Dialler {
    pub(super) fn new(config: &Config, machine: Machine) -> Dialler {
        Dialler {
            gateway: config.gateway.clone(),
            proxy: config.proxy.clone(),
            token_file: config.token_file.clone(),
            tls: Tls::new(config.tls.clone()),
            names: Names::default(),
            machine,
        }
    }

    /// One dial.
    pub(super) async fn dial(&self) -> Result<Connection, DialError> {
        timeout(PATIENCE, self.try_dial()).await.unwrap_or(Err(DialError::Timeout))
    }

    async fn try_dial(&self) -> Result<Connection, DialError> {
        let token = self.token_file.as_deref().map(token).transpose().map_err(DialError::Token)?;
        let stream = self.stream().await?;
        if !self.gateway.tls {
            return handshake(stream, &self.gateway, token).await;
        }
        let stream = self.tls.connect(&self.gateway.host, stream).await.map_err(PeerError::Tls)?;
        handshake(Box::new(stream), &self.gateway, token).await
    }

    async fn stream(&self) -> Result<Box<dyn Stream>, DialError> {
        let Some(proxy) = &self.proxy else {
            return Ok(self.machine.connect(&self.names, &self.gateway.host, self.gateway.port).await?);
        };
        let stream = peer::tcp(&self.names, &proxy.host, proxy.port).await.map_err(ProxyError::Unreachable)?;
        Ok(proxy.tunnel(stream, &self.gateway).await?)
    }
}

/// As a header.
fn token(path: &Path) -> io::Result<HeaderValue> {
    let invalid = |problem: &'static str| io::Error::new(io::ErrorKind::InvalidData, problem);
    match bearer::read(path)?.as_str() {
        "" => Err(invalid("it is empty")),
        token => bearer::header(token).ok_or_else(|| invalid("it has bytes that no header may have")),
    }
}

/// What drives a connection goes with whoever waits for its answer.
pub(super) struct Driver(JoinHandle<()>);

impl Driver {
    pub(super) fn of(connection: http1::Connection<TokioIo<impl Stream + 'static>, Body>) -> Driver {
        Driver(tokio::spawn(async move { drop(connection.with_upgrades().await) }))
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// That of WebSocket, and the gateway's answer to it.
pub(crate) async fn handshake(
    stream: Box<dyn Stream>,
    gateway: &Address,
    token: Option<HeaderValue>,
) -> Result<Connection, DialError> {
    let (mut sender, connection) =
        http1::Builder::new().max_buf_size(16 * 1024).handshake(TokioIo::new(stream)).await?;
    let driver = Driver::of(connection);
    let key = key();
    let response = sender.send_request(request(gateway, &key, token)?).await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(refusal(response).await);
    }
    check(response.headers(), &key).map_err(DialError::Answer)?;
    let upgraded = hyper::upgrade::on(response).await?;
    drop(driver);
    Ok(TokioIo::new(upgraded))
}

fn request(gateway: &Address, key: &str, token: Option<HeaderValue>) -> Result<Request<Body>, DialError> {
    let mut request = Request::builder()
        .uri(format!("{}{PATH}", gateway.base))
        .header(header::HOST, &gateway.authority)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_VERSION, "13")
        .header(header::SEC_WEBSOCKET_KEY, key)
        .header(header::SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL)
        .header(header::USER_AGENT, concat!("chaperone-supervisor/", env!("CARGO_PKG_VERSION")));
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, token);
    }
    request.body(Body::empty()).map_err(|_| DialError::Answer("its address cannot stand in a request"))
}

/// 16 random bytes. They only tell this handshake from another; nothing is secret about them.
fn key() -> String {
    STANDARD.encode([random::bits().to_le_bytes(), random::bits().to_le_bytes()].concat())
}

/// Whether this is the answer of a gateway that speaks our protocol, to our handshake.
fn check(headers: &HeaderMap, key: &str) -> Result<(), &'static str> {
    let is = |name, value: &str| {
        headers.get(name).and_then(|v: &HeaderValue| v.to_str().ok()).is_some_and(|v| v.eq_ignore_ascii_case(value))
    };
    if !is(header::UPGRADE, "websocket") {
        return Err("it upgrades to something else");
    }
    let accept = websocket::accept(key.as_bytes());
    if headers.get(header::SEC_WEBSOCKET_ACCEPT).is_none_or(|value| value.as_bytes() != accept.as_bytes()) {
        return Err("it answers another handshake");
    }
    if !is(header::SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL) {
        return Err("it has not chosen the sub-protocol of the session");
    }
    Ok(())
}

async fn refusal(response: Response<Incoming>) -> DialError {
    let status = response.status();
    if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        return DialError::Denied(status);
    }
    let after = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    let body = streaming::beginning(Body::new(response.into_body()), MAX_REFUSAL).await;
    // To the millisecond where the gateway reserved a place, else to the second.
    match serde_json::from_slice::<Refusal>(&body) {
        Ok(refusal) => DialError::Refused {
            status,
            reserved: Some(Duration::from_millis(refusal.reconnect_in_ms)),
            window: refusal.window_ms.map(Duration::from_millis),
        },
        Err(_) => DialError::Refused { status, reserved: after.map(Duration::from_secs), window: None },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_handshake_is_that_of_rfc_6455() {
        let mut headers = HeaderMap::new();
        headers.insert(header::UPGRADE, HeaderValue::from_static("WebSocket"));
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, HeaderValue::from_static("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        assert_eq!(check(&headers, "dGhlIHNhbXBsZSBub25jZQ=="), Ok(()));
        assert!(check(&headers, "another").is_err());
        headers.remove(header::SEC_WEBSOCKET_PROTOCOL);
        assert!(check(&headers, "dGhlIHNhbXBsZSBub25jZQ==").is_err());
    }
}
