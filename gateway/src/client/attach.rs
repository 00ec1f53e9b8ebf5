//! Attached to a task: what it writes comes, what is typed goes, over one WebSocket.

use axum::http::{HeaderValue, header};
use base64::Engine;
use futures_util::{SinkExt, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use protocol::attach::{Ask, Attached, Cut, Exited, Refused, Stream, Told};
use protocol::words::printable;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Bytes, Error, Message};

use super::{Client, ClientError, request};
use crate::tokens::new_token;

/// A longer message is none of a supervisor's.
const MAX_MESSAGE: usize = 1024 * 1024;
/// Of input; the supervisor takes twice as much at once.
const PIECE: usize = 32 * 1024;

/// What comes of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Bytes of one of its streams.
    Bytes(Stream, Vec<u8>),
    /// Bytes that are no longer kept.
    Cut(Cut),
    /// What was asked was not done; in words for a terminal.
    Refused(Refused),
    /// Nobody of the task is left, and all of its output came.
    Exited(Exited),
}

/// One client of one task.
pub struct Attachment<S = TokioIo<Upgraded>> {
    socket: WebSocketStream<S>,
    /// Its size at first, where the task has a terminal.
    pub attached: Attached,
    /// Where the next byte of each stream is; they only move on.
    pub cursors: [u64; 2],
    stream: Stream,
}

impl Attachment {
    /// Attach to the task at `path`; from these bytes of its streams on, or from the tail of them.
    pub async fn open(client: &Client, path: &str, from: Option<[u64; 2]>) -> Result<Attachment, ClientError> {
        let query = from.map(|[out, err]| format!("?cursor={out}&stderr_cursor={err}")).unwrap_or_default();
        let mut request = request("GET", &format!("{path}/attach{query}"));
        let key = new_token().map_err(ClientError::broken)?;
        let key = base64::engine::general_purpose::STANDARD.encode(&key.as_bytes()[..16]);
        let headers = request.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        headers.insert(header::SEC_WEBSOCKET_KEY, HeaderValue::try_from(key).map_err(ClientError::broken)?);
        let mut response = client.send(request).await?;
        let upgraded = hyper::upgrade::on(&mut response).await.map_err(ClientError::broken)?;
        Attachment::over(TokioIo::new(upgraded), from).await
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Attachment<S> {
    /// Over a connection that has become a WebSocket, on which these bytes were asked for.
    pub(crate) async fn over(connection: S, from: Option<[u64; 2]>) -> Result<Attachment<S>, ClientError> {
        let config = WebSocketConfig::default()
            .read_buffer_size(16 * 1024)
            .write_buffer_size(0)
            .max_message_size(Some(MAX_MESSAGE))
            .max_frame_size(Some(MAX_MESSAGE));
        let mut socket = WebSocketStream::from_raw_socket(connection, Role::Client, Some(config)).await;
        let Some(Told::Attached(attached)) = word(socket.next().await)? else {
            return Err(ClientError::Nonsense("the first word of an attached task is another"));
        };
        let cursors = [attached.cursor, attached.stderr_cursor];
        if from.is_some_and(|from| from != cursors) {
            return Err(ClientError::Nonsense("a stream of output begins elsewhere than was asked for"));
        }
        Ok(Attachment { socket, attached, cursors, stream: Stream::Stdout })
    }

    /// What comes next. May be dropped and called again.
    pub async fn next(&mut self) -> Result<Heard, ClientError> {
        loop {
            let message = self.socket.next().await;
            if let Some(Ok(Message::Binary(bytes))) = message {
                let next = self.cursors[self.stream as usize].checked_add(bytes.len() as u64);
                self.move_on(self.stream, next)?;
                return Ok(Heard::Bytes(self.stream, bytes.into()));
            }
            match word(message)? {
                Some(Told::Stream(stream)) => self.stream = stream,
                Some(Told::Cut(cut)) => {
                    let begins = self.cursors[cut.stream as usize] == cut.from;
                    self.move_on(cut.stream, begins.then_some(cut.to))?;
                    return Ok(Heard::Cut(cut));
                }
                Some(Told::Refused(Refused { what, why })) => {
                    return Ok(Heard::Refused(Refused { what: printable(&what), why: printable(&why) }));
                }
                Some(Told::Exited(exited)) => return Ok(Heard::Exited(exited)),
                Some(Told::Attached(_) | Told::Resized(_)) | None => {}
            }
        }
    }

    fn move_on(&mut self, stream: Stream, next: Option<u64>) -> Result<(), ClientError> {
        let cursor = &mut self.cursors[stream as usize];
        *cursor = next
            .filter(|next| *next >= *cursor)
            .ok_or_else(|| ClientError::Nonsense("a stream of output goes back, or leaves bytes out"))?;
        Ok(())
    }

    /// Type this.
    pub async fn input(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        for piece in bytes.chunks(PIECE) {
            self.send(Message::Binary(Bytes::copy_from_slice(piece))).await?;
        }
        Ok(())
    }

    /// Ask for something.
    pub async fn ask(&mut self, ask: Ask) -> Result<(), ClientError> {
        let text = serde_json::to_string(&ask).map_err(ClientError::broken)?;
        self.send(Message::text(text)).await
    }

    async fn send(&mut self, message: Message) -> Result<(), ClientError> {
        self.socket.send(message).await.map_err(ClientError::broken)
    }
}

/// Somebody speaks otherwise, and would another time too; an end without a goodbye is an outage.
fn is_nonsense(error: &Error) -> bool {
    let cut_off = matches!(error, Error::Protocol(ProtocolError::ResetWithoutClosingHandshake));
    !cut_off && matches!(error, Error::Capacity(_) | Error::Utf8(_) | Error::Protocol(_))
}

/// A word in a message; `None` for what is none, or is of a later supervisor.
fn word(message: Option<Result<Message, Error>>) -> Result<Option<Told>, ClientError> {
    match message {
        Some(Ok(Message::Text(text))) => Ok(serde_json::from_str(&text).ok()),
        Some(Ok(Message::Close(close))) => {
            let reason = close.map(|close| printable(&close.reason)).filter(|reason| !reason.is_empty());
            Err(ClientError::broken(reason.unwrap_or_else(|| "the sandbox has closed it".into())))
        }
        Some(Ok(_)) => Ok(None),
        Some(Err(error)) if is_nonsense(&error) => Err(ClientError::Nonsense("what comes is no WebSocket's")),
        Some(Err(error)) => Err(ClientError::broken(error)),
        None => Err(ClientError::broken("it ended without a goodbye")),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    /// One who asked for these bytes, and a sandbox that says this.
    async fn told(from: [u64; 2], words: &[&str]) -> Result<Attachment<tokio::io::DuplexStream>, ClientError> {
        let (ours, theirs) = tokio::io::duplex(4096);
        let mut sandbox = WebSocketStream::from_raw_socket(theirs, Role::Server, None).await;
        for word in words {
            sandbox.send(Message::text(*word)).await.expect("there is room");
        }
        Attachment::over(ours, Some(from)).await
    }

    const ATTACHED: &str =
        r#"{"attached":{"cursor":3,"stderr_cursor":0,"terminal":null,"read_only":false,"state":"running"}}"#;

    #[tokio::test]
    async fn bytes_that_were_not_asked_for_are_nonsense_and_no_outage() {
        for (from, first) in [([2, 0], ATTACHED), ([3, 1], ATTACHED), ([3, 0], r#"{"stream":"stderr"}"#), ([3, 0], "x")]
        {
            let error = told(from, &[first]).await.err().expect("another begin");
            assert!(matches!(error, ClientError::Nonsense(_)), "{error:?}");
        }
        for (from, to) in [(2, 9), (4, 9), (3, 2)] {
            let cut = format!(r#"{{"cut":{{"stream":"stdout","from":{from},"to":{to}}}}}"#);
            let mut attachment = told([3, 0], &[ATTACHED, &cut]).await.expect("it begins as asked");
            assert!(matches!(attachment.next().await, Err(ClientError::Nonsense(_))), "{cut}");
            assert_eq!(attachment.cursors, [3, 0]);
        }
    }

    #[tokio::test]
    async fn what_is_no_websocket_is_nonsense_and_an_end_without_a_goodbye_an_outage() {
        // Reserved bits, text that is no UTF-8, and a message of 2 MiB; then the begin of a frame.
        let nonsense: [&[u8]; 3] = [&[0xff, 0], &[0x81, 1, 0xff], &[0x82, 127, 0, 0, 0, 0, 0, 0x20, 0, 0]];
        for (bytes, is_nonsense) in
            nonsense.into_iter().map(|bytes| (bytes, true)).chain([(&[0x82, 9, b'a'][..], false)])
        {
            let (ours, mut theirs) = tokio::io::duplex(4096);
            theirs.write_all(bytes).await.expect("there is room");
            drop(theirs);
            let error = Attachment::over(ours, None).await.err().expect("nobody has said anything");
            assert_eq!(matches!(error, ClientError::Nonsense(_)), is_nonsense, "{bytes:?}: {error:?}");
        }
    }
}
