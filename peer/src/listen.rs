//! Where we are called.
//!
//! Promises: nobody who dials while the process is busy for a moment is left to the kernel's patience. Behind a full queue the kernel drops
//! the end of the handshake; the caller believes itself connected, and is heard only when the kernel asks it again, after 1, 3 or 7 s
//! (tcp(7), `tcp_synack_retries`). So the queue is as long as the kernel allows (listen(2): `net.core.somaxconn`, 4,096 unless somebody
//! changed it), and who comes is looked at by [`crate::places`] at once.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::{TcpListener, TcpSocket};

/// The kernel cuts it to its limit without a word.
const QUEUE: u32 = i32::MAX as u32;

/// Listen on `address`, never with `SO_REUSEPORT`, so that no process of the same uid can share the port and take tokens. Where it is the
/// default (`[::]`) and this kernel has no IPv6, on all IPv4 addresses.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    match bind_exactly(address) {
        Err(error) if address.ip().is_unspecified() && error.raw_os_error() == Some(EAFNOSUPPORT) => {
            bind_exactly((Ipv4Addr::UNSPECIFIED, address.port()).into())
        }
        other => other,
    }
}

const EAFNOSUPPORT: i32 = rustix::io::Errno::AFNOSUPPORT.raw_os_error();

fn bind_exactly(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv6() { TcpSocket::new_v6() } else { TcpSocket::new_v4() }?;
    // What a process before us left in TIME_WAIT does not keep us out (socket(7)).
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(QUEUE)
}
