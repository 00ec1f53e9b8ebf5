//! The listener: every connection is HTTP/1.1 with time limits; sessions leave it by their upgrade.
//!
//! Promises: TLS where there is a certificate, its handshake within 5 s; a head of at most 16 KiB within 5 s; at most [`CONNECTIONS`] at
//! once that are no sessions ([`peer::places`]); a panic in a request closes that connection only; on a stop nothing new is accepted and what is being answered is finished.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use peer::places::{Place, Places};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::metrics::Metrics;
use crate::tls::Identity;

/// Connections at once that are no sessions.
const CONNECTIONS: usize = 3072;
/// A request head takes longer only from somebody who holds a connection open on purpose.
const HEAD_TIME: Duration = Duration::from_secs(5);
/// From the connection to TLS.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// hyper's read buffer, and so the largest head.
const HEAD_BYTES: usize = 16 * 1024;

/// Serve until `stop` says so; then until every request is answered.
pub async fn serve(
    listener: TcpListener,
    identity: Option<Identity>,
    routes: Router,
    metrics: Arc<Metrics>,
    stop: watch::Receiver<bool>,
) {
    let places = Places::new(CONNECTIONS);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stopped(stop.clone()) => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            // Out of descriptors or memory: the next may fare better, after others have closed.
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let admitted = places.admit(|| _ = metrics.connections_refused.inc()).await;
        let Some(place) = admitted else { continue };
        // Answers are small; waiting for more of them would only add delay.
        let _ = stream.set_nodelay(true);
        let (routes, stop) = (routes.clone(), stop.clone());
        let acceptor = identity.as_ref().map(Identity::acceptor);
        tokio::spawn(async move {
            let served = async {
                match acceptor {
                    None => connection(stream, routes, &place, stop).await,
                    // On the heap, so that a connection without TLS has not the room that one with it takes.
                    Some(acceptor) => Box::pin(secured(acceptor, stream, routes, &place, stop)).await,
                }
            };
            tokio::select! {
                biased;
                () = place.given_away() => {}
                () = served => {}
            }
        });
    }
    drop(listener);
    places.all_free().await;
}

/// Answer on one connection; until it has ended, or is a session's.
pub async fn connection<S>(stream: S, routes: Router, place: &Place, stop: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let routes = TowerToHyperService::new(routes);
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let answer = place.keep().then(|| routes.call(request));
        async move {
            match answer {
                Some(answer) => answer.await,
                // It has lost its place, and is about to be closed.
                None => std::future::pending().await,
            }
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let served = tokio::select! {
        biased;
        served = connection.as_mut() => served,
        () = stopped(stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// The same behind a handshake.
async fn secured(acceptor: TlsAcceptor, stream: TcpStream, routes: Router, place: &Place, stop: watch::Receiver<bool>) {
    match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => connection(stream, routes, place, stop).await,
        Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
        Err(_) => tracing::debug!("a TLS handshake took too long"),
    }
}

async fn stopped(mut stop: watch::Receiver<bool>) {
    // A sender that is gone has stopped too.
    let _ = stop.wait_for(|stop| *stop).await;
}
