//! The clients' side of dev-tasks: what can be asked of their owner, and the handle that asks it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use protocol::task::{Create, State, Task, Terminal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::output::Stream;
use super::request::Invalid;
use super::run::Typed;
use crate::workspace::seeds::Seed;

/// Why a request was not granted.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// A field is wrong.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The id or the key belongs to another task.
    #[error("{0}")]
    Conflict(&'static str),
    /// Too many wait.
    #[error("{waiting} tasks wait already; try again later")]
    Full {
        /// How many.
        waiting: usize,
    },
    /// There is no such task.
    #[error("there is no such task")]
    Unknown,
    /// The task is not in a state for this.
    #[error("{0}")]
    State(&'static str),
    /// The supervisor stops.
    #[error("the supervisor stops and takes no more tasks")]
    Stopping,
    /// The journal cannot be written, so nothing was accepted.
    #[error("the task could not be recorded: {0}")]
    Journal(String),
}

const CLOSED: Refused = Refused::State("standard input is closed");

/// What clients see of one task.
pub struct Entry {
    /// The answer, as it changes.
    pub view: watch::Receiver<Task>,
    /// Standard output.
    pub stdout: Arc<Stream>,
    /// Standard error.
    pub stderr: Arc<Stream>,
    /// Size of its terminal, where it has one; the last client that changed it counts.
    pub size: watch::Sender<Option<Terminal>>,
    /// Until it has ended: a task that is only remembered has no queues.
    pub(super) ways: Mutex<Option<Ways>>,
}

/// How a task that has not ended is reached.
#[derive(Clone)]
pub(super) struct Ways {
    pub(super) control: mpsc::Sender<Control>,
    /// Straight to the run: who waits for a task to read keeps neither the owner nor other tasks.
    pub(super) typed: mpsc::Sender<Typed>,
}

impl Entry {
    /// More standard input. On return all of it was taken; when this answers an error, maybe a part.
    pub async fn input(&self, bytes: Vec<u8>) -> Result<(), Refused> {
        self.refuse_unless_running()?;
        let (taken, answer) = oneshot::channel();
        self.type_in(Typed::Bytes(bytes, taken)).await?;
        if answer.await.unwrap_or(false) { Ok(()) } else { Err(CLOSED) }
    }

    /// No more standard input.
    pub async fn close_input(&self) -> Result<(), Refused> {
        self.refuse_unless_running()?;
        self.type_in(Typed::End).await
    }

    async fn type_in(&self, typed: Typed) -> Result<(), Refused> {
        let Ways { typed: to, .. } = self.ways().ok_or(CLOSED)?;
        to.send(typed).await.map_err(|_| CLOSED)
    }

    pub(super) fn ways(&self) -> Option<Ways> {
        self.ways.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// It has ended.
    pub(super) fn end(&self) {
        *self.ways.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.stdout.end();
        self.stderr.end();
    }

    /// Give its terminal another size.
    pub fn resize(&self, size: Terminal) -> Result<(), Refused> {
        if !size.is_valid() {
            return Err(Refused::State("rows and cols go from 1 to 10000"));
        }
        let resized = self.size.send_if_modified(|known| {
            let has_one = known.is_some();
            *known = known.map(|_| size);
            has_one
        });
        if resized { Ok(()) } else { Err(Refused::State("the task has no terminal")) }
    }

    fn refuse_unless_running(&self) -> Result<(), Refused> {
        match self.view.borrow().state {
            State::Queued => Err(Refused::State("the task has not started yet")),
            state if state.is_final() => Err(Refused::State("the task has ended")),
            _ => Ok(()),
        }
    }
}

/// What a running task can be told.
#[derive(Debug)]
pub(crate) enum Control {
    /// End it, with this much time until KILL where it is less than the usual.
    End(Duration),
    /// Send this signal to its main program.
    Signal(i32),
}

/// A page of the list.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// Only this state.
    pub state: Option<State>,
    /// Only with this label.
    pub label: Option<(String, String)>,
    /// After this id.
    pub after: Option<String>,
    /// At most so many.
    pub limit: usize,
}

/// A page: tasks by id, and the id to go on after.
#[derive(Debug)]
pub struct Page {
    /// In order of their ids.
    pub tasks: Vec<Task>,
    /// Where more follow.
    pub next: Option<String>,
}

/// A change of what is told of a task; answers whether it changed anything.
pub(super) type Amendment = Box<dyn FnOnce(&mut Task) -> Result<bool, Refused> + Send>;

pub(super) type Reply<T> = oneshot::Sender<Result<T, Refused>>;

/// What clients ask, on its way to the owner.
pub struct Asks(pub(super) mpsc::Receiver<Ask>);

/// A handle that can be given away before there is an owner: what is asked waits for it.
pub fn handle() -> (Handle, Asks) {
    let (sender, asks) = mpsc::channel(64);
    (Handle { asks: sender }, Asks(asks))
}

/// One question, and where its answer goes.
pub(super) enum Ask {
    Create {
        create: Box<Create>,
        key: Option<String>,
        digest: String,
        seed: Option<Seed>,
        reply: Reply<(Arc<Entry>, bool)>,
    },
    Amend {
        id: String,
        amendment: Amendment,
        reply: Reply<(Task, bool)>,
    },
    Get {
        id: String,
        reply: Reply<Arc<Entry>>,
    },
    List {
        query: Query,
        reply: oneshot::Sender<Page>,
    },
    Control {
        id: String,
        control: Control,
        reply: Reply<Arc<Entry>>,
    },
    Delete {
        id: String,
        reply: Reply<()>,
    },
    Drain {
        done: oneshot::Sender<()>,
    },
    Stop {
        deadline: Instant,
        done: oneshot::Sender<()>,
    },
}

/// Reaches the owner.
#[derive(Clone)]
pub struct Handle {
    asks: mpsc::Sender<Ask>,
}

impl Handle {
    /// Accept a task. The flag says that it is new; a repeated `key` answers the first one.
    pub async fn create(
        &self,
        create: Create,
        key: Option<String>,
        digest: String,
        seed: Option<Seed>,
    ) -> Result<(Arc<Entry>, bool), Refused> {
        self.ask(|reply| Ask::Create { create: Box::new(create), key, digest, seed, reply }).await
    }

    /// Change what is told of a task. On return the change is on the disk.
    pub async fn amend(
        &self,
        id: String,
        amendment: impl FnOnce(&mut Task) -> Result<bool, Refused> + Send + 'static,
    ) -> Result<(Task, bool), Refused> {
        self.ask(|reply| Ask::Amend { id, amendment: Box::new(amendment), reply }).await
    }

    /// One task.
    pub async fn get(&self, id: String) -> Result<Arc<Entry>, Refused> {
        self.ask(|reply| Ask::Get { id, reply }).await
    }

    /// A page of them.
    pub async fn list(&self, query: Query) -> Page {
        let (reply, answer) = oneshot::channel();
        let _ = self.asks.send(Ask::List { query, reply }).await;
        answer.await.unwrap_or(Page { tasks: Vec::new(), next: None })
    }

    /// Ask for its end; one that has ended stays as it is.
    pub async fn cancel(&self, id: String) -> Result<Arc<Entry>, Refused> {
        self.ask(|reply| Ask::Control { id, control: Control::End(Duration::MAX), reply }).await
    }

    /// Send a signal to its main program.
    pub async fn signal(&self, id: String, signal: i32) -> Result<Arc<Entry>, Refused> {
        self.ask(|reply| Ask::Control { id, control: Control::Signal(signal), reply }).await
    }

    /// Forget an ended task with all that it left.
    pub async fn delete(&self, id: String) -> Result<(), Refused> {
        self.ask(|reply| Ask::Delete { id, reply }).await
    }

    /// Refuse new tasks and start none; answers when those that run have ended. What waits is the next supervisor's.
    pub async fn drain(&self) {
        let (done, ended) = oneshot::channel();
        if self.asks.send(Ask::Drain { done }).await.is_ok() {
            let _ = ended.await;
        }
    }

    /// Refuse new tasks and end all, by KILL at `deadline`; answers when nobody is left.
    pub async fn stop(&self, deadline: Instant) {
        let (done, ended) = oneshot::channel();
        if self.asks.send(Ask::Stop { deadline, done }).await.is_ok() {
            let _ = ended.await;
        }
    }

    async fn ask<T>(&self, ask: impl FnOnce(Reply<T>) -> Ask) -> Result<T, Refused> {
        let (reply, answer) = oneshot::channel();
        self.asks.send(ask(reply)).await.map_err(|_| Refused::Stopping)?;
        answer.await.unwrap_or(Err(Refused::Stopping))
    }
}
