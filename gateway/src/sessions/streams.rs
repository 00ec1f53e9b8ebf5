//! Byte streams to one sandbox, as if they were TCP connections: the multiplexer of the protocol with readers and writers
//! that are woken.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use protocol::session::mux::{Event, Mux, Read, Side, Write};
use protocol::session::stream::Malformed;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

/// All streams of one session.
#[derive(Debug)]
pub struct Streams {
    inner: Mutex<Inner>,
    /// Told when there is something to send.
    wake: Arc<Notify>,
}

#[derive(Debug)]
struct Inner {
    mux: Mux,
    waiting: BTreeMap<u32, Waiting>,
    over: bool,
}

/// Who is to be woken.
#[derive(Debug, Default)]
struct Waiting {
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Streams {
    /// No streams yet.
    pub fn new(wake: Arc<Notify>) -> Streams {
        let inner = Inner { mux: Mux::new(Side::Gateway), waiting: BTreeMap::new(), over: false };
        Streams { inner: Mutex::new(inner), wake }
    }

    /// A new stream; `None` where there are too many, or the session is over.
    pub fn open(self: &Arc<Self>) -> Option<Stream> {
        let mut inner = self.lock();
        if inner.over {
            return None;
        }
        let id = inner.mux.open()?;
        inner.waiting.insert(id, Waiting::default());
        drop(inner);
        self.wake.notify_one();
        Some(Stream { id, streams: self.clone() })
    }

    /// Take a binary message.
    pub(super) fn receive(&self, message: &[u8]) -> Result<(), Malformed> {
        let mut inner = self.lock();
        if let Some(event) = inner.mux.receive(message)? {
            inner.wake(event);
        }
        // Refusals and credit.
        if inner.mux.has_message() {
            self.wake.notify_one();
        }
        Ok(())
    }

    /// The next message to send.
    pub(super) fn next_message(&self) -> Option<Vec<u8>> {
        let mut inner = self.lock();
        let (message, event) = inner.mux.next_message()?;
        if let Some(event) = event {
            inner.wake(event);
        }
        Some(message)
    }

    /// The session is over: readers and writers are told.
    pub(super) fn end(&self) {
        let mut inner = self.lock();
        inner.over = true;
        let ids: Vec<u32> = inner.waiting.keys().copied().collect();
        for id in ids {
            inner.mux.reset(id, "the session ended");
            inner.wake(Event::Over(id));
        }
    }

    /// Whether nobody here has one.
    pub(super) fn is_empty(&self) -> bool {
        self.lock().waiting.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn wake(&mut self, event: Event) {
        let (id, reads, writes) = match event {
            Event::Opened(_) => return,
            Event::Readable(id) => (id, true, false),
            Event::Writable(id) => (id, false, true),
            Event::Over(id) => (id, true, true),
        };
        let Some(waiting) = self.waiting.get_mut(&id) else { return };
        if let Some(waker) = waiting.reader.take_if(|_| reads) {
            waker.wake();
        }
        if let Some(waker) = waiting.writer.take_if(|_| writes) {
            waker.wake();
        }
    }
}

/// One stream. The other side learns when it is dropped.
#[derive(Debug)]
pub struct Stream {
    id: u32,
    streams: Arc<Streams>,
}

fn reset(reason: String) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, reason)
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.streams.lock();
        match inner.mux.read(self.id, into.initialize_unfilled()) {
            Read::Bytes(count) => {
                let credit = inner.mux.has_message();
                drop(inner);
                into.advance(count);
                if credit {
                    self.streams.wake.notify_one();
                }
                Poll::Ready(Ok(()))
            }
            Read::Wait => {
                inner.waiting.entry(self.id).or_default().reader = Some(context.waker().clone());
                Poll::Pending
            }
            Read::End => Poll::Ready(Ok(())),
            Read::Reset(reason) => Poll::Ready(Err(reset(reason))),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut inner = self.streams.lock();
        match inner.mux.write(self.id, bytes) {
            Write::Taken(count) => {
                drop(inner);
                self.streams.wake.notify_one();
                Poll::Ready(Ok(count))
            }
            Write::Wait => {
                inner.waiting.entry(self.id).or_default().writer = Some(context.waker().clone());
                Poll::Pending
            }
            Write::Reset(reason) => Poll::Ready(Err(reset(reason))),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.streams.lock().mux.close(self.id);
        self.streams.wake.notify_one();
        Poll::Ready(Ok(()))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut inner = self.streams.lock();
        inner.mux.forget(self.id);
        inner.waiting.remove(&self.id);
        drop(inner);
        self.streams.wake.notify_one();
    }
}
