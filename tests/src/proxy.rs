//! An HTTP proxy that does what a test says: it takes what is asked of it, and answers, refuses, tunnels or stays silent.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;

use crate::wait;

/// A proxy that listens.
pub struct Proxy(TcpListener);

impl Default for Proxy {
    fn default() -> Proxy {
        Proxy::new()
    }
}

impl Proxy {
    /// On a free port of loopback.
    pub fn new() -> Proxy {
        Proxy(TcpListener::bind("127.0.0.1:0").expect("loopback has a free port"))
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.0.local_addr().expect("it is bound")
    }

    /// Whether somebody has come who was not taken yet.
    pub fn is_asked(&self) -> bool {
        self.0.set_nonblocking(true).expect("our own listener");
        self.0.accept().is_ok()
    }

    /// What is asked next.
    #[track_caller]
    pub fn asked(&self) -> Asked {
        self.0.set_nonblocking(true).expect("our own listener");
        let (mut stream, _) = wait::wait_for("a call of the proxy", || self.0.accept().ok());
        stream.set_nonblocking(false).expect("our own stream");
        stream.set_read_timeout(Some(wait::LONG)).expect("a time");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("a request comes whole");
            head.push(byte[0]);
        }
        Asked { head: String::from_utf8_lossy(&head).into_owned(), stream }
    }
}

/// A request that was not answered yet. Dropped, the connection is closed.
pub struct Asked {
    /// Request line and headers, as sent.
    pub head: String,
    stream: TcpStream,
}

impl Asked {
    /// Answer these bytes and hang up.
    pub fn answer(mut self, bytes: &str) {
        // Who asked may have gone.
        let _ = self.stream.write_all(bytes.as_bytes());
    }

    /// Grant it: from now on bytes go to `there` and back.
    pub fn tunnel(mut self, there: SocketAddr) {
        let other = TcpStream::connect(there).expect("the test listens there");
        self.stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").expect("who asked is there");
        let copies = [(&self.stream, &other), (&other, &self.stream)]
            .map(|(from, to)| (from.try_clone().expect("a descriptor"), to.try_clone().expect("a descriptor")));
        for (mut from, mut to) in copies {
            from.set_read_timeout(None).expect("no time");
            // Both end with the connections.
            thread::spawn(move || {
                let _ = io::copy(&mut from, &mut to);
                let _ = to.shutdown(Shutdown::Both);
            });
        }
    }
}
