//! What can go wrong between a client and its gateway, and what helps.

use std::io;
use std::path::{Path, PathBuf};

use axum::http::StatusCode;
use peer::tls::TlsError;
use peer::{Address, PeerError};
use protocol::words::printable;

use super::Context;
use crate::exit;

/// Why a request has no answer. No token is ever in it.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ClientError {
    #[error(
        "the gateway at {address} cannot be reached; is it running? `gateway dev` starts one here, GATEWAY_URL names another"
    )]
    Unreachable { address: String, source: Box<PeerError> },
    #[error("the gateway at {address} gives no answer")]
    Silent { address: String },
    #[error("the connection to the gateway broke off")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("no TLS with the gateway at {address}")]
    Tls { address: String, source: Box<TlsError> },
    #[error("the answer of {address} is none of a gateway's: {problem}")]
    Strange { address: String, problem: String },
    #[error("what sandbox or gateway says is none of theirs: {0}")]
    Nonsense(&'static str),
    #[error("the token file {path} cannot be read")]
    TokenFile { path: PathBuf, source: io::Error },
    #[error("the token file {path} cannot be used: {problem}")]
    Token { path: PathBuf, problem: &'static str },
    #[error("{0}")]
    Refused(Refusal),
    #[error(
        "sandbox {sandbox} no longer knows task {task} and has told nothing of its end: it was lost with what the sandbox had"
    )]
    Forgotten { sandbox: String, task: String },
}

impl ClientError {
    /// The way to the gateway is broken.
    pub fn broken(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ClientError {
        ClientError::Broken(source.into())
    }

    /// An answer that is not what was asked for. What is wrong with it may quote it.
    pub(crate) fn strange(address: &Address, error: &serde_json::Error) -> ClientError {
        ClientError::Strange { address: address.to_string(), problem: printable(&error.to_string()) }
    }

    pub(super) fn token(path: &Path, problem: &'static str) -> ClientError {
        ClientError::Token { path: path.into(), problem }
    }

    /// Nothing is wrong with the request: the gateway, or the sandbox behind it, may be there again soon.
    pub fn is_away(&self) -> bool {
        match self {
            ClientError::Unreachable { .. } | ClientError::Silent { .. } | ClientError::Broken(_) => true,
            ClientError::Refused(refusal) => matches!(refusal.status.as_u16(), 429 | 502 | 503 | 504),
            _ => false,
        }
    }

    /// The gateway said this.
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            ClientError::Refused(refusal) => Some(refusal.status),
            _ => None,
        }
    }

    /// The exit code that a program can act on.
    pub fn code(&self) -> u8 {
        match self {
            ClientError::Unreachable { .. } | ClientError::Silent { .. } | ClientError::Broken(_) => exit::UNAVAILABLE,
            ClientError::Tls { .. } | ClientError::TokenFile { .. } | ClientError::Token { .. } => exit::CONFIGURATION,
            ClientError::Strange { .. } | ClientError::Nonsense(_) | ClientError::Forgotten { .. } => exit::INTERNAL,
            ClientError::Refused(refusal) => match refusal.status.as_u16() {
                401 | 403 => exit::CONFIGURATION,
                429 | 507 => exit::TEMPORARY,
                501..=504 => exit::UNAVAILABLE,
                400..=499 => exit::USAGE,
                _ => exit::INTERNAL,
            },
        }
    }
}

/// The gateway, or a sandbox behind it, said no.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Its status.
    pub status: StatusCode,
    /// Its reason, and what to do where we know.
    pub detail: String,
}

impl Refusal {
    /// From an answer: a problem (RFC 9457), or anything else that speaks HTTP.
    pub(crate) fn read(status: StatusCode, body: &[u8], context: &Context) -> Refusal {
        let problem: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
        let detail = problem["detail"].as_str().map(printable);
        let detail = match (status.as_u16(), detail) {
            (401, detail) => {
                let said = detail.unwrap_or_else(|| "unauthorized".into());
                format!("the token in {} is refused: {said}", context.token_file.display())
            }
            (_, Some(detail)) => detail,
            (code, None) => format!("{} answers with status {code}", context.address),
        };
        Refusal { status, detail }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.detail)
    }
}
