//! A connection to the gateway.

use std::time::Duration;

use peer::names::Names;
use peer::tls::{self, Tls};
use peer::{PeerError, Stream};
use rustix::net::sockopt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{ClientError, Context};

/// The handshake of TLS.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// A follower may hear nothing for hours. A machine that has gone without a goodbye is found by probes (tcp(7)).
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(20), Duration::from_secs(5), 4);

/// A connection, plain or by TLS.
pub(super) async fn connect(context: &Context) -> Result<Box<dyn Stream>, ClientError> {
    let address = &context.address;
    let failed = |error| match error {
        PeerError::Tls(source) => ClientError::Tls { address: address.to_string(), source: source.into() },
        other => ClientError::Unreachable { address: address.to_string(), source: other.into() },
    };
    let stream = peer::tcp(&Names::default(), &address.host, address.port).await.map_err(failed)?;
    // It only makes things better; a stream without it works.
    let _ = keep_alive(&stream);
    if !address.tls {
        return Ok(Box::new(stream));
    }
    let tls = Tls::new(tls::Config { ca_file: context.ca_file.clone(), identity: None });
    match timeout(HANDSHAKE, tls.connect(&address.host, stream)).await {
        Ok(session) => Ok(Box::new(session.map_err(|error| failed(error.into()))?)),
        Err(_) => Err(ClientError::Silent { address: address.to_string() }),
    }
}

fn keep_alive(stream: &TcpStream) -> rustix::io::Result<()> {
    let (idle, interval, count) = KEEPALIVE;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, idle)?;
    sockopt::set_tcp_keepintvl(stream, interval)?;
    sockopt::set_tcp_keepcnt(stream, count)
}
