//! A connection to the gateway.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Address, ClientError, Context, tls};

/// For one address, handshake of TLS included.
const CONNECT: Duration = Duration::from_secs(10);
/// A follower may hear nothing for hours. A machine that has gone without a goodbye is found by probes (tcp(7)).
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(20), Duration::from_secs(5), 4);

/// Plain or by TLS.
pub(super) trait Line: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Line for T {}

/// A connection; every address of a name is tried.
pub(super) async fn connect(context: &Context) -> Result<Box<dyn Line>, ClientError> {
    let address = &context.address;
    let unreachable = |source| ClientError::Unreachable { address: address.to_string(), source };
    let mut failure = io::Error::from(io::ErrorKind::NotFound);
    for peer in peers(address).await.map_err(unreachable)? {
        match timeout(CONNECT, open(context, peer)).await {
            Ok(Ok(line)) => return Ok(line),
            // The next address has the same certificate.
            Ok(Err(error @ ClientError::Tls { .. })) => return Err(error),
            Ok(Err(ClientError::Unreachable { source, .. })) => failure = source,
            Ok(Err(error)) => return Err(error),
            Err(_) => failure = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(unreachable(failure))
}

async fn open(context: &Context, peer: SocketAddr) -> Result<Box<dyn Line>, ClientError> {
    let address = &context.address;
    let stream = TcpStream::connect(peer)
        .await
        .map_err(|source| ClientError::Unreachable { address: address.to_string(), source })?;
    // Both only make things better; a stream without them works.
    let _ = stream.set_nodelay(true);
    let _ = keep_alive(&stream);
    if !address.tls {
        return Ok(Box::new(stream));
    }
    let session = tls::connect(&address.host, context.ca_file.as_deref(), stream).await;
    Ok(Box::new(session.map_err(|source| ClientError::Tls { address: address.to_string(), source })?))
}

fn keep_alive(stream: &TcpStream) -> rustix::io::Result<()> {
    let (idle, interval, count) = KEEPALIVE;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, idle)?;
    sockopt::set_tcp_keepintvl(stream, interval)?;
    sockopt::set_tcp_keepcnt(stream, count)
}

/// Numeric addresses and this machine need no name service, which a static program may not have.
async fn peers(address: &Address) -> io::Result<Vec<SocketAddr>> {
    if let Ok(literal) = address.host.parse::<IpAddr>() {
        return Ok(vec![(literal, address.port).into()]);
    }
    if address.host == "localhost" {
        return Ok(vec![(Ipv4Addr::LOCALHOST, address.port).into(), (Ipv6Addr::LOCALHOST, address.port).into()]);
    }
    Ok(tokio::net::lookup_host((address.host.as_str(), address.port)).await?.collect())
}
