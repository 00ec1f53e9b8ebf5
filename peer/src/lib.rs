//! Whom we call: an [`address`], its name resolved ([`names`]), TCP, and [`tls`] where it is asked for. And who calls us: [`listen`],
//! [`places`].
//!
//! What supervisor and gateway share when they call somebody, or are called. Nothing of it asks the C library for names, which a static
//! program cannot.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

pub mod address;
pub mod listen;
pub mod names;
pub mod places;
pub mod random;
pub mod tls;
pub mod untrusted;

pub use address::Address;

use names::{NameError, Names};
use tls::TlsError;

/// One address of several.
const CONNECT: Duration = Duration::from_secs(5);
/// Bytes under way that nobody confirms for so long: the peer is gone (tcp(7)). The kernel's own patience is 15 minutes.
const UNCONFIRMED_MILLIS: u32 = 20_000;

/// TCP, with or without a tunnel in it or TLS over it. One type, because what speaks over it is large.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum PeerError {
    #[error(transparent)]
    Name(#[from] NameError),
    #[error("{address} cannot be reached")]
    Connect { address: SocketAddr, source: io::Error },
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl PeerError {
    /// The word in metrics and logs.
    pub fn name(&self) -> &'static str {
        match self {
            PeerError::Name(_) => "name",
            PeerError::Connect { .. } => "connect",
            PeerError::Tls(_) => "tls",
        }
    }
}

/// One address of `host` after the other, beginning anywhere: a fleet spreads over them, and one that is dead costs each
/// caller some of its dials and not all.
pub async fn tcp(names: &Names, host: &str, port: u16) -> Result<TcpStream, PeerError> {
    let mut addresses = names.resolve(host).await?;
    let begin = random::bits() as usize % addresses.len().max(1);
    addresses.rotate_left(begin);
    let mut last = PeerError::Name(NameError::Unknown(host.into()));
    for address in addresses {
        let address = SocketAddr::new(address, port);
        let connected = timeout(CONNECT, TcpStream::connect(address)).await;
        match connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(stream) => {
                // What is said is short; waiting for more would only delay it.
                let _ = stream.set_nodelay(true);
                let _ = sockopt::set_tcp_user_timeout(&stream, UNCONFIRMED_MILLIS);
                return Ok(stream);
            }
            Err(source) => last = PeerError::Connect { address, source },
        }
    }
    Err(last)
}
