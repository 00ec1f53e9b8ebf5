//! Plain HTTP to a gateway that speaks TLS, for those of the run that ask as clients: numbers, events, probes. Sandboxes dial by TLS themselves.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Where to ask; for as long as this process runs.
pub(super) fn door(gateway: SocketAddr, client: Arc<ClientConfig>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let address = listener.local_addr().expect("it is bound");
    listener.set_nonblocking(true).expect("a socket");
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a thread and a few descriptors").block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a runtime");
            loop {
                if let Ok((asker, _)) = listener.accept().await {
                    tokio::spawn(carry(asker, gateway, client.clone()));
                }
            }
        });
    });
    address
}

/// Whoever is not let through sees the connection closed.
async fn carry(mut asker: TcpStream, gateway: SocketAddr, client: Arc<ClientConfig>) -> std::io::Result<()> {
    let stream = TcpStream::connect(gateway).await?;
    stream.set_nodelay(true)?;
    asker.set_nodelay(true)?;
    let mut stream = TlsConnector::from(client).connect(ServerName::from(gateway.ip()), stream).await?;
    tokio::io::copy_bidirectional(&mut asker, &mut stream).await?;
    Ok(())
}
