//! Bodies that come and go in pieces: one piece waits at a time, so the slower side sets the pace.

use std::future::poll_fn;
use std::io::{self, Read};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes, HttpBody};
use futures_core::Stream;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout_at};

use crate::workspace::failure::{Failure, Kind};

/// A client that sends nothing for so long has gone.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes a second over the whole body, beyond [`PATIENCE`]: so slow is a poor line, and who is slower may not hold a connection.
const SLOWEST: u64 = 32 * 1024;

/// A piece of a body, or its breaking off.
pub(crate) type Part = io::Result<Bytes>;

/// A body, and where its pieces are put in. It is whole when the sender is dropped without an error.
pub(crate) fn body() -> (mpsc::Sender<Part>, Body) {
    let (sender, receiver) = mpsc::channel(1);
    (sender, Body::from_stream(Received(receiver)))
}

struct Received(mpsc::Receiver<Part>);

impl Stream for Received {
    type Item = Part;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Part>> {
        self.0.poll_recv(context)
    }
}

/// Takes a body piece by piece, each within its time and all within theirs.
pub(crate) struct Reader {
    pieces: BodyDataStream,
    deadline: Instant,
}

impl Reader {
    pub(crate) fn new(body: Body) -> Reader {
        let length = body.size_hint().exact().unwrap_or(0);
        let deadline = Instant::now() + PATIENCE + Duration::from_secs(length / SLOWEST);
        Reader { pieces: body.into_data_stream(), deadline }
    }

    /// The next piece, `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        let until = self.deadline.min(Instant::now() + PATIENCE);
        match timeout_at(until, poll_fn(|context| Pin::new(&mut self.pieces).poll_next(context))).await {
            Err(_) => Err(Failure::new(Kind::Late, "the body came too slowly")),
            Ok(piece) => {
                piece.transpose().map_err(|e| Failure::new(Kind::Invalid, format!("the body did not come whole: {e}")))
            }
        }
    }
}

/// The first `most` bytes of a body, or as many as come before it breaks off.
pub(crate) async fn beginning(body: Body, most: usize) -> Vec<u8> {
    let (mut bytes, mut reader) = (Vec::new(), Reader::new(body));
    while bytes.len() < most
        && let Ok(Some(piece)) = reader.next().await
    {
        bytes.extend(&piece[..piece.len().min(most - bytes.len())]);
    }
    bytes
}

/// A file of ours as a body.
pub(crate) fn file(file: std::fs::File) -> Body {
    let (sender, body) = body();
    tokio::spawn(async move {
        let mut file = file;
        loop {
            let read = spawn_blocking(move || {
                let mut piece = vec![0; 256 * 1024];
                let count = file.read(&mut piece)?;
                piece.truncate(count);
                Ok((file, piece))
            });
            let part = match read.await.unwrap_or_else(|_| Err(io::ErrorKind::Other.into())) {
                Ok((_, piece)) if piece.is_empty() => return,
                Ok((same, piece)) => {
                    file = same;
                    Ok(piece.into())
                }
                Err(e) => {
                    let _ = sender.send(Err(e)).await;
                    return;
                }
            };
            if sender.send(part).await.is_err() {
                return;
            }
        }
    });
    body
}
