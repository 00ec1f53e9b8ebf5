//! The agent's stdout and stderr, passed on unchanged.
//!
//! Promises: bytes come out as they went in, in order; a reader that stops makes the agent block, as if it wrote to
//! that reader itself, and makes nothing else block; when the reader has gone the agent gets EPIPE; our own lines
//! on stderr start at a line boundary.
//!
//! One pipe a stream lasts as long as the supervisor. Its write end is given to every run of the agent, so a restart
//! loses nothing and a process that keeps the pipe open delays nobody. While bytes flow, one thread copies with
//! blocking calls; when the pipe is empty that thread ends, so an idle supervisor has one thread.

use std::collections::VecDeque;
use std::io::{self, Read, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::net::unix::pipe::Receiver;
use tokio::sync::Notify;
use tokio::task::spawn_blocking;

use crate::metrics::{Counter, Metrics};

/// Our own lines wait this long for the agent to finish its line; then they begin with a newline of their own.
const LINE_PATIENCE: Duration = Duration::from_secs(2);
/// Own lines wait so long for others: a thread is woken for all of them, and a dev-task has several in a millisecond.
const GATHER: Duration = Duration::from_millis(2);
/// Own lines kept while stderr is blocked; more are dropped and counted.
const QUEUED_LINES: usize = 1024;
/// A flood lets others have its thread after this much.
const TURN: usize = 4 * 1024 * 1024;
/// One copy step: what a pipe holds by default (`pipe(7)`).
const CHUNK: usize = 64 * 1024;

/// One of our own standard streams, and the lines that wait for it.
pub struct Sink {
    /// Held while writing, which may block for as long as the reader likes. Never taken by the event loop.
    stream: Mutex<Stream>,
    /// Held for an instant.
    lines: Mutex<VecDeque<Vec<u8>>>,
    waiting: Notify,
    dropped: Counter,
    lost: Counter,
}

/// What became of the lines that were queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flushed {
    /// All are out.
    All,
    /// They wait for the agent to finish its line.
    Held,
}

struct Stream {
    file: std::fs::File,
    at_line_start: bool,
}

impl Sink {
    /// Around a duplicate of `descriptor`. The duplicate shares the file description, so its flags stay untouched.
    pub fn new(descriptor: impl AsFd, metrics: &Metrics) -> io::Result<Arc<Sink>> {
        let file = std::fs::File::from(descriptor.as_fd().try_clone_to_owned()?);
        Ok(Arc::new(Sink {
            stream: Mutex::new(Stream { file, at_line_start: true }),
            lines: Mutex::default(),
            waiting: Notify::new(),
            dropped: metrics.log_lines_dropped.clone(),
            lost: metrics.output_lost_bytes.clone(),
        }))
    }

    /// Queue one of our own lines. Never blocks.
    pub fn queue_line(&self, line: &[u8]) {
        let mut lines = lock(&self.lines);
        if lines.len() >= QUEUED_LINES {
            self.dropped.inc();
            return;
        }
        lines.push_back(line.to_vec());
        self.waiting.notify_one();
    }

    /// Write queued lines as they come; for as long as the supervisor runs.
    pub async fn write_lines(self: Arc<Sink>) {
        loop {
            self.waiting.notified().await;
            tokio::time::sleep(GATHER).await;
            if self.clone().flush(false).await == Flushed::Held {
                tokio::time::sleep(LINE_PATIENCE).await;
                self.clone().flush(true).await;
            }
        }
    }

    /// Write what is queued; with `force`, also after an unfinished line of the agent's.
    pub async fn flush(self: Arc<Sink>, force: bool) -> Flushed {
        // A panic in there is a bug in the copy below; the lines are then lost, the supervisor is not.
        spawn_blocking(move || self.flush_now(force)).await.unwrap_or(Flushed::All)
    }

    /// The same for a thread that may block.
    pub fn flush_now(&self, force: bool) -> Flushed {
        lock(&self.stream).write_queued(&self.lines, force)
    }

    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let mut stream = lock(&self.stream);
        match stream.write_fully(bytes) {
            // The reader has gone, and the agent is to learn it.
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => return Err(e),
            // A full disk may have room for the next bytes; who wrote there directly could go on, too.
            Err(_) => drop(self.lost.inc_by(bytes.len() as u64)),
            Ok(()) => {
                stream.write_queued(&self.lines, false);
            }
        }
        Ok(())
    }
}

impl Stream {
    fn write_queued(&mut self, lines: &Mutex<VecDeque<Vec<u8>>>, force: bool) -> Flushed {
        if !self.at_line_start && !force {
            return Flushed::Held;
        }
        while let Some(line) = lock(lines).pop_front() {
            let separator: &[u8] = if self.at_line_start { b"" } else { b"\n" };
            // Nobody reads our stderr any more: there is no place left to say so.
            if self.write_fully(separator).and_then(|()| self.write_fully(&line)).is_err() {
                return Flushed::All;
            }
        }
        Flushed::All
    }

    fn write_fully(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        if let Some(last) = bytes.last() {
            self.at_line_start = *last == b'\n';
        }
        while !bytes.is_empty() {
            match self.file.write(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // Somebody who shares the description made it non-blocking; we still block.
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    let mut wait = [PollFd::new(self.file.as_fd(), PollFlags::POLLOUT)];
                    poll(&mut wait, PollTimeout::NONE)?;
                }
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

/// Sees what has been passed on. Never waits.
pub type Tap = Box<dyn FnMut(&[u8]) + Send>;

/// One stream of the agent: what it writes into, and the copy to the sink.
pub struct Output {
    write_end: OwnedFd,
    read_end: Receiver,
    sink: Arc<Sink>,
    bytes: Counter,
    copy: Tap,
}

impl Output {
    /// A pipe into `sink`, of which `copy` sees what went through. Returns the end that the agent writes to, for the launcher.
    pub fn new(sink: Arc<Sink>, bytes: Counter, copy: Tap) -> io::Result<(Output, OwnedFd)> {
        let (read_end, write_end) = pipe_to_read()?;
        let for_agent = write_end.try_clone()?;
        Ok((Output { write_end, read_end, sink, bytes, copy }, for_agent))
    }

    /// Copy until the reader of the sink has gone, or `finish` is notified and the pipe is empty.
    pub async fn run(self, finish: Arc<Notify>) {
        // Held here: it keeps the pipe open between two runs of the agent.
        let Output { write_end: _write_end, read_end, sink, bytes, copy } = self;
        let copy = Mutex::new(copy);
        let write: Arc<Write> = Arc::new(move |chunk| {
            sink.write(chunk)?;
            bytes.inc_by(chunk.len() as u64);
            lock(&copy)(chunk);
            Ok(())
        });
        loop {
            let more = tokio::select! {
                ready = read_end.readable() => ready.is_ok() && copy_what_is_there(&read_end, &write).await.is_ok(),
                () = finish.notified() => {
                    let mut left = Left::More;
                    while matches!(left, Left::More) {
                        left = copy_now(&read_end, Vec::new(), &write).await.unwrap_or(Left::End);
                    }
                    false
                }
            };
            // The reader has gone: closing our end gives the agent EPIPE, as without a supervisor between.
            if !more {
                return;
            }
        }
    }
}

/// Where copied bytes go. May block.
type Write = dyn Fn(&[u8]) -> io::Result<()> + Send + Sync;

/// What is in the pipe after some of it was copied.
enum Left {
    Nothing,
    More,
    End,
}

/// A pipe whose read end is on the event loop. The other end is another description and stays blocking.
pub fn pipe_to_read() -> io::Result<(Receiver, OwnedFd)> {
    let (read_end, write_end) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    fcntl(&read_end, FcntlArg::F_SETFL(OFlag::O_RDONLY | OFlag::O_NONBLOCK))?;
    Ok((Receiver::from_owned_fd(read_end)?, write_end))
}

/// Copy until nobody has the other end any more. Where that is a terminal's, its master answers EIO then (pty(7)).
pub async fn drain(
    read_end: Receiver,
    write: impl Fn(&[u8]) -> io::Result<()> + Send + Sync + 'static,
) -> io::Result<()> {
    let write: Arc<Write> = Arc::new(write);
    loop {
        read_end.readable().await?;
        if let Left::End = copy_what_is_there(&read_end, &write).await? {
            return Ok(());
        }
    }
}

async fn copy_what_is_there(read_end: &Receiver, write: &Arc<Write>) -> io::Result<Left> {
    let mut chunk = vec![0; CHUNK];
    match read_end.try_read(&mut chunk) {
        Ok(0) => return Ok(Left::End),
        Ok(n) => chunk.truncate(n),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(Left::Nothing),
        Err(e) if e.raw_os_error() == Some(libc::EIO) => return Ok(Left::End),
        Err(e) => return Err(e),
    }
    copy_now(read_end, chunk, write).await
}

/// On a thread that may block: pass on `chunk` and what follows it.
async fn copy_now(read_end: &Receiver, chunk: Vec<u8>, write: &Arc<Write>) -> io::Result<Left> {
    let (pipe, write) = (read_end.as_fd().try_clone_to_owned()?, write.clone());
    spawn_blocking(move || copy(chunk, pipe, &*write)).await.unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))
}

/// Until the pipe is empty, or others should have the thread for a while.
fn copy(mut chunk: Vec<u8>, pipe: OwnedFd, write: &Write) -> io::Result<Left> {
    let mut pipe = std::fs::File::from(pipe);
    let mut copied = 0;
    loop {
        write(&chunk)?;
        copied += chunk.len();
        if copied >= TURN {
            return Ok(Left::More);
        }
        chunk.resize(CHUNK, 0);
        match pipe.read(&mut chunk) {
            Ok(0) => return Ok(Left::End),
            Ok(n) => chunk.truncate(n),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(Left::Nothing),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => chunk.clear(),
            Err(e) if e.raw_os_error() == Some(libc::EIO) => return Ok(Left::End),
            Err(e) => return Err(e),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while writing leaves at worst half a line.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
