//! Stands before several servers: each new connection goes to the next of them, and past one that does not take it. It can be told to
//! drop everything without a word, as a network may.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// It goes on for as long as the test's process.
pub struct Balancer {
    /// Where it listens.
    pub address: SocketAddr,
    servers: Arc<Mutex<Vec<SocketAddr>>>,
    cut: Arc<AtomicBool>,
}

impl Balancer {
    /// Before these servers.
    pub fn before(servers: &[SocketAddr]) -> Balancer {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let address = listener.local_addr().expect("it is bound");
        let (servers, cut) = (Arc::new(Mutex::new(servers.to_vec())), Arc::new(AtomicBool::new(false)));
        let (behind, silent, turn) = (servers.clone(), cut.clone(), AtomicUsize::new(0));
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let behind = behind.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let first = turn.fetch_add(1, Ordering::Relaxed);
                let mut next = (0..behind.len()).map(|n| behind[(first + n) % behind.len()]);
                // A client whose connection nobody takes sees it closed.
                if let Some(server) = next.find_map(|address| TcpStream::connect(address).ok()) {
                    let _ = join(client, server, &silent);
                }
            }
        });
        Balancer { address, servers, cut }
    }

    /// From now on before these; what is connected stays.
    pub fn now_before(&self, servers: &[SocketAddr]) {
        *self.servers.lock().unwrap_or_else(PoisonError::into_inner) = servers.to_vec();
    }

    /// Connections are taken, and nothing passes any more.
    pub fn cut(&self) {
        self.cut.store(true, Ordering::Relaxed);
    }

    /// What was held back passes, and all that comes.
    pub fn mend(&self) {
        self.cut.store(false, Ordering::Relaxed);
    }
}

/// Bytes both ways, until one side has ended.
fn join(client: TcpStream, server: TcpStream, cut: &Arc<AtomicBool>) -> io::Result<()> {
    for stream in [&client, &server] {
        stream.set_nodelay(true)?;
    }
    let both = [(client.try_clone()?, server.try_clone()?), (server, client)];
    for (mut from, mut to) in both {
        let cut = cut.clone();
        thread::spawn(move || {
            let _ = pass(&mut from, &mut to, &cut);
            let _ = from.shutdown(Shutdown::Both);
            let _ = to.shutdown(Shutdown::Both);
        });
    }
    Ok(())
}

fn pass(from: &mut TcpStream, to: &mut TcpStream, cut: &AtomicBool) -> io::Result<()> {
    let mut bytes = [0; 64 * 1024];
    loop {
        let count = from.read(&mut bytes)?;
        // Neither bytes nor an end pass.
        while cut.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(5));
        }
        if count == 0 {
            return Ok(());
        }
        to.write_all(&bytes[..count])?;
    }
}
