//! A supervisor's end of a session, by hand: what a test wants to say, when it wants to say it.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use protocol::session::{
    Class, Data, Entry, FromGateway, FromSupervisor, Hello, PATH, Range, SUBPROTOCOL, Welcome, encode,
};
use serde_json::json;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocket, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Bytes, Error, Message};

use crate::control_plane::{Gateway, token_of};
use crate::wait::LONG;

/// One session.
pub struct Dialler {
    socket: WebSocket<TcpStream>,
}

/// What came from the gateway.
#[derive(Debug)]
pub enum Received {
    /// A control frame.
    Frame(FromGateway),
    /// Bulk bytes.
    Binary(Vec<u8>),
    /// The gateway closed, with this code.
    Closed(u16),
    /// The connection broke.
    Lost,
}

/// An answer that is no upgrade: its head and body.
#[derive(Debug)]
pub struct Refused {
    /// Status code.
    pub status: u16,
    /// As sent.
    pub head: String,
    /// As sent.
    pub body: String,
}

impl Dialler {
    /// Dial and become a WebSocket.
    pub fn upgrade(address: SocketAddr, token: &str) -> io::Result<Result<Dialler, Refused>> {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(10))?;
        stream.set_read_timeout(Some(LONG))?;
        stream.set_nodelay(true)?;
        let request = format!(
            "GET {PATH} HTTP/1.1\r\nHost: gateway\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Protocol: {SUBPROTOCOL}\r\nAuthorization: Bearer {token}\r\n\r\n"
        );
        stream.write_all(request.as_bytes())?;
        // Byte by byte, so that no frame is read with the head.
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        if status == 101 {
            let config = WebSocketConfig::default();
            return Ok(Ok(Dialler { socket: WebSocket::from_raw_socket(stream, Role::Client, Some(config)) }));
        }
        let lines =
            head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
        let mut body = vec![0; lines.unwrap_or(0)];
        stream.read_exact(&mut body)?;
        Ok(Err(Refused { status, head, body: String::from_utf8_lossy(&body).into_owned() }))
    }

    /// The same where it must succeed.
    #[track_caller]
    pub fn dial(gateway: &Gateway, sandbox: &str) -> Dialler {
        let dialler = Dialler::upgrade(gateway.address, &token_of(sandbox)).expect("a connection");
        dialler.unwrap_or_else(|refused| panic!("{refused:?}"))
    }

    /// A session that has been welcomed.
    #[track_caller]
    pub fn begin(gateway: &Gateway, sandbox: &str) -> (Dialler, Welcome) {
        Dialler::begin_with(gateway, hello(sandbox))
    }

    /// The same with this hello.
    #[track_caller]
    pub fn begin_with(gateway: &Gateway, hello: Hello) -> (Dialler, Welcome) {
        let mut dialler = Dialler::dial(gateway, &hello.agent_id);
        dialler.send(&FromSupervisor::Hello(Box::new(hello)));
        match dialler.receive() {
            Received::Frame(FromGateway::Welcome(welcome)) => (dialler, *welcome),
            other => panic!("no welcome: {other:?}"),
        }
    }

    /// Send a frame; a connection that is gone is seen when something is received.
    pub fn send(&mut self, frame: &FromSupervisor) {
        self.send_text(&encode(frame));
    }

    /// Send any text.
    pub fn send_text(&mut self, text: &str) {
        let _ = self.socket.send(Message::text(text));
    }

    /// Send bulk bytes.
    pub fn send_binary(&mut self, bytes: Vec<u8>) {
        let _ = self.socket.send(Message::binary(Bytes::from(bytes)));
    }

    /// Send records, whose bodies say their sequence.
    pub fn send_records(&mut self, class: Class, seqs: std::ops::RangeInclusive<i64>) {
        self.send(&FromSupervisor::Data(Data { class, records: seqs.map(|seq| entry(class, seq)).collect() }));
    }

    /// What comes next.
    pub fn receive(&mut self) -> Received {
        loop {
            match self.socket.read() {
                Ok(Message::Text(text)) => {
                    return Received::Frame(FromGateway::decode(&text).expect("a gateway sends frames"));
                }
                Ok(Message::Binary(bytes)) => return Received::Binary(bytes.to_vec()),
                Ok(Message::Close(Some(frame))) => return Received::Closed(frame.code.into()),
                Ok(Message::Close(None)) | Err(Error::Io(_) | Error::ConnectionClosed | Error::Protocol(_)) => {
                    return Received::Lost;
                }
                Ok(_) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// The next frame that `pick` takes; others are passed over.
    #[track_caller]
    pub fn receive_until<T>(&mut self, mut pick: impl FnMut(FromGateway) -> Option<T>) -> T {
        loop {
            match self.receive() {
                Received::Frame(frame) => {
                    if let Some(picked) = pick(frame) {
                        return picked;
                    }
                }
                Received::Binary(_) => {}
                other => panic!("the session ended: {other:?}"),
            }
        }
    }

    /// Until everything up to `seq` is acknowledged.
    #[track_caller]
    pub fn until_acknowledged(&mut self, class: Class, seq: i64) {
        self.receive_until(|frame| match frame {
            FromGateway::Ack { acks } => acks.get(&class).filter(|acked| **acked >= seq).map(|_| ()),
            _ => None,
        });
    }

    /// The code with which the gateway closes.
    #[track_caller]
    pub fn close_code(&mut self) -> u16 {
        loop {
            match self.receive() {
                Received::Closed(code) => return code,
                Received::Lost => panic!("the connection broke without a close"),
                _ => {}
            }
        }
    }

    /// The socket itself.
    pub fn stream(&mut self) -> &mut TcpStream {
        self.socket.get_mut()
    }
}

/// The hello of a sandbox that has nothing yet.
pub fn hello(sandbox: &str) -> Hello {
    Hello {
        protocol: Range::OURS,
        version: "0.0.0-test".into(),
        capabilities: vec!["stream".into()],
        agent_id: sandbox.into(),
        project_id: "p".into(),
        controller_id: "c".into(),
        pod: None,
        boot_id: "boot".into(),
        log_epoch: "epoch-1".into(),
        classes: BTreeMap::new(),
        applied: 0,
        offline: None,
        boot_ms: 1,
        wall_ms: 1,
    }
}

/// A record whose body says its class and sequence.
pub fn entry(class: Class, seq: i64) -> Entry {
    let body = json!({"class": class.name(), "seq": seq});
    let record = json!({"wall_ms": seq, "boot_ms": seq, "kind": "test.counted", "body": body});
    Entry { seq, record: serde_json::value::RawValue::from_string(record.to_string()).expect("JSON") }
}
