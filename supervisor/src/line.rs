//! A line to somebody whom the supervisor calls, the gateway or the relay: name, then TCP, then TLS where it is asked for.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::backoff::random_bits;
use crate::names::{NameError, Names};
use crate::tls::TlsError;

/// One address of several.
const CONNECT: Duration = Duration::from_secs(5);
/// Bytes under way that nobody confirms for so long: the peer is gone (tcp(7)). The kernel's own patience is 15 minutes.
const UNCONFIRMED_MILLIS: u32 = 20_000;

/// TCP, with or without a tunnel in it or TLS over it. One type, because what speaks over it is large.
pub(crate) trait Line: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Line for S {}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub(crate) enum LineError {
    #[error(transparent)]
    Name(#[from] NameError),
    #[error("{address} cannot be reached")]
    Connect { address: SocketAddr, source: io::Error },
    #[error("`{0}` has no address")]
    Nowhere(String),
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl LineError {
    /// The word in metrics and logs.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            LineError::Name(_) | LineError::Nowhere(_) => "name",
            LineError::Connect { .. } => "connect",
            LineError::Tls(_) => "tls",
        }
    }
}

/// One address of `host` after the other, beginning anywhere: a fleet spreads over them, and one that is dead costs each
/// supervisor some of its dials and not all.
pub(crate) async fn tcp(names: &Names, host: &str, port: u16) -> Result<TcpStream, LineError> {
    let mut addresses = names.resolve(host).await?;
    let begin = random_bits() as usize % addresses.len().max(1);
    addresses.rotate_left(begin);
    let mut last = LineError::Nowhere(host.into());
    for address in addresses {
        let address = SocketAddr::new(address, port);
        let connected = timeout(CONNECT, TcpStream::connect(address)).await;
        match connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(stream) => {
                // What is said is short; waiting for more would only delay it.
                let _ = stream.set_nodelay(true);
                let _ = setsockopt(&stream, sockopt::TcpUserTimeout, &UNCONFIRMED_MILLIS);
                return Ok(stream);
            }
            Err(source) => last = LineError::Connect { address, source },
        }
    }
    Err(last)
}
