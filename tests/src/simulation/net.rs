//! A network of one gateway and some sandboxes, in memory and in virtual time: connections with a delay, that break, fall silent or
//! stall. What was sent arrives in its order, or not at all, unless a middlebox has [whims](Whim).

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use peer::PeerError;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use super::chance::Chance;
use super::middlebox::Frames;
pub(super) use super::middlebox::Whim;
use super::trace::Trace;

/// What one direction holds before its writer waits.
const FULL: usize = 128 * 1024;
/// A dial that nobody answers.
const UNANSWERED: Duration = Duration::from_secs(5);

/// Cheap to clone.
#[derive(Clone)]
pub(super) struct Net(Arc<Mutex<State>>);

struct State {
    chance: Chance,
    trace: Trace,
    /// One way, in ms.
    delay: (u64, u64),
    /// Dials are refused until then.
    refused: Instant,
    gateway: Option<mpsc::UnboundedSender<End>>,
    connections: Vec<Connection>,
    /// Since when, and until when, each sandbox is cut off.
    partitions: Vec<Instant>,
}

struct Connection {
    sandbox: usize,
    up: Shared,
    down: Shared,
}

type Shared = Arc<Mutex<Pipe>>;

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// From the sandbox.
    Up,
    /// To it.
    Down,
    /// Both.
    Both,
}

impl Net {
    pub(super) fn new(sandboxes: usize, chance: Chance, trace: Trace) -> Net {
        let now = Instant::now();
        Net(Arc::new(Mutex::new(State {
            chance,
            trace,
            delay: (1, 3),
            refused: now,
            gateway: None,
            connections: Vec::new(),
            partitions: vec![now; sandboxes],
        })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A gateway listens from now on.
    pub(super) fn listen(&self) -> mpsc::UnboundedReceiver<End> {
        let (sender, dialled) = mpsc::unbounded_channel();
        self.lock().gateway = Some(sender);
        dialled
    }

    /// Nobody listens any more.
    pub(super) fn close(&self) {
        self.lock().gateway = None;
    }

    /// Each byte takes so long, one way.
    pub(super) fn delay(&self, least: u64, most: u64) {
        self.lock().delay = (least, most.max(least));
    }

    /// No dial succeeds for so long.
    pub(super) fn refuse(&self, time: Duration) {
        self.lock().refused = Instant::now() + time;
    }

    /// Nothing gets through for so long; then all of it does.
    pub(super) fn partition(&self, sandbox: usize, time: Duration) {
        self.lock().partitions[sandbox] = Instant::now() + time;
        self.stall(sandbox, Way::Both, time);
    }

    /// Dials get through again, and no frame meets a whim any more. What was cut off stays as it is.
    pub(super) fn heal(&self) {
        for connection in &self.lock().connections {
            connection.up().frames.whims.clear();
            connection.down().frames.whims.clear();
        }
        let mut state = self.lock();
        let now = Instant::now();
        (state.delay, state.refused) = ((1, 3), now);
        state.partitions.iter_mut().for_each(|until| *until = now);
    }

    /// Dial the gateway.
    pub(super) async fn dial(self, sandbox: usize) -> Result<End, PeerError> {
        let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 1);
        let failed = |kind: io::ErrorKind| PeerError::Connect { address, source: kind.into() };
        let (delay, cut_off) = {
            let mut state = self.lock();
            (state.draw_delay(), state.partitions[sandbox] > Instant::now())
        };
        if cut_off {
            sleep(UNANSWERED).await;
            return Err(failed(io::ErrorKind::TimedOut));
        }
        sleep(delay * 2).await;
        let mut state = self.lock();
        if state.refused > Instant::now() {
            return Err(failed(io::ErrorKind::ConnectionRefused));
        }
        let Some(gateway) = state.gateway.clone() else { return Err(failed(io::ErrorKind::ConnectionRefused)) };
        let pipe = || Arc::new(Mutex::new(Pipe::new()));
        let (up, down) = (pipe(), pipe());
        state.connections.retain(|connection| Arc::strong_count(&connection.up) > 1);
        state.connections.push(Connection { sandbox, up: up.clone(), down: down.clone() });
        let theirs = End::new(self.clone(), up.clone(), down.clone());
        let ours = End::new(self.clone(), down, up);
        if gateway.send(theirs).is_err() {
            return Err(failed(io::ErrorKind::ConnectionRefused));
        }
        Ok(ours)
    }

    /// All connections of this sandbox, or of all, break; a part of what is under way still arrives.
    pub(super) fn cut(&self, sandbox: Option<usize>) {
        let mut state = self.lock();
        let State { connections, chance, .. } = &mut *state;
        for connection in connections.iter().filter(|c| sandbox.is_none_or(|sandbox| c.sandbox == sandbox)) {
            connection.up().cut(chance);
            connection.down().cut(chance);
        }
    }

    /// What is sent that way on the connections of this sandbox, or of all, never arrives.
    pub(super) fn swallow(&self, sandbox: Option<usize>, way: Way) {
        self.each(sandbox, way, |pipe| pipe.swallow());
    }

    /// Nobody is told that the gateway is no more.
    pub(super) fn forget_gateway(&self) {
        self.swallow(None, Way::Both);
    }

    /// The gateway is no more: its own ends of all connections are gone.
    pub(super) fn end_gateway(&self) {
        for connection in &self.lock().connections {
            connection.up().leave(true);
            connection.down().leave(false);
        }
    }

    /// What is under way, and what is sent from now on, arrives after so long.
    pub(super) fn stall(&self, sandbox: usize, way: Way, time: Duration) {
        self.each(Some(sandbox), way, |pipe| pipe.not_before = pipe.not_before.max(Instant::now() + time));
    }

    /// The next frame that way meets this whim.
    pub(super) fn whim(&self, sandbox: usize, way: Way, whim: Whim) {
        self.each(Some(sandbox), way, |pipe| pipe.frames.whims.push_back(whim));
    }

    fn each(&self, sandbox: Option<usize>, way: Way, act: impl Fn(&mut Pipe)) {
        let state = self.lock();
        for connection in state.connections.iter().filter(|c| sandbox.is_none_or(|sandbox| c.sandbox == sandbox)) {
            if way != Way::Down {
                act(&mut connection.up());
            }
            if way != Way::Up {
                act(&mut connection.down());
            }
        }
    }
}

impl State {
    fn draw_delay(&mut self) -> Duration {
        Duration::from_millis(self.chance.between(self.delay.0, self.delay.1))
    }
}

impl Connection {
    fn up(&self) -> MutexGuard<'_, Pipe> {
        lock(&self.up)
    }

    fn down(&self) -> MutexGuard<'_, Pipe> {
        lock(&self.down)
    }
}

fn lock(pipe: &Shared) -> MutexGuard<'_, Pipe> {
    pipe.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One direction of a connection.
struct Pipe {
    /// What is under way and when it arrives; nothing is the end of it.
    chunks: VecDeque<(Instant, Vec<u8>)>,
    bytes: usize,
    frames: Frames,
    not_before: Instant,
    swallowed: bool,
    /// It broke: whoever reads has what arrived before, and then an error.
    broken: bool,
    /// Nobody reads any more.
    deaf: bool,
    /// Whoever reads, or writes, was killed, and the other one was not told.
    reader_is_gone: bool,
    writer_is_gone: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Pipe {
    fn new() -> Pipe {
        Pipe {
            chunks: VecDeque::new(),
            bytes: 0,
            frames: Frames::default(),
            not_before: Instant::now(),
            swallowed: false,
            broken: false,
            deaf: false,
            reader_is_gone: false,
            writer_is_gone: false,
            reader: None,
            writer: None,
        }
    }

    fn is_over(&self) -> bool {
        self.broken || self.deaf
    }

    fn put(&mut self, chunk: Vec<u8>, delay: Duration) {
        if self.swallowed {
            return;
        }
        let newest = self.chunks.back().map_or(self.not_before, |(at, _)| *at);
        let at = (Instant::now() + delay).max(newest).max(self.not_before);
        self.bytes += chunk.len();
        self.chunks.push_back((at, chunk));
        self.wake_reader();
    }

    fn cut(&mut self, chance: &mut Chance) {
        let kept = chance.below(self.chunks.len() as u64 + 1) as usize;
        if let Some((_, last)) = self.chunks.get_mut(kept) {
            last.truncate(chance.below(last.len() as u64 + 1) as usize);
        }
        self.chunks.truncate(kept + 1);
        self.chunks.retain(|(_, chunk)| !chunk.is_empty());
        self.broken = true;
        self.wake_reader();
        self.wake_writer();
    }

    fn swallow(&mut self) {
        self.swallowed = true;
        self.chunks.clear();
    }

    fn leave(&mut self, reads: bool) {
        if reads {
            self.reader_is_gone = true;
            self.wake_reader();
        } else {
            self.writer_is_gone = true;
            self.wake_writer();
        }
    }

    fn wake_reader(&mut self) {
        self.reader.take().into_iter().for_each(Waker::wake);
    }

    fn wake_writer(&mut self) {
        self.writer.take().into_iter().for_each(Waker::wake);
    }
}

/// One end of a connection.
pub(super) struct End {
    net: Net,
    from: Shared,
    to: Shared,
    timer: Pin<Box<Sleep>>,
}

impl End {
    fn new(net: Net, from: Shared, to: Shared) -> End {
        End { net, from, to, timer: Box::pin(sleep_until(Instant::now())) }
    }
}

impl AsyncRead for End {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let End { net, from, timer, .. } = self.get_mut();
        loop {
            let mut pipe = lock(from);
            let arrives = pipe.chunks.front().map(|(at, _)| (*at).max(pipe.not_before));
            match arrives {
                _ if pipe.reader_is_gone => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
                None if pipe.broken => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
                None => {
                    pipe.reader = Some(context.waker().clone());
                    return Poll::Pending;
                }
                Some(at) if at > Instant::now() => {
                    pipe.reader = Some(context.waker().clone());
                    drop(pipe);
                    timer.as_mut().reset(at);
                    if timer.as_mut().poll(context).is_pending() {
                        return Poll::Pending;
                    }
                }
                Some(_) => {
                    let Some((_, chunk)) = pipe.chunks.front_mut() else { return Poll::Pending };
                    if chunk.is_empty() {
                        // The end, again and again.
                        return Poll::Ready(Ok(()));
                    }
                    let count = chunk.len().min(into.remaining());
                    into.put_slice(&chunk[..count]);
                    chunk.drain(..count);
                    if chunk.is_empty() {
                        pipe.chunks.pop_front();
                    }
                    pipe.bytes -= count;
                    pipe.wake_writer();
                    drop(pipe);
                    net.lock().trace.note(format_args!("{count} bytes"));
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

impl AsyncWrite for End {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let delay = self.net.lock().draw_delay();
        let mut pipe = lock(&self.to);
        if pipe.is_over() || pipe.writer_is_gone {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if pipe.bytes >= FULL {
            pipe.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        if pipe.swallowed {
            pipe.bytes += bytes.len();
        }
        for chunk in pipe.frames.take(bytes) {
            pipe.put(chunk, delay);
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let delay = self.net.lock().draw_delay();
        lock(&self.to).put(Vec::new(), delay);
        Poll::Ready(Ok(()))
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let delay = self.net.lock().draw_delay();
        lock(&self.to).put(Vec::new(), delay);
        let mut from = lock(&self.from);
        // Who was killed without a word does not say so.
        from.deaf |= !from.swallowed;
        from.wake_writer();
    }
}
