//! Bytes on the WebSocket of a session, as a hostile client sends them.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use protocol::session::MAX_TEXT;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::Target;

pub(crate) const TARGET: Target = Target { name: "messages", longest: 4096, run, seeds };

fn run(data: &[u8]) {
    let mut reading = std::pin::pin!(gateway::untrusted::messages(Peer(data)));
    let Poll::Ready(lengths) = reading.as_mut().poll(&mut Context::from_waker(Waker::noop())) else {
        panic!("it waits for a peer that has gone");
    };
    let most = MAX_TEXT.min(data.len());
    assert!(lengths.iter().all(|length| *length <= most), "more came out than went in");
}

/// Sends these bytes and goes; takes everything.
struct Peer<'d>(&'d [u8]);

impl AsyncRead for Peer<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let (now, later) = self.0.split_at(self.0.len().min(into.remaining()));
        into.put_slice(now);
        self.0 = later;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Peer<'_> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn seeds() -> Vec<Vec<u8>> {
    vec![
        // A text in two parts with a ping between, masked with zeros (RFC 6455, 5.2).
        vec![0x01, 0x82, 0, 0, 0, 0, b'h', b'i', 0x89, 0x80, 0, 0, 0, 0, 0x80, 0x81, 0, 0, 0, 0, b'!'],
        vec![0x82, 0xfe, 0, 126, 1, 2, 3, 4],
        vec![0x82, 0xff, 0, 0, 0, 0, 0, 1, 0, 0, 1, 2, 3, 4],
        vec![0x88, 0x82, 0, 0, 0, 0, 3, 0xe8],
    ]
}
