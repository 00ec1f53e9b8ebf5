//! The listener: health, metrics and the dev-task API.
//!
//! Promises: one address, never `SO_REUSEPORT`, so that no process of the same uid can share the port and take
//! tokens; a head of at most 16 KiB within 5 s; at most [`CONNECTIONS`] at once ([`peer::places`]) from inside
//! the Pod and as many from outside, so that an agent that holds them all leaves the kubelet its own; a panic in a request is counted and
//! closes that connection only.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::StatusCode;
use axum::routing::get;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use peer::places::{Place, Places};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};

mod api;
mod archives;
mod artifacts;
mod attach;
mod auth;
mod content;
mod extract;
mod files;
mod health;
mod logs;
mod metrics;
pub(crate) mod patch;
pub(crate) mod query;
pub(crate) mod reply;
pub(crate) mod signed;
pub(crate) mod tasks;
mod websocket;

pub use api::Api;
pub use auth::Verifier;
pub use health::View;
pub use signed::Signed;

use crate::metrics::Metrics;

/// Connections at once, from each side; the kubelet and a scraper need a handful.
const CONNECTIONS: usize = 128;
/// A request head takes longer only from somebody who holds a connection open on purpose.
const HEAD_TIME: Duration = Duration::from_secs(5);
/// A peer that takes nothing for so long is cut: also one whose window stays closed (`TCP_USER_TIMEOUT`, tcp(7)).
const STALL_MILLIS: u32 = 120_000;
/// hyper's read buffer, and so the largest head.
const HEAD_BYTES: usize = 16 * 1024;
/// A task as it is told is far smaller.
const ANSWER_BYTES: usize = 1024 * 1024;

/// All routes: health and metrics are open, the rest needs the token.
pub fn routes(view: Arc<View>, api: Api, verifier: Verifier) -> Router {
    let health = Router::new()
        .route("/livez", get(health::live))
        .route("/readyz", get(health::ready))
        .route("/startupz", get(health::startup))
        .route("/healthz", get(health::health))
        .route("/alive", get(health::ready))
        .route("/metrics", get(metrics::metrics))
        .with_state(view);
    health
        .merge(tasks::routes(api.clone()))
        .merge(artifacts::routes(api.clone()))
        .merge(archives::routes(api.clone()))
        .merge(patch::routes(api.clone()))
        .merge(files::routes(api))
        .fallback(|| async { reply::problem(StatusCode::NOT_FOUND, "there is nothing at this path") })
        .method_not_allowed_fallback(|| async {
            reply::problem(StatusCode::METHOD_NOT_ALLOWED, "this path does not take this method")
        })
        // Last, so that a wrong path or method of the API is not answered either without the token.
        .layer(axum::middleware::from_fn_with_state(Arc::new(verifier), auth::require))
}

/// Serve until dropped.
pub async fn serve(listener: TcpListener, routes: Router, metrics: Arc<Metrics>) -> Infallible {
    let (inside, outside) = (Places::new(CONNECTIONS), Places::new(CONNECTIONS));
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            // Out of descriptors or memory: the next may fare better, after others have closed.
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let places = if is_inside(&stream, peer) { &inside } else { &outside };
        let admitted = places.admit(|| _ = metrics.connections_refused.inc()).await;
        let Some(place) = admitted else { continue };
        // A panic in there ends this task and no other; the hook counts it.
        tokio::spawn(connection(stream, routes.clone(), place));
    }
}

/// Loopback, or the Pod's own address: the agent or an exec probe. The kubelet comes from the node's address.
fn is_inside(stream: &TcpStream, peer: SocketAddr) -> bool {
    let ip = peer.ip().to_canonical();
    ip.is_loopback() || stream.local_addr().is_ok_and(|own| own.ip().to_canonical() == ip)
}

/// Whoever calls on this connection was authenticated when it was made: the gateway, on a stream of its session. Only the
/// supervisor itself puts it on a request; nothing that a client sends does.
#[derive(Clone)]
pub(crate) struct Trusted;

/// One call as if it came on such a connection; the body is null where the answer has none.
pub(crate) async fn post(routes: Router, path: String, key: Option<String>, body: String) -> (StatusCode, Value) {
    let mut request = hyper::Request::post(path).extension(Trusted);
    if let Some(key) = key {
        request = request.header("idempotency-key", key);
    }
    let Ok(request) = request.body(Body::from(body)) else { return (StatusCode::BAD_REQUEST, Value::Null) };
    let Ok(response) = TowerToHyperService::new(routes).call(request).await;
    let (head, body) = response.into_parts();
    let body = axum::body::to_bytes(body, ANSWER_BYTES).await.unwrap_or_default();
    (head.status, serde_json::from_slice(&body).unwrap_or_default())
}

async fn connection(stream: TcpStream, routes: Router, place: Place) {
    // Health answers are one small segment; waiting for more of them would only add delay.
    let _ = stream.set_nodelay(true);
    let _ = nix::sys::socket::setsockopt(&stream, nix::sys::socket::sockopt::TcpUserTimeout, &STALL_MILLIS);
    let mark = |request: &mut hyper::Request<Incoming>| {
        // One that becomes something else than HTTP has its place for as long as it lives.
        request.extensions_mut().insert(place.clone());
        place.keep()
    };
    tokio::select! {
        biased;
        () = place.given_away() => {}
        () = answer(stream, routes, mark) => {}
    }
}

/// Answer on one connection until it ends; `mark` puts on each request what belongs to the connection, and says whether there is to be
/// an answer: a connection that has lost its place is about to be closed.
pub(crate) async fn answer(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    routes: Router,
    mark: impl Fn(&mut hyper::Request<Incoming>) -> bool,
) {
    let routes = TowerToHyperService::new(routes);
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        let answer = mark(&mut request).then(|| routes.call(request));
        async move {
            match answer {
                Some(answer) => answer.await,
                None => std::future::pending().await,
            }
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection ended early");
    }
}
