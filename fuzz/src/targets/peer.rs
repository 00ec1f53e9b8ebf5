//! Somebody at the other end of a connection, who says what an input has him say, takes everything, and goes.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use protocol::websocket;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Where it stands in what he says, it becomes the proof that he has read the key of a WebSocket's handshake, which no input can know.
pub(super) const PROOF: &[u8] = b"{proof}";

pub(super) struct Peer {
    says: Vec<u8>,
    said: usize,
    /// Until then he says nothing.
    asked: Option<Asked>,
}

#[derive(Default)]
struct Asked {
    head: Vec<u8>,
    waker: Option<Waker>,
}

impl Peer {
    /// Says it at once.
    pub(super) fn new(says: &[u8]) -> Peer {
        Peer { says: says.into(), said: 0, asked: None }
    }

    /// Says it to a request.
    pub(super) fn of_http(says: &[u8]) -> Peer {
        Peer { asked: Some(Asked::default()), ..Peer::new(says) }
    }
}

impl AsyncRead for Peer {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if let Some(asked) = &mut self.asked {
            asked.waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        let left = &self.says[self.said..];
        let now = left.len().min(into.remaining());
        into.put_slice(&left[..now]);
        self.said += now;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Peer {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        if let Some(asked) = &mut self.asked {
            asked.head.extend(bytes);
            if asked.head.ends_with(b"\r\n\r\n")
                && let Some(Asked { head, waker }) = self.asked.take()
            {
                self.says = proved(&self.says, &head);
                waker.into_iter().for_each(Waker::wake);
            }
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn proved(says: &[u8], head: &[u8]) -> Vec<u8> {
    let head = String::from_utf8_lossy(head);
    let key = head.lines().filter_map(|line| line.split_once(": ")).find(|(name, _)| *name == "sec-websocket-key");
    match (key, says.windows(PROOF.len()).position(|at| at == PROOF)) {
        (Some((_, key)), Some(at)) => {
            [&says[..at], websocket::accept(key.as_bytes()).as_bytes(), &says[at + PROOF.len()..]].concat()
        }
        _ => says.into(),
    }
}
