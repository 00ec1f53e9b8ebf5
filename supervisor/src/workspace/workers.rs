//! Starts workers and talks to them: PID 1's side of [`crate::worker`].
//!
//! Contents are passed on as the other side takes them, so neither a slow client nor a large file costs memory. Whoever
//! drops what is given out here ends the worker: its tree is dropped with it.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use protocol::control::{Exit, Report};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, timeout, timeout_at};

use super::failure::{Failure, Kind};
use super::work::Work;
use crate::exit::reason;
use crate::launch::{Event, Launcher, Request, Streams, Tree, output};
use crate::streaming::{self, Part};
use crate::worker::Head;

/// Workers at once; each may take as much processor time as a compiler.
const PLACES: usize = 8;
/// One more waits so long for its turn.
const TURN: Duration = Duration::from_secs(10);
/// From start to end: a large archive on a slow line.
const TIME: Duration = Duration::from_secs(900);
/// For removing what had come of a content that breaks off.
const TIDY: Duration = Duration::from_secs(5);
/// The first line of an answer.
const MAX_HEAD: usize = 64 * 1024;
/// Passed on at once.
const CHUNK: usize = 64 * 1024;

/// What a worker reads.
pub enum Input {
    /// Nothing.
    None,
    /// A file of ours.
    File(File),
    /// What a client sends.
    Body(Body),
}

/// Starts workers. Cheap to clone.
#[derive(Clone)]
pub struct Workers {
    launcher: Launcher,
    places: Arc<Semaphore>,
}

/// A worker that has said its first line.
pub struct Started<T> {
    /// What it said.
    pub head: T,
    /// What it says after that.
    pub output: Output,
}

impl Workers {
    /// Started with this.
    pub fn new(launcher: Launcher) -> Workers {
        Workers { launcher, places: Arc::new(Semaphore::new(PLACES)) }
    }

    /// Start `work` and wait for its first line.
    pub async fn start<T: DeserializeOwned>(&self, work: &Work, input: Input) -> Result<Started<T>, Failure> {
        let deadline = Instant::now() + TIME;
        let busy = || Failure::new(Kind::Busy, "too many transfers are under way; try again later");
        let place =
            timeout(TURN, self.places.clone().acquire_owned()).await.map_err(|_| busy())?.map_err(|_| busy())?;
        let Prepared { launcher, request, pipe, stdin } = self.prepare(work, &input)?;
        let tree = launcher.start(&request).await.map_err(|e| internal(reason(&e)))?;
        // With our copies of the worker's ends of its pipes.
        drop(request);
        let mut output = Output { pipe, early: Vec::new(), tree: Some(tree), deadline, _place: place };
        let head = async {
            let head = output.head().await?;
            serde_json::from_slice(&head).map_err(|e| internal(format!("the worker said what no worker says: {e}")))
        };
        let head = match (input, stdin) {
            (Input::Body(body), Some(stdin)) => {
                tokio::pin!(head);
                tokio::select! {
                    biased;
                    head = &mut head => head,
                    fed = feed(body, stdin) => match fed {
                        Ok(()) => head.await,
                        Err(failure) => {
                            // Its input has ended before the whole of it came: it says so once nothing of it is left.
                            let _ = timeout(TIDY, head).await;
                            Err(failure)
                        }
                    },
                }
            }
            _ => head.await,
        };
        match head? {
            Head::Done(head) => Ok(Started { head, output }),
            Head::Failed(failure) => Err(failure),
        }
    }

    /// Start `work` and wait for its end.
    pub async fn run(&self, work: &Work, input: Input) -> Result<(), Failure> {
        self.start::<()>(work, input).await?.output.all(0).await.map(drop)
    }

    fn prepare(&self, work: &Work, input: &Input) -> Result<Prepared, Failure> {
        let words = |e: io::Error| internal(format!("a pipe cannot be made: {e}"));
        let (pipe, stdout) = output::pipe_to_read().map_err(words)?;
        let (stdin, ours) = match input {
            Input::None => (None, None),
            Input::File(file) => (Some(OwnedFd::from(file.try_clone().map_err(words)?)), None),
            Input::Body(_) => {
                let (theirs, ours) = pipe_to_write().map_err(words)?;
                (Some(theirs), Some(ours))
            }
        };
        let null = File::options().write(true).open("/dev/null").map_err(words)?;
        let root: Vec<_> = work.root().cloned().into_iter().collect();
        let (read, write) = if work.writes() { (Vec::new(), root) } else { (root, Vec::new()) };
        let own = std::env::current_exe().map_err(words)?;
        let argv = [own.into_os_string(), OsString::from("worker")].into_iter().chain(work.arguments()).collect();
        let streams = Streams::Task { stdin, stdout, stderr: null.into() };
        let request = Request { argv, env: Vec::new(), cwd: Some("/".into()), streams };
        Ok(Prepared { launcher: self.launcher.for_worker(read, write), request, pipe, stdin: ours })
    }
}

/// A worker that has not been started: our ends of its pipes beside what it is started with.
struct Prepared {
    launcher: Launcher,
    request: Request,
    pipe: pipe::Receiver,
    stdin: Option<pipe::Sender>,
}

/// What a worker writes. Dropping it ends the worker.
pub struct Output {
    pipe: pipe::Receiver,
    /// Came with the first line.
    early: Vec<u8>,
    /// `None` once it has ended.
    tree: Option<Tree>,
    deadline: Instant,
    _place: OwnedSemaphorePermit,
}

impl Output {
    async fn head(&mut self) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::new();
        loop {
            if let Some(end) = bytes.iter().position(|b| *b == b'\n') {
                self.early = bytes.split_off(end + 1);
                return Ok(bytes);
            }
            let piece = self.read().await?;
            if piece.is_empty() || bytes.len() > MAX_HEAD {
                self.end().await?;
                return Err(internal("the worker ended without an answer"));
            }
            bytes.extend(piece);
        }
    }

    /// The next bytes; `None` when all came and the worker has ended well.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        if !self.early.is_empty() {
            return Ok(Some(std::mem::take(&mut self.early).into()));
        }
        let piece = self.read().await?;
        if !piece.is_empty() {
            return Ok(Some(piece.into()));
        }
        self.end().await.map(|()| None)
    }

    /// Everything, where that is at most `most` bytes.
    pub async fn all(mut self, most: usize) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::new();
        while let Some(piece) = self.next().await? {
            if bytes.len() + piece.len() > most {
                return Err(Failure::new(Kind::TooLarge, format!("the answer takes more than {most} bytes")));
            }
            bytes.extend(piece);
        }
        Ok(bytes)
    }

    /// For a client, who gets a broken connection where the worker fails half-way.
    pub fn into_body(mut self) -> Body {
        let (sender, body) = streaming::body();
        tokio::spawn(async move {
            loop {
                let next = tokio::select! {
                    next = self.next() => next,
                    () = sender.closed() => return,
                };
                let part = match next {
                    Ok(Some(bytes)) => Ok(bytes),
                    Ok(None) => return,
                    Err(failure) => Err(io::Error::other(failure)),
                };
                let failed = part.is_err();
                if send(&sender, part, self.deadline).await.is_err() || failed {
                    return;
                }
            }
        });
        body
    }

    async fn read(&mut self) -> Result<Vec<u8>, Failure> {
        let mut piece = vec![0; CHUNK];
        let read = timeout_at(self.deadline, self.pipe.read(&mut piece)).await.map_err(|_| late())?;
        piece.truncate(read.map_err(|e| internal(format!("the worker cannot be read: {e}")))?);
        Ok(piece)
    }

    /// Wait for its end; an error where that is not a good one.
    async fn end(&mut self) -> Result<(), Failure> {
        let Some(mut tree) = self.tree.take() else { return Ok(()) };
        loop {
            let failure = match timeout_at(self.deadline, tree.event()).await.map_err(|_| late())? {
                Some(Event::Report(Report::Ended { exit: Exit::Code(0), .. })) => return Ok(()),
                Some(Event::Report(Report::Ended { exit, .. })) => format!("the worker failed ({exit:?})"),
                Some(Event::Report(Report::Failed(failure))) => format!("the worker cannot run: {}", failure.message),
                Some(Event::Report(_)) => continue,
                Some(Event::ShimLost(_)) | None => "the worker's shim was killed".into(),
            };
            tracing::warn!(reason = failure, "workspace work was not done");
            return Err(internal(failure));
        }
    }
}

async fn send(sender: &mpsc::Sender<Part>, part: Part, deadline: Instant) -> Result<(), ()> {
    timeout_at(deadline, sender.send(part)).await.map_err(drop)?.map_err(drop)
}

/// Pass a client's bytes on. A worker that has ended says itself why; a client that goes away is an error, which no worker
/// takes for the end of the content: it knows how long that is.
async fn feed(body: Body, mut to: pipe::Sender) -> Result<(), Failure> {
    let mut body = streaming::Reader::new(body);
    while let Some(piece) = body.next().await? {
        if to.write_all(&piece).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// A pipe whose write end is on the event loop; the other end stays blocking.
fn pipe_to_write() -> io::Result<(OwnedFd, pipe::Sender)> {
    let (read_end, write_end) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    fcntl(&write_end, FcntlArg::F_SETFL(OFlag::O_WRONLY | OFlag::O_NONBLOCK))?;
    Ok((read_end, pipe::Sender::from_owned_fd(write_end)?))
}

fn internal(words: impl Into<String>) -> Failure {
    Failure::new(Kind::Internal, words)
}

fn late() -> Failure {
    internal(format!("the work was not done within {}s", TIME.as_secs()))
}
