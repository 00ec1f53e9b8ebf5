//! Stands before several gateways: each new connection goes to the next of them, and past one that does not take it.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// Where supervisors dial. It goes on for as long as the test's process.
pub struct Balancer {
    /// Where it listens.
    pub address: SocketAddr,
    gateways: Arc<Mutex<Vec<SocketAddr>>>,
}

impl Balancer {
    /// Before these gateways.
    pub fn before(gateways: &[SocketAddr]) -> Balancer {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let address = listener.local_addr().expect("it is bound");
        let gateways = Arc::new(Mutex::new(gateways.to_vec()));
        let (behind, turn) = (gateways.clone(), AtomicUsize::new(0));
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let behind = behind.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let first = turn.fetch_add(1, Ordering::Relaxed);
                let next = (0..behind.len()).map(|n| behind[(first + n) % behind.len()]);
                // A client whose connection nobody takes sees it closed.
                if let Some(gateway) = next.into_iter().find_map(|address| TcpStream::connect(address).ok()) {
                    let _ = join(client, gateway);
                }
            }
        });
        Balancer { address, gateways }
    }

    /// From now on before these; what is connected stays.
    pub fn now_before(&self, gateways: &[SocketAddr]) {
        *self.gateways.lock().unwrap_or_else(PoisonError::into_inner) = gateways.to_vec();
    }
}

/// Bytes both ways, until one side has ended.
fn join(client: TcpStream, gateway: TcpStream) -> io::Result<()> {
    for stream in [&client, &gateway] {
        stream.set_nodelay(true)?;
    }
    let both = [(client.try_clone()?, gateway.try_clone()?), (gateway, client)];
    for (mut from, mut to) in both {
        thread::spawn(move || {
            let _ = io::copy(&mut from, &mut to);
            let _ = from.shutdown(Shutdown::Both);
            let _ = to.shutdown(Shutdown::Both);
        });
    }
    Ok(())
}
