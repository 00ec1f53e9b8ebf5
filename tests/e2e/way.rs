//! The way from a gateway to its cluster, which can be broken and mended: bytes are passed on as they are.

use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

/// It listens where the cluster is thought to be.
pub(crate) struct Way {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    cluster: SocketAddr,
    /// `None` while it is broken.
    open: Mutex<Option<Vec<TcpStream>>>,
}

impl Way {
    /// To the cluster at this address.
    pub(crate) fn to(cluster: SocketAddr) -> Way {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Shared { cluster, open: Mutex::new(Some(Vec::new())) });
        let carrying = shared.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // What breaks is what a client is tested with.
                let _ = carrying.carry(client);
            }
        });
        Way { address, shared }
    }

    /// Everything on it is broken off, and whatever comes is closed.
    pub(crate) fn go_away(&self) {
        let open = self.shared.open.lock().unwrap_or_else(PoisonError::into_inner).take();
        for stream in open.into_iter().flatten() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// The end of [`Way::go_away`].
    pub(crate) fn come_back(&self) {
        *self.shared.open.lock().unwrap_or_else(PoisonError::into_inner) = Some(Vec::new());
    }
}

impl Shared {
    fn carry(&self, client: TcpStream) -> std::io::Result<()> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(open) = open.as_mut() else { return client.shutdown(Shutdown::Both) };
        let cluster = TcpStream::connect(self.cluster)?;
        for (from, to) in [(&client, &cluster), (&cluster, &client)] {
            open.push(from.try_clone()?);
            let (mut from, mut to) = (from.try_clone()?, to.try_clone()?);
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut from, &mut to);
                let _ = to.shutdown(Shutdown::Write);
            });
        }
        Ok(())
    }
}
