//! The WebSocket: one message under way at a time, so that what is more urgent never waits behind more than one.
//!
//! Promises: reading goes on while writing waits, so two sides that both write cannot block each other; a message that is
//! too long is refused before it is held; what is held for this connection is bounded and small while it is idle.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use futures_util::{Sink, Stream};
use protocol::session::MAX_TEXT;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::machine::Machine;

/// For our own close and the peer's answer to it.
const FAREWELL: Duration = Duration::from_secs(2);

/// What happened on it.
pub(super) enum Event {
    /// What was under way has gone to the kernel.
    Sent,
    /// A control frame or records.
    Text(String),
    /// Bytes of a stream.
    Binary(Vec<u8>),
    /// The peer has closed, and why.
    Closed(Option<(u16, String)>),
    /// A message is longer than its limit.
    TooLarge,
    /// Not WebSocket.
    Broken(Error),
}

/// One connection.
pub(super) struct Socket<S> {
    stream: WebSocketStream<S>,
    machine: Machine,
    /// Since when a message is under way.
    sending: Option<Duration>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    pub(super) async fn new(connection: S, machine: Machine) -> Socket<S> {
        let config = WebSocketConfig::default()
            .read_buffer_size(4 * 1024)
            .write_buffer_size(0)
            .max_write_buffer_size(2 * MAX_TEXT)
            .max_message_size(Some(MAX_TEXT))
            .max_frame_size(Some(MAX_TEXT));
        let stream = WebSocketStream::from_raw_socket(connection, Role::Client, Some(config)).await;
        Socket { stream, machine, sending: None }
    }

    /// Whether it takes a message.
    pub(super) fn is_free(&self) -> bool {
        self.sending.is_none()
    }

    /// Since when a message is under way that the peer does not take.
    pub(super) fn sending(&self) -> Option<Duration> {
        self.sending
    }

    /// Put a message under way.
    pub(super) fn send(&mut self, message: Message) -> Result<(), Error> {
        self.sending = Some(self.machine.now());
        Pin::new(&mut self.stream).start_send(message)
    }

    /// The next thing that happens. It may be given up and asked for again.
    pub(super) async fn event(&mut self) -> Event {
        poll_fn(|context| {
            if self.sending.is_some() {
                match Pin::new(&mut self.stream).poll_flush(context) {
                    Poll::Ready(Ok(())) => {
                        self.sending = None;
                        return Poll::Ready(Event::Sent);
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Event::Broken(error)),
                    Poll::Pending => {}
                }
            }
            loop {
                let Poll::Ready(message) = Pin::new(&mut self.stream).poll_next(context) else { return Poll::Pending };
                return Poll::Ready(match message {
                    Some(Ok(Message::Text(text))) => Event::Text(text.as_str().to_owned()),
                    Some(Ok(Message::Binary(bytes))) => Event::Binary(bytes.into()),
                    Some(Ok(Message::Close(frame))) => {
                        Event::Closed(frame.map(|frame| (frame.code.into(), frame.reason.as_str().to_owned())))
                    }
                    // Pings are answered inside, and the answer goes with the next read or write.
                    Some(Ok(_)) => continue,
                    Some(Err(Error::Capacity(_))) => Event::TooLarge,
                    Some(Err(error)) => Event::Broken(error),
                    None => Event::Closed(None),
                });
            }
        })
        .await
    }

    /// Say why, and wait for a moment until the peer has read everything: closing while its bytes are still coming would
    /// reset the connection and take our last ones with it.
    pub(super) async fn close(mut self, code: u16, reason: &str) {
        let farewell = async {
            while self.sending.is_some() {
                if !matches!(self.event().await, Event::Sent | Event::Text(_) | Event::Binary(_)) {
                    return;
                }
            }
            let frame = CloseFrame { code: CloseCode::from(code), reason: reason.to_owned().into() };
            if self.send(Message::Close(Some(frame))).is_err() {
                return;
            }
            while !matches!(self.event().await, Event::Closed(_) | Event::Broken(_) | Event::TooLarge) {}
        };
        let _ = tokio::time::timeout(FAREWELL, farewell).await;
    }
}
