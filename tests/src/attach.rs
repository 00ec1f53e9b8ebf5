//! A client that is attached to a dev-task, as a terminal program would write it.

use std::io::{self, BufReader, Read, Write};
use std::net::TcpStream;

use serde_json::Value;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocket};
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::tasks::{Api, Head};
use crate::wait;

/// The handshake's headers, all of them right.
pub const UPGRADE: [(&str, &str); 4] = [
    ("Connection", "keep-alive, Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

/// One attached client.
pub struct Attach {
    socket: WebSocket<TcpStream>,
    /// The first word.
    pub attached: Value,
    /// What came of standard output, or of the terminal.
    pub stdout: Vec<u8>,
    /// What came of standard error.
    pub stderr: Vec<u8>,
    /// All words, in order.
    pub words: Vec<Value>,
    /// Code and reason of the close frame.
    pub closed: Option<(u16, String)>,
    on_stderr: bool,
}

/// Open the connection and take the head; afterwards it is a WebSocket, where the answer was 101.
pub fn handshake(api: &Api, path: &str, headers: &[(&str, &str)]) -> io::Result<(Head, TcpStream)> {
    let mut stream = TcpStream::connect(api.address)?;
    stream.set_read_timeout(Some(wait::LONG * 2))?;
    stream.set_nodelay(true)?;
    let mut request = format!("GET {}{path} HTTP/1.1\r\nHost: supervisor\r\n{}", api.base, api.authorization());
    for (name, value) in headers {
        request += &format!("{name}: {value}\r\n");
    }
    stream.write_all(format!("{request}\r\n").as_bytes())?;
    // No byte more than the head: what follows is for whoever reads frames.
    let head = crate::tasks::head(&mut BufReader::with_capacity(1, &mut stream))?;
    Ok((head, stream))
}

impl Attach {
    /// Attach; `query` begins with `?` or is empty.
    #[track_caller]
    pub fn to(api: &Api, id: &str, query: &str) -> Attach {
        let (head, stream) = handshake(api, &format!("/dev-tasks/{id}/attach{query}"), &UPGRADE).expect("an answer");
        assert_eq!(head.status, 101, "{head:?}");
        assert_eq!(head.headers["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let socket = WebSocket::from_raw_socket(stream, Role::Client, None);
        let (stdout, stderr, words) = Default::default();
        let attached = Value::Null;
        let mut client = Attach { socket, attached, stdout, stderr, words, closed: None, on_stderr: false };
        client.attached = client.wait_word("attached");
        client
    }

    /// Send bytes as they are.
    #[track_caller]
    pub fn type_in(&mut self, bytes: impl AsRef<[u8]>) {
        self.socket.send(Message::binary(bytes.as_ref().to_vec())).expect("the supervisor reads");
    }

    /// Send a word.
    #[track_caller]
    pub fn say(&mut self, word: Value) {
        self.socket.send(Message::text(word.to_string())).expect("the supervisor reads");
    }

    /// What came of standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Take the next message; false after the close.
    #[track_caller]
    pub fn take(&mut self) -> bool {
        match self.socket.read() {
            Ok(Message::Binary(bytes)) => {
                if self.on_stderr { &mut self.stderr } else { &mut self.stdout }.extend(&bytes);
            }
            Ok(Message::Text(text)) => {
                let word: Value = serde_json::from_str(&text).expect("words are JSON");
                if let Some(stream) = word["stream"].as_str() {
                    self.on_stderr = stream == "stderr";
                }
                self.words.push(word);
            }
            Ok(Message::Close(frame)) => {
                self.closed = frame.map(|frame| (frame.code.into(), frame.reason.to_string()));
            }
            Ok(_) => {}
            Err(Error::ConnectionClosed | Error::AlreadyClosed) => return false,
            Err(error) => panic!("{error}; it has said {:?} and shown {:?}", self.words, self.text()),
        }
        true
    }

    /// Wait until this was shown.
    #[track_caller]
    pub fn wait_text(&mut self, text: &str) {
        while !self.text().contains(text) {
            assert!(self.take(), "{text:?} never comes: {:?} {:?} {:?}", self.text(), self.words, self.closed);
        }
    }

    /// Wait until a word of this name has come; its value.
    #[track_caller]
    pub fn wait_word(&mut self, name: &str) -> Value {
        loop {
            if let Some(word) = self.words.iter().find(|word| !word[name].is_null()) {
                return word[name].clone();
            }
            assert!(self.take(), "{name} is never said: {:?} {:?}", self.words, self.closed);
        }
    }

    /// Take everything until the connection is closed; the code of the close frame, 0 where there was none.
    #[track_caller]
    pub fn to_end(&mut self) -> u16 {
        while self.take() {}
        self.closed.as_ref().map_or(0, |(code, _)| *code)
    }

    /// The connection itself, for a client that breaks the rules.
    pub fn stream(&mut self) -> &mut TcpStream {
        self.socket.get_mut()
    }

    /// All bytes until the supervisor closes the connection, without answering any of them.
    #[track_caller]
    pub fn only_listen(mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let ended = self.stream().read_to_end(&mut bytes);
        assert!(!ended.is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock), "it is never cut");
        bytes
    }
}
