//! Where the sandboxes of a process dial when gateways come and go: what a Service is in a cluster. Each new connection goes to the next
//! gateway, and past one that does not take it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::{TcpListener, TcpStream};

/// Held of what goes each way: beats and records are small, and there are thousands.
const CHUNK: usize = 2048;

/// It is open for as long as the runtime.
pub(super) struct Door {
    pub(super) address: SocketAddr,
    gateways: Arc<Mutex<Vec<SocketAddr>>>,
}

impl Door {
    /// Before these.
    pub(super) async fn before(gateways: Vec<SocketAddr>) -> Door {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let address = listener.local_addr().expect("it is bound");
        let gateways = Arc::new(Mutex::new(gateways));
        tokio::spawn(accept(listener, gateways.clone()));
        Door { address, gateways }
    }

    /// From now on before these; what is connected stays.
    pub(super) fn now_before(&self, gateways: Vec<SocketAddr>) {
        *self.gateways.lock().unwrap_or_else(PoisonError::into_inner) = gateways;
    }
}

async fn accept(listener: TcpListener, gateways: Arc<Mutex<Vec<SocketAddr>>>) {
    for turn in 0.. {
        let Ok((client, _)) = listener.accept().await else { continue };
        let behind = gateways.lock().unwrap_or_else(PoisonError::into_inner).clone();
        tokio::spawn(async move {
            // Whom nobody takes sees the connection closed.
            let Some(gateway) = next(&behind, turn).await else { return };
            let _ = carry(client, gateway).await;
        });
    }
}

async fn next(gateways: &[SocketAddr], turn: usize) -> Option<TcpStream> {
    for n in 0..gateways.len() {
        if let Ok(stream) = TcpStream::connect(gateways[(turn + n) % gateways.len()]).await {
            return Some(stream);
        }
    }
    None
}

async fn carry(mut client: TcpStream, mut gateway: TcpStream) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    gateway.set_nodelay(true)?;
    copy_bidirectional_with_sizes(&mut client, &mut gateway, CHUNK, CHUNK).await?;
    Ok(())
}
