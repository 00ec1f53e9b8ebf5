//! Stands before one supervisor as a gateway would: its sandbox is `dev`. It can go away, break off what it carries, and come
//! back at the same address.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crate::scene;

/// A stand-in for a gateway. It ends with this value.
pub struct Front {
    /// Where it listens, also after it has come back.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

struct Shared {
    supervisor: SocketAddr,
    away: AtomicBool,
    swallow: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
}

impl Front {
    /// Before the supervisor at this address.
    pub fn before(supervisor: SocketAddr) -> Front {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let shared = Shared { supervisor, away: false.into(), swallow: false.into(), open: Mutex::default() };
        let shared = Arc::new(shared);
        let accepting = Some(accept(listener, shared.clone()));
        Front { address, shared, accepting }
    }

    /// Close the port and break off everything.
    pub fn go_away(&mut self) {
        self.shared.away.store(true, Ordering::SeqCst);
        // Wakes who accepts.
        let _ = TcpStream::connect(self.address);
        if let Some(accepting) = self.accepting.take() {
            accepting.join().expect("no panic");
        }
        for stream in self.shared.open.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// At the same address.
    #[track_caller]
    pub fn come_back(&mut self) {
        self.shared.away.store(false, Ordering::SeqCst);
        let listener = crate::wait::wait_for("the port", || TcpListener::bind(self.address).ok());
        self.accepting = Some(accept(listener, self.shared.clone()));
    }

    /// The next answer to a POST is lost on its way.
    pub fn swallow_an_answer(&self) {
        self.shared.swallow.store(true, Ordering::SeqCst);
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        if self.accepting.is_some() {
            self.go_away();
        }
    }
}

fn accept(listener: TcpListener, shared: Arc<Shared>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            if shared.away.load(Ordering::SeqCst) {
                return;
            }
            let shared = shared.clone();
            // A connection that breaks is what a client is tested with.
            std::thread::spawn(move || drop(carry(stream, &shared)));
        }
    })
}

fn carry(client: TcpStream, shared: &Shared) -> std::io::Result<()> {
    let keep = |stream: &TcpStream| {
        let mut open = shared.open.lock().unwrap_or_else(PoisonError::into_inner);
        stream.try_clone().map(|stream| open.push(stream))
    };
    keep(&client)?;
    let mut reader = BufReader::new(client.try_clone()?);
    let (mut first, mut head) = (String::new(), String::new());
    reader.read_line(&mut first)?;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? <= 2 {
            break;
        }
        if !line.to_lowercase().starts_with("authorization:") {
            head += &line;
        }
    }
    let mut client = client;
    let Some((method, path)) = first.split_once(" /v1/sandboxes/dev") else {
        let body = r#"{"sandboxes":[{"id":"dev","status":"connected"}]}"#;
        let length = body.len();
        return write!(client, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
    };
    let mut supervisor = TcpStream::connect(shared.supervisor)?;
    keep(&supervisor)?;
    write!(supervisor, "{method} {path}{head}Authorization: Bearer {}\r\n\r\n", scene::CANARY)?;
    let mut up = supervisor.try_clone()?;
    let body = reader.buffer().to_vec();
    up.write_all(&body)?;
    let mut rest = reader.into_inner();
    std::thread::spawn(move || std::io::copy(&mut rest, &mut up));
    if method == "POST" && shared.swallow.swap(false, Ordering::SeqCst) {
        // The supervisor has answered, and so has done it.
        supervisor.read_exact(&mut [0; 12])?;
        return client.shutdown(Shutdown::Both);
    }
    std::io::copy(&mut supervisor, &mut client)?;
    client.shutdown(Shutdown::Both)
}
