//! A client of the gateway's API: for people at a terminal, and for `gateway dev` itself.
//!
//! Promises: each request has a connection of its own; the token is read from its file for each, and is in no message and no
//! log line; it travels by TLS, or to this machine, or where it was said that the network is trusted; no redirect is followed;
//! an error says whether the gateway is only away, so that a follower can wait for it.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
pub use peer::Address;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

pub mod attach;
mod connect;
pub mod context;
mod error;
pub(crate) mod events;
pub mod follow;
pub mod patience;
pub mod results;

pub use context::Context;
pub use error::{ClientError, Refusal};

/// From the request to the head of its answer; the longest `wait` of a task fits.
pub const HEAD: Duration = Duration::from_secs(90);
/// A longer answer than this is read as a stream or not at all.
const MAX_ANSWER: usize = 32 * 1024 * 1024;
/// Of a token file.
const MAX_TOKEN: u64 = 64 * 1024;

/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    context: Arc<Context>,
}

impl Client {
    /// Of this gateway.
    pub fn new(context: Context) -> Client {
        Client { context: Arc::new(context) }
    }

    /// Which gateway.
    pub fn address(&self) -> &Address {
        &self.context.address
    }

    /// Send a request, whose URI is a path, and take the answer where it is a success; its body comes as it is read.
    pub async fn send(&self, request: Request<Vec<u8>>) -> Result<Response<Body>, ClientError> {
        self.send_within(request, HEAD).await
    }

    /// The same, where the answer may take longer to begin.
    pub async fn send_within(&self, request: Request<Vec<u8>>, head: Duration) -> Result<Response<Body>, ClientError> {
        let response = self.exchange(request, head).await?;
        if response.status().is_success() || response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(response);
        }
        Err(self.refusal(response).await)
    }

    /// The same, and the whole answer as a value.
    pub async fn ask<T: DeserializeOwned>(&self, request: Request<Vec<u8>>) -> Result<T, ClientError> {
        let response = self.send(request).await?;
        self.read(response).await
    }

    /// The whole of an answer as a value.
    pub async fn read<T: DeserializeOwned>(&self, response: Response<Body>) -> Result<T, ClientError> {
        let bytes = to_bytes(response.into_body(), MAX_ANSWER).await.map_err(ClientError::broken)?;
        serde_json::from_slice(&bytes).map_err(|error| ClientError::strange(&self.context.address, &error))
    }

    /// GET.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.ask(request("GET", path)).await
    }

    async fn exchange(&self, request: Request<Vec<u8>>, head: Duration) -> Result<Response<Body>, ClientError> {
        let request = self.complete(request)?;
        let stream = connect::connect(&self.context).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(ClientError::broken)?;
        // It ends with its last body, or when both of its users have gone.
        tokio::spawn(connection.with_upgrades());
        match timeout(head, sender.send_request(request)).await {
            Ok(response) => Ok(response.map_err(ClientError::broken)?.map(Body::new)),
            Err(_) => Err(ClientError::Silent { address: self.context.address.to_string() }),
        }
    }

    /// Host, token and the base path of the address.
    fn complete(&self, request: Request<Vec<u8>>) -> Result<Request<Body>, ClientError> {
        let address = &self.context.address;
        let (mut parts, body) = request.into_parts();
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        parts.uri = format!("{}{path}", address.base).parse().map_err(ClientError::broken)?;
        let mut authorization = HeaderValue::try_from(format!("Bearer {}", self.token()?))
            .map_err(|_| ClientError::token(&self.context.token_file, "it has bytes that no header may have"))?;
        authorization.set_sensitive(true);
        parts.headers.insert(header::AUTHORIZATION, authorization);
        let host = HeaderValue::try_from(&address.authority).map_err(ClientError::broken)?;
        parts.headers.insert(header::HOST, host);
        if !parts.headers.contains_key(header::CONNECTION) {
            parts.headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(Request::from_parts(parts, Body::from(body)))
    }

    fn token(&self) -> Result<String, ClientError> {
        let path = &self.context.token_file;
        let mut text = String::new();
        std::fs::File::open(path)
            .and_then(|file| std::io::Read::read_to_string(&mut std::io::Read::take(file, MAX_TOKEN), &mut text))
            .map_err(|source| ClientError::TokenFile { path: path.clone(), source })?;
        match text.trim() {
            "" => Err(ClientError::token(path, "it is empty")),
            token => Ok(token.to_string()),
        }
    }

    async fn refusal(&self, response: Response<Body>) -> ClientError {
        let status = response.status();
        let body = to_bytes(response.into_body(), 64 * 1024).await.unwrap_or_default();
        ClientError::Refused(Refusal::read(status, &body, &self.context))
    }
}

/// A request without a body.
pub fn request(method: &str, path: &str) -> Request<Vec<u8>> {
    with_body(method, path, Vec::new())
}

/// A request with this body.
pub fn with_body(method: &str, path: &str, body: Vec<u8>) -> Request<Vec<u8>> {
    let mut request = Request::new(body);
    *request.method_mut() = method.parse().unwrap_or_default();
    // A path that is none is refused by the gateway; paths here are made of checked names.
    *request.uri_mut() = path.parse().unwrap_or_default();
    request
}
