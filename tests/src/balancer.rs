//! Stands before several servers: each new connection goes to the next of them, and past one that does not take it. It can be told to
//! drop everything without a word, to reset what is open, and to be slow, as a network may.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// The first byte of a connection by TLS: a handshake's (RFC 8446, 5.1).
const HANDSHAKE: u8 = 22;
/// What passes at once where it is slow.
const SLOW: usize = 1024;

/// It goes on for as long as the test's process.
pub struct Balancer {
    /// Where it listens.
    pub address: SocketAddr,
    servers: Arc<Mutex<Vec<SocketAddr>>>,
    way: Arc<Way>,
}

/// How bytes pass.
#[derive(Default)]
struct Way {
    cut: AtomicBool,
    /// Between two pieces; 0 where it is not slow.
    lag_ms: AtomicU64,
    taken: AtomicUsize,
    plain: AtomicUsize,
    /// By the connection's number; none that has ended.
    open: Mutex<BTreeMap<usize, [TcpStream; 2]>>,
}

impl Balancer {
    /// Before these servers.
    pub fn before(servers: &[SocketAddr]) -> Balancer {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let address = listener.local_addr().expect("it is bound");
        let (servers, way) = (Arc::new(Mutex::new(servers.to_vec())), Arc::new(Way::default()));
        let (behind, passing, turn) = (servers.clone(), way.clone(), AtomicUsize::new(0));
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let behind = behind.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let first = turn.fetch_add(1, Ordering::Relaxed);
                let mut next = (0..behind.len()).map(|n| behind[(first + n) % behind.len()]);
                // A client whose connection nobody takes sees it closed.
                if let Some(server) = next.find_map(|address| TcpStream::connect(address).ok()) {
                    let number = passing.taken.fetch_add(1, Ordering::Relaxed);
                    let _ = join(number, client, server, &passing);
                }
            }
        });
        Balancer { address, servers, way }
    }

    /// From now on before these; what is connected stays.
    pub fn now_before(&self, servers: &[SocketAddr]) {
        *self.servers.lock().unwrap_or_else(PoisonError::into_inner) = servers.to_vec();
    }

    /// Connections are taken, and nothing passes any more.
    pub fn cut(&self) {
        self.way.cut.store(true, Ordering::Relaxed);
    }

    /// Each KiB takes so long.
    pub fn slow_down(&self, lag: Duration) {
        self.way.lag_ms.store(lag.as_millis() as u64, Ordering::Relaxed);
    }

    /// What was held back passes, and all that comes, at once.
    pub fn mend(&self) {
        self.way.cut.store(false, Ordering::Relaxed);
        self.slow_down(Duration::ZERO);
    }

    /// Everything that is open is reset, in the midst of whatever it is: both sides see ECONNRESET, and no end.
    pub fn reset(&self) {
        for stream in std::mem::take(&mut *self.way.open()).into_values().flatten() {
            // To connect to nothing aborts what is connected, whoever else has the socket (Linux: tcp_disconnect). What has ended refuses.
            let _ = rustix::net::connect_unspec(&stream);
        }
    }

    /// How many connections came through.
    pub fn taken(&self) -> usize {
        self.way.taken.load(Ordering::Relaxed)
    }

    /// How many connections did not begin as TLS does.
    pub fn plain(&self) -> usize {
        self.way.plain.load(Ordering::Relaxed)
    }
}

impl Way {
    fn open(&self) -> MutexGuard<'_, BTreeMap<usize, [TcpStream; 2]>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes both ways, until one side has ended.
fn join(number: usize, client: TcpStream, server: TcpStream, way: &Arc<Way>) -> io::Result<()> {
    [&client, &server].into_iter().try_for_each(|stream| stream.set_nodelay(true))?;
    let open = [client.try_clone()?, server.try_clone()?];
    let both = [(client.try_clone()?, server.try_clone()?, true), (server, client, false)];
    way.open().insert(number, open);
    for (mut from, mut to, is_client) in both {
        let way = way.clone();
        thread::spawn(move || {
            let _ = pass(&mut from, &mut to, &way, is_client);
            // Not between the two halves of a reset: this side's end would tell the other one of a close.
            let mut open = way.open();
            open.remove(&number);
            let _ = from.shutdown(Shutdown::Both);
            let _ = to.shutdown(Shutdown::Both);
        });
    }
    Ok(())
}

fn pass(from: &mut TcpStream, to: &mut TcpStream, way: &Way, is_client: bool) -> io::Result<()> {
    let mut bytes = [0; 64 * 1024];
    let mut first = is_client;
    loop {
        let lag = way.lag_ms.load(Ordering::Relaxed);
        let most = if lag > 0 { SLOW } else { bytes.len() };
        let count = from.read(&mut bytes[..most])?;
        if first && count > 0 && bytes[0] != HANDSHAKE {
            way.plain.fetch_add(1, Ordering::Relaxed);
        }
        first = false;
        thread::sleep(Duration::from_millis(lag));
        // Neither bytes nor an end pass.
        while way.cut.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(5));
        }
        if count == 0 {
            return Ok(());
        }
        to.write_all(&bytes[..count])?;
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::*;

    #[test]
    fn both_sides_of_a_connection_that_is_reset_see_that_and_no_end() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let front = Balancer::before(&[listener.local_addr().expect("it is bound")]);
        for _ in 0..100 {
            let mut client = TcpStream::connect(front.address).expect("it listens");
            let (mut server, _) = listener.accept().expect("it was passed on");
            let mut byte = [0];
            client.write_all(b"a").and_then(|()| server.read_exact(&mut byte)).expect("it passes");
            front.reset();
            for side in [&mut client, &mut server] {
                let seen = side.read(&mut byte).map_err(|error| error.kind());
                assert_eq!(seen, Err(ErrorKind::ConnectionReset));
            }
        }
    }
}
