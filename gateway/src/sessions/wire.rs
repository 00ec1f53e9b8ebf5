//! The WebSocket of one session: messages in and out, never more than a little of either in memory.
//!
//! What is to be sent goes in only while there is [room](Wire::has_room), so what waits for a peer that does not read is at
//! most one message more than [`FULL`]; since when it does not read can be asked.
//!
//! tungstenite keeps room for the most that ever came or waited at once. So whenever nothing is half read or unsent, which is known by counting
//! bytes, a WebSocket that has grown is replaced by a new one over the same stream. Whoever has sent a message in several frames, or a length in
//! more bytes than it needs, as ours never do, is not known to have been read to the end, and keeps what it has.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::{FutureExt, Sink, Stream};
use protocol::session::stream::MAX_MESSAGE;
use protocol::session::{MAX_TEXT, close};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Bytes, Error, Message, Utf8Bytes};

use super::end::End;

mod counted;

use counted::Counted;

/// No more is put into a buffer that has so many bytes.
const FULL: usize = 32 * 1024;
/// Read at a time. It is held for as long as the session lasts, and nearly all that comes are beats.
const READ: usize = 768;
/// How long a peer may take to read our last words.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// What it may still be sending meanwhile.
const STILL_SENDING: u64 = 1024 * 1024;

/// What happened on the wire.
#[derive(Debug)]
pub(crate) enum Event {
    /// A control frame or records.
    Text(Utf8Bytes),
    /// Bulk bytes.
    Binary(Bytes),
    /// Something that only shows that the peer is there.
    Sign,
    /// All that was put in has been sent.
    Sent,
}

pub(crate) struct Wire<S> {
    /// Always there, but while one is replaced by another.
    socket: Option<WebSocketStream<Counted<S>>>,
    /// Bytes of the messages that came, with their headers, at least: as many as were read only where nothing is half read.
    came: u64,
    /// More than [`READ`] bytes came as one message, or waited to be sent.
    has_grown: bool,
    /// Bytes that were put in since all had been sent.
    buffered: usize,
    /// Since when there are some.
    since: Option<Instant>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// The server's side, after the upgrade.
    pub(crate) async fn new(stream: S) -> Wire<S> {
        let socket = Some(socket(Counted::new(stream)).await);
        Wire { socket, came: 0, has_grown: false, buffered: 0, since: None }
    }

    fn socket(&mut self) -> &mut WebSocketStream<Counted<S>> {
        self.socket.as_mut().expect("it is replaced at once")
    }

    /// Whether something may be put in.
    pub(super) fn has_room(&self) -> bool {
        self.buffered < FULL
    }

    /// Since when the peer has not taken all that was put in.
    pub(super) fn waiting_since(&self) -> Option<Instant> {
        self.since
    }

    /// Whether the peer has not taken all that was put in for longer than this, also now that it is tried again: the time that we did
    /// not try is not its own.
    pub(super) async fn is_stuck(&mut self, most: Duration) -> Result<bool, End> {
        if self.since.is_none_or(|since| since.elapsed() < most) {
            return Ok(false);
        }
        std::future::poll_fn(|context| Poll::Ready(self.poll_sent(context))).await?;
        Ok(self.since.is_some())
    }

    /// Whether all that was put in has been sent just now.
    fn poll_sent(&mut self, context: &mut Context<'_>) -> Result<bool, End> {
        let sent = self.since.is_some() && Pin::new(self.socket()).poll_flush(context).map_err(end_of)?.is_ready();
        if sent {
            (self.buffered, self.since) = (0, None);
        }
        Ok(sent)
    }

    /// Put a message in; [`Wire::event`] sends it.
    pub(super) fn put(&mut self, message: Message) -> Result<(), End> {
        self.buffered += message.len().max(1);
        self.has_grown |= self.buffered > READ;
        self.since.get_or_insert_with(Instant::now);
        Pin::new(self.socket()).start_send(message).map_err(end_of)
    }

    /// Send what was put in, and receive where `receive` says so.
    pub(crate) async fn event(&mut self, receive: bool) -> Result<Event, End> {
        if self.has_grown && self.is_at_rest() {
            self.shrink();
        }
        std::future::poll_fn(|context| self.poll(context, receive)).await
    }

    /// Whether all that was read are messages that came, and all that was put in was sent.
    fn is_at_rest(&self) -> bool {
        self.since.is_none() && self.socket.as_ref().is_some_and(|socket| socket.get_ref().read == self.came)
    }

    fn shrink(&mut self) {
        if let Some(old) = self.socket.take() {
            // It is there at once: nothing is asked of the stream.
            self.socket = socket(old.into_inner()).now_or_never();
            self.has_grown = false;
        }
    }

    fn poll(&mut self, context: &mut Context<'_>, receive: bool) -> Poll<Result<Event, End>> {
        if self.poll_sent(context)? {
            return Poll::Ready(Ok(Event::Sent));
        }
        if !receive {
            return Poll::Pending;
        }
        let next = ready!(Pin::new(self.socket()).poll_next(context));
        if let Some(Ok(message)) = &next {
            self.came += on_the_wire(message.len());
            self.has_grown |= message.len() > READ;
        }
        Poll::Ready(match next {
            Some(Ok(Message::Text(text))) => Ok(Event::Text(text)),
            Some(Ok(Message::Binary(bytes))) if bytes.len() > MAX_MESSAGE => {
                Err(End::close(close::TOO_LARGE, format!("a binary message is longer than {MAX_MESSAGE} bytes")))
            }
            Some(Ok(Message::Binary(bytes))) => Ok(Event::Binary(bytes)),
            Some(Ok(Message::Ping(_))) => {
                // The answer is in the buffer.
                self.since.get_or_insert_with(Instant::now);
                Ok(Event::Sign)
            }
            Some(Ok(Message::Pong(_) | Message::Frame(_))) => Ok(Event::Sign),
            Some(Ok(Message::Close(_))) => Err(End::Bye { last: false }),
            None => Err(End::Lost),
            Some(Err(error)) => Err(end_of(error)),
        })
    }

    /// Say why it is over, and let the peer read that: closing a socket while bytes come in would make the kernel reset the
    /// connection, and the peer would lose what we said last. Our side ends at once: a peer that has said goodbye waits for that.
    pub(super) async fn close(mut self, end: &End) {
        let last_words = async {
            let frame = match end {
                End::Close(code, reason) => Some((*code, reason.as_str())),
                End::Bye { .. } => Some((1000, "")),
                End::Lost => None,
            };
            let frame = frame.map(|(code, reason)| {
                // A close frame has room for 123 bytes (RFC 6455, 5.5).
                let reason: String = reason.chars().filter(char::is_ascii).take(120).collect();
                CloseFrame { code: CloseCode::from(code), reason: reason.into() }
            });
            let _ = self.socket().close(frame).await;
            let stream = self.socket().get_mut();
            let _ = stream.shutdown().await;
            let mut rest = stream.take(STILL_SENDING);
            let mut scratch = [0; 2048];
            while rest.read(&mut scratch).await.is_ok_and(|count| count > 0) {}
        };
        let _ = tokio::time::timeout(LAST_WORDS, last_words).await;
    }
}

/// The server's side.
async fn socket<S: AsyncRead + AsyncWrite + Unpin>(stream: S) -> WebSocketStream<S> {
    let config = WebSocketConfig::default()
        .read_buffer_size(READ)
        .write_buffer_size(16 * 1024)
        // Room for what is put in at most; reaching it would be a bug.
        .max_write_buffer_size(FULL + 2 * MAX_TEXT)
        .max_message_size(Some(MAX_TEXT))
        .max_frame_size(Some(MAX_TEXT));
    WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await
}

/// A client's message of so many bytes: at least this long with header and mask (RFC 6455, 5.2). In several frames it is longer.
fn on_the_wire(length: usize) -> u64 {
    let header = match length {
        0..=125 => 6,
        126..=65_535 => 8,
        _ => 14,
    };
    header + length as u64
}

/// What an error of the WebSocket means for the session.
fn end_of(error: Error) -> End {
    match error {
        Error::Capacity(_) => End::close(close::TOO_LARGE, format!("a message is longer than {MAX_TEXT} bytes")),
        Error::Utf8(_) => End::malformed("a text message is not UTF-8"),
        Error::Protocol(tokio_tungstenite::tungstenite::error::ProtocolError::ResetWithoutClosingHandshake) => {
            End::Lost
        }
        Error::Protocol(error) => End::malformed(error.to_string()),
        Error::WriteBufferFull(_) => End::close(close::INTERNAL, "too much was put on the wire"),
        _ => End::Lost,
    }
}

#[cfg(test)]
mod tests;
