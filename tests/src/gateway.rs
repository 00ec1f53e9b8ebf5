//! A gateway that does what a test says, at the other end of a real connection: it waits for dials, refuses or upgrades
//! them, and sends and reads frames one by one. Nothing of it waits longer than [`wait::LONG`].

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use protocol::session::mux::{Mux, Read, Side, Write};
use protocol::session::{FromGateway, FromSupervisor, Hello, PROTOCOL, Pace, SUBPROTOCOL, State, Welcome, encode};
use sha1::{Digest, Sha1};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};
use tokio_tungstenite::tungstenite::{Message, WebSocket};

use crate::tls::Server;
use crate::wait;

/// What a supervisor must show.
pub const TOKEN: &str = "link-CANARY-token";

/// A gateway that listens.
pub struct Gateway {
    listener: TcpListener,
    tls: Option<Server>,
}

impl Default for Gateway {
    fn default() -> Gateway {
        Gateway::new()
    }
}

impl Gateway {
    /// Plain, on a free port of loopback.
    pub fn new() -> Gateway {
        Gateway { listener: TcpListener::bind("127.0.0.1:0").expect("loopback has a free port"), tls: None }
    }

    /// By TLS.
    pub fn tls(server: Server) -> Gateway {
        Gateway { tls: Some(server), ..Gateway::new() }
    }

    /// By another certificate from the next connection on.
    pub fn serve_by(&mut self, server: Server) {
        self.tls = Some(server);
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.listener.local_addr().expect("it is bound")
    }

    /// What a supervisor is given.
    pub fn url(&self) -> String {
        format!("{}://{}", if self.tls.is_some() { "wss" } else { "ws" }, self.address())
    }

    /// The next connection, before anything was read from it.
    #[track_caller]
    pub fn connection(&self) -> TcpStream {
        self.listener.set_nonblocking(true).expect("our own listener");
        let (stream, _) = wait::wait_for("a dial", || self.listener.accept().ok());
        stream.set_nonblocking(false).expect("our own stream");
        stream.set_read_timeout(Some(wait::LONG)).expect("a time");
        stream.set_write_timeout(Some(wait::LONG)).expect("a time");
        stream
    }

    /// The next dial whose request came whole; others are passed over.
    #[track_caller]
    pub fn dial(&self) -> Dial {
        loop {
            if let Ok(dial) = self.try_dial() {
                return dial;
            }
        }
    }

    /// The next connection: its request, or why none came.
    #[track_caller]
    pub fn try_dial(&self) -> io::Result<Dial> {
        let stream = self.connection();
        Dial::read(match &self.tls {
            None => Box::new(stream),
            Some(server) => Box::new(server.take(stream)),
        })
    }

    /// The next dial, upgraded, with its hello read.
    #[track_caller]
    pub fn accept(&self) -> Session {
        self.dial().upgrade()
    }

    /// The same, and welcomed with this pace.
    #[track_caller]
    pub fn welcome(&self, pace: Pace) -> Session {
        let mut session = self.accept();
        session.send(&FromGateway::Welcome(Box::new(Session::usual(pace))));
        session
    }
}

/// A connection, plain or not.
pub trait Stream: io::Read + io::Write + Send {}
impl<S: io::Read + io::Write + Send> Stream for S {}

/// A request for a session that was not answered yet.
pub struct Dial {
    /// Request line and headers, as sent.
    pub head: String,
    stream: Box<dyn Stream>,
}

impl Dial {
    fn read(mut stream: Box<dyn Stream>) -> io::Result<Dial> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        Ok(Dial { head: String::from_utf8_lossy(&head).into_owned(), stream })
    }

    /// A header of the request.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// Answer something else than an upgrade; `headers` end with CRLF each.
    pub fn answer(mut self, status: u16, headers: &str, body: &str) {
        let length = body.len();
        let answer =
            format!("HTTP/1.1 {status} -\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n{body}");
        // The supervisor may have gone.
        let _ = self.stream.write_all(answer.as_bytes()).and_then(|()| self.stream.flush());
    }

    /// Answer the handshake, and read nothing yet.
    #[track_caller]
    pub fn shake(mut self) -> WebSocket<Box<dyn Stream>> {
        let key = self.header("sec-websocket-key").expect("a handshake has a key").to_owned();
        let digest = Sha1::new_with_prefix(key).chain_update("258EAFA5-E914-47DA-95CA-C5AB0DC85B11").finalize();
        let accept = STANDARD.encode(digest);
        let answer = format!(
            "HTTP/1.1 101 -\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: {accept}\r\n\
             sec-websocket-protocol: {SUBPROTOCOL}\r\n\r\n"
        );
        self.stream.write_all(answer.as_bytes()).and_then(|()| self.stream.flush()).expect("the supervisor listens");
        WebSocket::from_raw_socket(self.stream, Role::Server, None)
    }

    /// Upgrade it and read the hello.
    #[track_caller]
    pub fn upgrade(self) -> Session {
        let mut session =
            Session { hello: None, mux: Mux::new(Side::Gateway), texts: VecDeque::new(), socket: self.shake() };
        match session.frame() {
            FromSupervisor::Hello(hello) => session.hello = Some(hello),
            other => panic!("not a hello: {other:?}"),
        }
        session
    }
}

/// A session, seen from the gateway.
pub struct Session {
    hello: Option<Box<Hello>>,
    mux: Mux,
    /// Came while a call was under way.
    texts: VecDeque<String>,
    socket: WebSocket<Box<dyn Stream>>,
}

/// What came.
#[derive(Debug)]
pub enum Came {
    /// A text message, as sent.
    Text(String),
    /// A binary message.
    Binary(Vec<u8>),
    /// The supervisor has closed, and why.
    Closed(Option<u16>),
}

impl Session {
    /// A welcome that expects everything from the start.
    pub fn usual(pace: Pace) -> Welcome {
        Welcome {
            protocol: PROTOCOL,
            version: "test".into(),
            capabilities: Vec::new(),
            session: "s-1".into(),
            fence: 1,
            next: Default::default(),
            d: None,
            pace,
            in_flight: 256 * 1024,
            now_ms: 0,
            keys: Vec::new(),
        }
    }

    /// What the supervisor said first.
    pub fn hello(&self) -> &Hello {
        self.hello.as_ref().expect("it is read before anybody has the session")
    }

    /// Send a frame.
    #[track_caller]
    pub fn send(&mut self, frame: &FromGateway) {
        self.send_text(&encode(frame));
    }

    /// Send a frame to a supervisor that may have closed already.
    pub fn try_send(&mut self, frame: &FromGateway) -> bool {
        self.socket.send(Message::text(encode(frame))).is_ok()
    }

    /// Send any text.
    #[track_caller]
    pub fn send_text(&mut self, text: &str) {
        self.socket.send(Message::text(text)).expect("the supervisor listens");
    }

    /// Close with this code.
    pub fn close(mut self, code: u16) {
        let _ = self.socket.close(Some(CloseFrame { code: CloseCode::from(code), reason: "".into() }));
        let _ = self.socket.flush();
    }

    /// The next message.
    #[track_caller]
    pub fn came(&mut self) -> Came {
        loop {
            match self.socket.read() {
                Ok(Message::Text(text)) => return Came::Text(text.as_str().to_owned()),
                Ok(Message::Binary(bytes)) => return Came::Binary(bytes.into()),
                Ok(Message::Close(frame)) => {
                    // The answer to it goes out with the next use.
                    let _ = self.socket.flush();
                    return Came::Closed(frame.map(|frame| frame.code.into()));
                }
                Ok(_) => {}
                Err(_) => return Came::Closed(None),
            }
        }
    }

    /// The next text, as sent. What comes on streams meanwhile is taken in.
    #[track_caller]
    pub fn text(&mut self) -> String {
        if let Some(text) = self.texts.pop_front() {
            return text;
        }
        loop {
            match self.came() {
                Came::Text(text) => return text,
                Came::Binary(message) => drop(self.mux.receive(&message).expect("a frame")),
                Came::Closed(code) => panic!("closed with {code:?}"),
            }
        }
    }

    /// The next frame.
    #[track_caller]
    pub fn frame(&mut self) -> FromSupervisor {
        let text = self.text();
        FromSupervisor::decode(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// The next beat: number and digest.
    #[track_caller]
    pub fn beat(&mut self) -> (u64, String) {
        loop {
            if let FromSupervisor::Beat { n, d } = self.frame() {
                return (n, d);
            }
        }
    }

    /// The next state.
    #[track_caller]
    pub fn state(&mut self) -> State {
        loop {
            if let FromSupervisor::State(state) = self.frame() {
                return *state;
            }
        }
    }

    /// A call on a stream of its own: these bytes go out, and what comes back until the supervisor ends the stream.
    #[track_caller]
    pub fn call(&mut self, request: &[u8]) -> Vec<u8> {
        let id = self.mux.open().expect("few are open");
        let (mut sent, mut answer) = (0, Vec::new());
        loop {
            if let Write::Taken(count) = self.mux.write(id, &request[sent..]) {
                sent += count;
            }
            while let Some((message, _)) = self.mux.next_message() {
                self.socket.send(Message::binary(message)).expect("the supervisor listens");
            }
            let mut bytes = [0; 64 * 1024];
            match self.mux.read(id, &mut bytes) {
                Read::Bytes(count) => answer.extend(&bytes[..count]),
                Read::End => return answer,
                Read::Reset(reason) => panic!("reset: {reason}"),
                Read::Wait => match self.came() {
                    Came::Binary(message) => drop(self.mux.receive(&message).expect("a frame")),
                    Came::Text(text) => self.texts.push_back(text),
                    Came::Closed(code) => panic!("closed with {code:?}"),
                },
            }
        }
    }

    /// Send any bytes.
    #[track_caller]
    pub fn send_binary(&mut self, bytes: &[u8]) {
        self.socket.send(Message::binary(bytes.to_vec())).expect("the supervisor listens");
    }

    /// Everything until the supervisor closes, and its code.
    #[track_caller]
    pub fn rest(&mut self) -> (Vec<FromSupervisor>, Option<u16>) {
        let mut frames = Vec::new();
        loop {
            match self.came() {
                Came::Text(text) => frames.push(FromSupervisor::decode(&text).expect("a frame")),
                Came::Binary(_) => {}
                Came::Closed(code) => return (frames, code),
            }
        }
    }
}
