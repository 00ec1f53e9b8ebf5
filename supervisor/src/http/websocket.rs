//! A request that becomes a WebSocket (RFC 6455, 4.2): the handshake is answered here, frames are the library's.

use std::future::Future;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use protocol::websocket;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use super::Place;
use super::reply::Problem;

/// The client's end.
pub(super) type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// A handshake that is right.
pub(super) struct Handshake {
    upgrade: OnUpgrade,
    accept: HeaderValue,
    place: Option<Place>,
}

impl Handshake {
    /// Check what the client sent: a handshake of version 13.
    pub(super) fn new(request: &mut Request) -> Result<Handshake, Problem> {
        let headers = request.headers();
        let is_upgrade = has_word(headers, &header::CONNECTION, "upgrade")
            && has_word(headers, &header::UPGRADE, "websocket")
            && request.version() == Version::HTTP_11;
        if !is_upgrade {
            return Err(needs("this path is a WebSocket", header::UPGRADE, "websocket"));
        }
        if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
            return Err(needs("only version 13 is spoken", header::SEC_WEBSOCKET_VERSION, "13"));
        }
        let accept = accept(headers)?;
        let place = request.extensions_mut().remove();
        Ok(Handshake { upgrade: hyper::upgrade::on(request), accept, place })
    }

    /// The answer; after it `talk` has the socket. The connection keeps its place among the others meanwhile.
    pub(super) fn answer<T>(self, config: WebSocketConfig, talk: impl FnOnce(Socket) -> T + Send + 'static) -> Response
    where
        T: Future<Output = ()> + Send,
    {
        let Handshake { upgrade, accept, place } = self;
        tokio::spawn(async move {
            // The client may have gone before it was answered.
            let Ok(upgraded) = upgrade.await else { return };
            let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
            talk(socket).await;
            drop(place);
        });
        let headers = [
            (header::CONNECTION, HeaderValue::from_static("upgrade")),
            (header::UPGRADE, HeaderValue::from_static("websocket")),
            (header::SEC_WEBSOCKET_ACCEPT, accept),
        ];
        (StatusCode::SWITCHING_PROTOCOLS, headers, Body::empty()).into_response()
    }
}

/// 426 says in a header what would be right (RFC 9110, 15.5.22).
fn needs(detail: &str, name: HeaderName, value: &'static str) -> Problem {
    Problem::new(StatusCode::UPGRADE_REQUIRED, detail).with(name, HeaderValue::from_static(value))
}

/// Headers of this kind are lists of words in any case.
fn has_word(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|listed| listed.trim().eq_ignore_ascii_case(word))
}

/// Proof that the key was read.
fn accept(headers: &HeaderMap) -> Result<HeaderValue, Problem> {
    let wrong = || Problem::field("Sec-WebSocket-Key", "is base64 of 16 bytes");
    let key = headers.get(header::SEC_WEBSOCKET_KEY).ok_or_else(wrong)?.as_bytes();
    if STANDARD.decode(key).ok().is_none_or(|bytes| bytes.len() != 16) {
        return Err(wrong());
    }
    HeaderValue::try_from(websocket::accept(key)).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_rfc_is_accepted() {
        let mut headers = HeaderMap::new();
        headers.insert(header::SEC_WEBSOCKET_KEY, HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ=="));
        assert_eq!(accept(&headers).expect("a key"), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        headers.insert(header::SEC_WEBSOCKET_KEY, HeaderValue::from_static("dGhlIHNhbXBsZQ=="));
        assert!(accept(&headers).is_err(), "too short");
    }

    #[test]
    fn words_are_found_in_lists_and_in_any_case() {
        let mut headers = HeaderMap::new();
        headers.append(header::CONNECTION, HeaderValue::from_static("keep-alive, Upgrade"));
        assert!(has_word(&headers, &header::CONNECTION, "upgrade"));
        assert!(!has_word(&headers, &header::CONNECTION, "close"));
    }
}
