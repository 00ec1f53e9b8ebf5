//! A supervisor's end of a session, by hand: what a test wants to say, when it wants to say it.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use protocol::session::mux::{self, Event, Mux, Side};
use protocol::session::{
    Class, Data, Entry, FromGateway, FromSupervisor, Hello, PATH, Range, Refusal, SUBPROTOCOL, Welcome, encode,
};
use serde_json::{Value, json};
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

    /// The same where it must succeed, at a reserved time if need be.
    #[track_caller]
    pub fn dial(gateway: &Gateway, sandbox: &str) -> Dialler {
        loop {
            let refused = match Dialler::upgrade(gateway.address, &token_of(sandbox)).expect("a connection") {
                Ok(dialler) => return dialler,
                Err(refused) => refused,
            };
            let refusal: Refusal = serde_json::from_str(&refused.body).unwrap_or_else(|_| panic!("{refused:?}"));
            std::thread::sleep(Duration::from_millis(refusal.reconnect_in_ms));
        }
    }

    /// A session that has been welcomed.
    #[track_caller]
    pub fn begin(gateway: &Gateway, sandbox: &str) -> (Dialler, Welcome) {
        Dialler::begin_with(gateway, hello(sandbox))
    }

    /// The same with this hello.
    #[track_caller]
    pub fn begin_with(gateway: &Gateway, hello: Hello) -> (Dialler, Welcome) {
        let dialler = Dialler::dial(gateway, &hello.agent_id);
        dialler.welcomed(hello).unwrap_or_else(|other| panic!("no welcome: {other:?}"))
    }

    /// Say hello; what comes instead of a welcome.
    fn welcomed(mut self, hello: Hello) -> Result<(Dialler, Welcome), Received> {
        self.send(&FromSupervisor::Hello(Box::new(hello)));
        match self.receive() {
            Received::Frame(FromGateway::Welcome(welcome)) => Ok((self, *welcome)),
            other => Err(other),
        }
    }

    /// The same where the other side may be gone, or not let it in: then it says for how long not.
    pub fn try_begin(address: SocketAddr, sandbox: &str) -> io::Result<Result<(Dialler, Welcome), Duration>> {
        match Dialler::upgrade(address, &token_of(sandbox))? {
            Ok(dialler) => {
                dialler.welcomed(hello(sandbox)).map(Ok).map_err(|_| io::ErrorKind::ConnectionAborted.into())
            }
            Err(refused) => {
                let refusal = serde_json::from_str(&refused.body).map(|it: Refusal| it.reconnect_in_ms);
                Ok(Err(Duration::from_millis(refusal.unwrap_or_default())))
            }
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
            let read = self.socket.read();
            if let Some(received) = Dialler::received(read) {
                return received;
            }
        }
    }

    /// What a message is to a test; none where it is the WebSocket's own.
    fn received(read: Result<Message, Error>) -> Option<Received> {
        match read {
            Ok(Message::Text(text)) => {
                Some(Received::Frame(FromGateway::decode(&text).expect("a gateway sends frames")))
            }
            Ok(Message::Binary(bytes)) => Some(Received::Binary(bytes.to_vec())),
            Ok(Message::Close(Some(frame))) => Some(Received::Closed(frame.code.into())),
            Ok(Message::Close(None)) | Err(Error::Io(_) | Error::ConnectionClosed | Error::Protocol(_)) => {
                Some(Received::Lost)
            }
            Ok(_) => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// What comes within `patience`; what has begun to come is not lost.
    pub fn receive_within(&mut self, patience: Duration) -> Option<Received> {
        self.stream().set_read_timeout(Some(patience)).expect("a socket");
        let waiting = |error: &io::Error| matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
        let received = match self.socket.read() {
            Err(Error::Io(error)) if waiting(&error) => None,
            read => Dialler::received(read),
        };
        self.stream().set_read_timeout(Some(LONG)).expect("a socket");
        received
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
            FromGateway::Ack { acks, .. } => acks.get(&class).filter(|acked| **acked >= seq).map(|_| ()),
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

    /// Answer HTTP on the session's streams until the session ends; bytes that were sent on streams are added to `sent`.
    pub fn serve(mut self, sent: &AtomicU64, answer: impl Fn(&str) -> Vec<u8>) -> Received {
        let mut server = Server::default();
        loop {
            match self.receive() {
                Received::Binary(message) => {
                    for message in server.receive(&message, &answer) {
                        sent.fetch_add(message.len() as u64, Ordering::Relaxed);
                        self.send_binary(message);
                    }
                }
                Received::Frame(_) => {}
                end => return end,
            }
        }
    }

    /// The socket itself.
    pub fn stream(&mut self) -> &mut TcpStream {
        self.socket.get_mut()
    }
}

/// Answers HTTP on a session's streams, as a supervisor does.
pub struct Server {
    mux: Mux,
    calls: BTreeMap<u32, Call>,
}

impl Default for Server {
    fn default() -> Server {
        Server { mux: Mux::new(Side::Supervisor), calls: BTreeMap::new() }
    }
}

impl Server {
    /// What is to be sent now that this has come: `answer` gets each request whole and makes the whole response.
    pub fn receive(&mut self, message: &[u8], answer: &impl Fn(&str) -> Vec<u8>) -> Vec<Vec<u8>> {
        match self.mux.receive(message).expect("a gateway sends frames") {
            Some(Event::Opened(id)) => drop(self.calls.insert(id, Call::default())),
            Some(Event::Over(id)) => {
                self.calls.remove(&id);
                self.mux.forget(id);
            }
            _ => {}
        }
        let mut messages = Vec::new();
        loop {
            self.calls.iter_mut().for_each(|(id, call)| call.advance(*id, &mut self.mux, answer));
            match self.mux.next_message() {
                Some((message, _)) => messages.push(message),
                None => return messages,
            }
        }
    }
}

/// One request on a stream, and its response.
#[derive(Default)]
struct Call {
    request: Vec<u8>,
    response: Option<Vec<u8>>,
    written: usize,
}

impl Call {
    fn advance(&mut self, id: u32, mux: &mut Mux, answer: &impl Fn(&str) -> Vec<u8>) {
        let mut bytes = [0; 16 * 1024];
        while let mux::Read::Bytes(count) = mux.read(id, &mut bytes) {
            self.request.extend_from_slice(&bytes[..count]);
        }
        if self.response.is_none() && whole(&self.request) {
            self.response = Some(answer(&String::from_utf8_lossy(&self.request)));
        }
        while let Some(rest) = self.response.as_ref().map(|response| &response[self.written..]) {
            match mux.write(id, rest) {
                mux::Write::Taken(count) if count > 0 => self.written += count,
                _ => return,
            }
        }
    }
}

/// Whether a request has all of its body.
fn whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, _)) = text.split_once("\r\n\r\n") else { return false };
    let body = request.len() - head.len() - 4;
    let head = head.to_ascii_lowercase();
    match head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok()) {
        Some(length) => body >= length,
        None => !head.contains("transfer-encoding: chunked") || text.ends_with("0\r\n\r\n"),
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
    entry_of(seq, &json!({"class": class.name(), "seq": seq}))
}

/// A record with this body.
pub fn entry_of(seq: i64, body: &Value) -> Entry {
    let record = json!({"wall_ms": seq, "boot_ms": seq, "kind": "test.counted", "body": body});
    Entry { seq, record: serde_json::value::RawValue::from_string(record.to_string()).expect("JSON") }
}

/// An HTTP response, for who answers on a session's streams.
pub fn response(head: &str, body: &[u8]) -> Vec<u8> {
    let mut response = format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
    response.extend_from_slice(body);
    response
}
