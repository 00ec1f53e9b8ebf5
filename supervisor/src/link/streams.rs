//! Byte streams of the session, answered by the supervisor's own HTTP server: what a TCP connection would be, without an
//! inbound port.
//!
//! Promises: what is held for one stream is bounded ([`Mux`]); a slow reader or writer slows its own stream and no other;
//! with the session all its streams are over. Whoever calls here has the session's authority: the gateway was
//! authenticated when the session was dialled, and the connection says so to the server ([`http::Trusted`]), so no token
//! travels.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use axum::Router;
use protocol::session::mux::{Event, Mux, Read, Side, Write};
use protocol::session::stream::Malformed;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

use crate::http;

/// All streams of one session.
pub(super) struct Streams {
    shared: Arc<Shared>,
    routes: Router,
}

struct Shared {
    state: Mutex<State>,
    /// There is something to send.
    wanted: Notify,
}

struct State {
    mux: Mux,
    readers: BTreeMap<u32, Waker>,
    writers: BTreeMap<u32, Waker>,
    /// The session has ended.
    over: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic in there is a bug of the mux; the streams' own bounds still hold.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn wake(&mut self, event: Event) {
        let (id, reader, writer) = match event {
            Event::Opened(id) | Event::Over(id) => (id, true, true),
            Event::Readable(id) => (id, true, false),
            Event::Writable(id) => (id, false, true),
        };
        if reader && let Some(waker) = self.readers.remove(&id) {
            waker.wake();
        }
        if writer && let Some(waker) = self.writers.remove(&id) {
            waker.wake();
        }
    }
}

impl Streams {
    /// None yet; `routes` answers on them.
    pub(super) fn new(routes: Router) -> Streams {
        let state =
            State { mux: Mux::new(Side::Supervisor), readers: BTreeMap::new(), writers: BTreeMap::new(), over: false };
        Streams { shared: Arc::new(Shared { state: Mutex::new(state), wanted: Notify::new() }), routes }
    }

    /// Take one binary message.
    pub(super) fn receive(&self, message: &[u8]) -> Result<(), Malformed> {
        let mut state = self.shared.lock();
        let Some(event) = state.mux.receive(message)? else { return Ok(()) };
        state.wake(event);
        drop(state);
        if let Event::Opened(id) = event {
            let stream = Stream { id, shared: self.shared.clone() };
            // A panic in there ends this task and no other; the hook counts it.
            let trusted = |request: &mut hyper::Request<_>| {
                request.extensions_mut().insert(http::Trusted);
                true
            };
            tokio::spawn(http::answer(stream, self.routes.clone(), trusted));
        }
        Ok(())
    }

    /// The next message to send.
    pub(super) fn message(&self) -> Option<Vec<u8>> {
        let mut state = self.shared.lock();
        let (message, event) = state.mux.next_message()?;
        if let Some(event) = event {
            state.wake(event);
        }
        Some(message)
    }

    /// Until there may be one.
    pub(super) async fn wanted(&self) {
        self.shared.wanted.notified().await;
    }
}

/// With the session.
impl Drop for Streams {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.over = true;
        let wakers = [std::mem::take(&mut state.readers), std::mem::take(&mut state.writers)];
        drop(state);
        wakers.into_iter().flat_map(BTreeMap::into_values).for_each(Waker::wake);
    }
}

/// One stream, as the server sees it.
struct Stream {
    id: u32,
    shared: Arc<Shared>,
}

impl Stream {
    /// Do something with the mux, and let the session send what that asks for.
    fn with<T>(&self, action: impl FnOnce(&mut State) -> T) -> Result<T, io::Error> {
        let mut state = self.shared.lock();
        if state.over {
            return Err(io::Error::new(io::ErrorKind::ConnectionReset, "the session has ended"));
        }
        let done = action(&mut state);
        if state.mux.has_message() {
            self.shared.wanted.notify_one();
        }
        Ok(done)
    }
}

fn reset(reason: String) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, reason)
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let id = self.id;
        let read = self.with(|state| {
            let read = state.mux.read(id, into.initialize_unfilled());
            if read == Read::Wait {
                state.readers.insert(id, context.waker().clone());
            }
            read
        })?;
        match read {
            Read::Bytes(count) => into.advance(count),
            Read::End => {}
            Read::Wait => return Poll::Pending,
            Read::Reset(reason) => return Poll::Ready(Err(reset(reason))),
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let id = self.id;
        let written = self.with(|state| {
            let written = state.mux.write(id, bytes);
            if written == Write::Wait {
                state.writers.insert(id, context.waker().clone());
            }
            written
        })?;
        match written {
            Write::Taken(count) => Poll::Ready(Ok(count)),
            Write::Wait => Poll::Pending,
            Write::Reset(reason) => Poll::Ready(Err(reset(reason))),
        }
    }

    /// What was written is queued for the session; how fast that goes is felt by the next write.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let id = self.id;
        Poll::Ready(self.with(|state| state.mux.close(id)))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let id = self.id;
        let _ = self.with(|state| {
            state.mux.forget(id);
            (state.readers.remove(&id), state.writers.remove(&id))
        });
    }
}
