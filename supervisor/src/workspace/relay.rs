//! The relay: who applies an approved patch to where the workspace came from.
//!
//! Its address comes from the settings alone. It is `https`, with the certificate checked as in [`peer::tls`], or `http` on
//! this machine; redirects are not followed; each call has the bearer token and the key that makes it count once. What is
//! not known is called unknown.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, Request, StatusCode, Uri, header};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use peer::Stream;
use peer::names::Names;
use peer::tls::{self, Tls};
use protocol::task::{ApplyState, Task};
use protocol::words::printable;
use tokio::time::timeout;

use crate::bearer;
use crate::config::Reader;
use crate::exit;
use crate::streaming;

const CONNECT: Duration = Duration::from_secs(10);
/// A relay may have to clone, apply and push.
const ANSWER: Duration = Duration::from_secs(120);
/// Kept of what it says.
const MAX_WORDS: usize = 1024;

/// A configured relay.
pub struct Relay {
    uri: Uri,
    token: Token,
    /// For `https`.
    tls: Option<Arc<Tls>>,
}

enum Token {
    None,
    File(PathBuf),
    Text(String),
}

/// Without the token.
impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay").field("uri", &self.uri).finish_non_exhaustive()
    }
}

/// One patch to apply.
pub struct Call {
    /// Its bytes.
    pub patch: PathBuf,
    /// How many.
    pub bytes: u64,
    /// Their digest.
    pub sha256: String,
    /// Makes it count once.
    pub key: String,
}

impl Relay {
    /// From the settings `relay_*`; what the agent must not touch of them was read before.
    pub fn read(reader: &mut Reader<'_>, token_file: Option<PathBuf>, ca_file: Option<PathBuf>) -> Option<Relay> {
        let uri = reader.optional("relay_url", address);
        let text = reader.optional("relay_token", crate::config::parse::text);
        let token = match (token_file, text) {
            (Some(_), Some(_)) => {
                reader.mistake(reader.origin("relay_token"), "and a token file exclude each other");
                Token::None
            }
            (Some(path), None) => Token::File(path),
            (None, Some(text)) => Token::Text(text.trim().into()),
            (None, None) => Token::None,
        };
        uri.map(|uri| {
            let tls = tls::Config { ca_file, identity: None };
            let tls = (uri.scheme_str() == Some("https")).then(|| Tls::new(tls));
            Relay { uri, token, tls }
        })
    }

    /// Call it; its answer in a state and in words.
    pub async fn apply(&self, task: &Task, call: &Call) -> (ApplyState, String) {
        let request = match self.request(task, call) {
            Ok(request) => request,
            Err(why) => return (ApplyState::Refused, format!("nothing was sent: {why}")),
        };
        let stream = match timeout(CONNECT, self.connect()).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(why)) => {
                return (ApplyState::Refused, format!("the relay cannot be reached, nothing was sent: {why}"));
            }
            Err(_) => return (ApplyState::Refused, "the relay cannot be reached in time, nothing was sent".into()),
        };
        match timeout(ANSWER, exchange(stream, request)).await {
            Ok(Ok((status, words))) => (state(status), format!("{status}: {words}")),
            Ok(Err(e)) => (ApplyState::Unknown, format!("the relay was called and gave no whole answer: {e}")),
            Err(_) => (ApplyState::Unknown, format!("the relay gave no answer within {}s", ANSWER.as_secs())),
        }
    }

    fn request(&self, task: &Task, call: &Call) -> Result<Request<Body>, String> {
        let path = self.uri.path_and_query().map_or("/", |path| path.as_str());
        let host = self.uri.authority().map_or("", |authority| authority.as_str());
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(header::HOST, host)
            .header(header::CONTENT_TYPE, "text/x-diff")
            .header(header::CONTENT_LENGTH, call.bytes)
            .header(header::CONNECTION, "close")
            .header("idempotency-key", &call.key)
            .header("patch-sha256", &call.sha256)
            .header("task-id", &task.task_id)
            .header("backend-run-id", &task.runtime.backend_run_id);
        if let Some(token) = self.token()? {
            let value = bearer::header(&token).ok_or("the token has bytes that no header may have")?;
            request = request.header(header::AUTHORIZATION, value);
        }
        let file = std::fs::File::open(&call.patch).map_err(|e| format!("the patch cannot be read: {e}"))?;
        request.body(streaming::file(file)).map_err(|e| e.to_string())
    }

    /// Read anew for each call, because the kubelet replaces it.
    fn token(&self) -> Result<Option<String>, String> {
        match &self.token {
            Token::None => Ok(None),
            Token::Text(text) => Ok(Some(text.clone())),
            Token::File(path) => {
                let token = bearer::read(path).map_err(|e| format!("the token file cannot be read: {e}"))?;
                if token.is_empty() { Err("the token file is empty".into()) } else { Ok(Some(token)) }
            }
        }
    }

    async fn connect(&self) -> Result<Box<dyn Stream>, String> {
        let host = self.uri.host().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = self.uri.port_u16().unwrap_or(if self.tls.is_some() { 443 } else { 80 });
        let stream = peer::tcp(&Names::default(), host, port).await.map_err(|e| exit::reason(&e))?;
        match &self.tls {
            // The name is the operator's, so the certificate is checked against what was meant.
            Some(tls) => Ok(Box::new(tls.connect(host, stream).await.map_err(|e| exit::reason(&e))?)),
            None => Ok(Box::new(stream)),
        }
    }
}

/// `https`, or `http` to this machine: a token must not travel in the open.
pub(crate) fn address(text: &str) -> Result<Uri, String> {
    // Nothing of it is repeated: it may have a password in it, also behind a question mark.
    let uri: Uri =
        text.parse().map_err(|e| format!("is not a URL ({e}); write for instance https://relay.example/apply"))?;
    let host = uri.host().unwrap_or_default();
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err("has a name or password in it; use SUPERVISOR_RELAY_TOKEN_FILE".into());
    }
    peer::address::port(&uri).map_err(|error| error.to_string())?;
    let loopback = host == "localhost" || literal(host).is_some_and(|address| address.is_loopback());
    match uri.scheme_str() {
        Some("https") if !host.is_empty() => Ok(uri),
        Some("http") if loopback => Ok(uri),
        Some("http") => Err("is http to another machine; use https, or a relay on 127.0.0.1".into()),
        _ => Err("is neither https nor http; write for instance https://relay.example/apply".into()),
    }
}

fn literal(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// Its answer: status, and the beginning of its words.
pub(crate) async fn exchange(
    stream: Box<dyn Stream>,
    request: Request<Body>,
) -> Result<(StatusCode, String), hyper::Error> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let response = sender.send_request(request).await?;
    let status = response.status();
    // The status is the answer; what cannot be read of the words is not told.
    let words = streaming::beginning(Body::new(response.into_body()), MAX_WORDS).await;
    driver.abort();
    Ok((status, printable(&String::from_utf8_lossy(&words)).trim().into()))
}

/// Success is success. A clear no is a no, and so is a redirect, which is not followed. The rest says nothing about
/// what was done.
pub(crate) fn state(status: StatusCode) -> ApplyState {
    match status.as_u16() {
        200..=299 => ApplyState::Applied,
        408 | 425 | 429 => ApplyState::Unknown,
        300..=499 => ApplyState::Refused,
        _ => ApplyState::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_https_and_this_machine_are_taken() {
        for good in ["https://relay.example/apply", "http://127.0.0.1:81/x", "http://[::1]:1", "http://localhost:9/a?b"]
        {
            assert!(address(good).is_ok(), "{good}");
        }
        for bad in [
            "http://relay.example/",
            "http://10.0.0.1/",
            "http://127.0.0.1.example/",
            "http://localhost.example/",
            "http://user:secret@127.0.0.1/",
            "ftp://127.0.0.1/",
            "127.0.0.1:80",
            "https://relay.example:99999/",
            "/apply",
            "",
        ] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_password_in_a_broken_address_is_not_repeated() {
        // A `#` ends what is read of a URL.
        for bad in [
            "https://ann:s3cret@relay example/",
            "https://ann:s3cret@relay.example/",
            "/apply#https://ann:s3cret@relay.example/",
        ] {
            assert!(!address(bad).expect_err(bad).contains("s3cret"), "{bad}");
        }
    }

    #[test]
    fn only_a_clear_answer_is_taken_for_one() {
        let of = |code| state(StatusCode::from_u16(code).expect("a status"));
        assert_eq!([200, 204].map(of), [ApplyState::Applied; 2]);
        assert_eq!([301, 400, 401, 409, 422].map(of), [ApplyState::Refused; 5]);
        assert_eq!([408, 429, 500, 502, 503].map(of), [ApplyState::Unknown; 5]);
    }
}
