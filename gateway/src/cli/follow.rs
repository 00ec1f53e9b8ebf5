//! A task's output on this terminal, and what Ctrl-C means meanwhile.
//!
//! Promises: output comes unchanged, standard error on standard error; the task never waits for this reader, nor ends with
//! it, unless that was asked for: the first Ctrl-C leaves, a second one within a moment cancels.

use std::io::Write;
use std::time::Duration;

use axum::http::StatusCode;
use gateway::client::follow::{Follow, Piece};
use gateway::client::patience::Patience;
use gateway::client::{Client, ClientError, request, results};
use gateway::exit::{self, Fault};
use protocol::task::Task;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, spawn_blocking};

use super::client::{fault, note};
use super::progress;

/// For a second Ctrl-C.
const MOMENT: Duration = Duration::from_secs(2);
/// As a shell says it.
const INTERRUPTED: u8 = 130;
const TERMINATED: u8 = 143;
pub(crate) const BROKEN_PIPE: u8 = 141;

/// A task in its sandbox.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) client: Client,
    pub(crate) sandbox: String,
    pub(crate) task: String,
    /// Which run of that id, where it is known.
    pub(crate) run: Option<String>,
}

impl Target {
    pub(crate) fn path(&self) -> String {
        format!("/v1/sandboxes/{}/dev-tasks/{}", self.sandbox, self.task)
    }

    /// The words of a command about it.
    pub(crate) fn words(&self, verb: &str) -> String {
        format!("gateway task {verb} --sandbox {} {}", self.sandbox, self.task)
    }
}

/// What Ctrl-C does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interrupt {
    /// Leave at once.
    Leave,
    /// Leave, unless it comes twice.
    LeaveOrCancel,
}

/// What became of following.
pub(crate) enum Followed {
    /// The task has ended.
    Ended(Box<Task>),
    /// It runs on; our exit code.
    Left(u8),
}

/// Show all output of a task and wait for its end.
pub(crate) async fn to_end(target: &Target, show: bool, patience: &Patience) -> Result<Followed, Fault> {
    if show {
        let code = output(target, true, patience, Interrupt::LeaveOrCancel).await?;
        if code != 0 {
            return Ok(Followed::Left(code));
        }
    }
    let text = format!("task {} runs", target.task);
    let ended = progress::during(&text, ended(target, patience));
    let mut signals = Signals::new()?;
    let wish = tokio::select! {
        task = ended => return task.map(|task| Followed::Ended(Box::new(task))).map_err(fault),
        wish = signals.wish(target, Interrupt::LeaveOrCancel) => wish,
    };
    signals.leave(target, wish).await.map(Followed::Left)
}

/// Its end, however long that takes.
pub(crate) async fn ended(target: &Target, patience: &Patience) -> Result<Task, ClientError> {
    let path = format!("{}?wait=30s", target.path());
    loop {
        let task: Task = match patience.insist(|| target.client.get(&path)).await {
            Err(error) if error.status() == Some(StatusCode::NOT_FOUND) => return told(target).await,
            task => task?,
        };
        if task.state.is_final() {
            return Ok(task);
        }
    }
}

/// The end of a task that its sandbox no longer knows.
async fn told(target: &Target) -> Result<Task, ClientError> {
    let Target { client, sandbox, task, run } = target;
    let result = results::of(client, sandbox, task, run.as_deref()).await?;
    result.ok_or_else(|| ClientError::Forgotten { sandbox: sandbox.clone(), task: task.clone() })
}

/// Show its output to the end; 0, or the exit code of somebody who left before.
pub(crate) async fn output(target: &Target, on: bool, patience: &Patience, interrupt: Interrupt) -> Result<u8, Fault> {
    let mut signals = Signals::new()?;
    let (sender, mut pieces) = mpsc::channel(4);
    let followers = ["stdout", "stderr"].map(|stream| {
        let follow = Follow::new(target.client.clone(), target.path(), stream, on, patience.clone());
        Aborts(tokio::spawn(pass(follow, stream == "stderr", sender.clone())).abort_handle())
    });
    drop(sender);
    let shown = async {
        while let Some((stderr, piece)) = pieces.recv().await {
            let stream = if stderr { "stderr" } else { "stdout" };
            match piece.map_err(fault)? {
                Piece::Bytes(bytes) => {
                    if let Err(error) = write(stderr, bytes).await {
                        let pipe = error.kind() == std::io::ErrorKind::BrokenPipe;
                        return if pipe { Ok(BROKEN_PIPE) } else { Err(Fault::new(exit::TEMPORARY, &error)) };
                    }
                }
                Piece::Cut { from, to } => note(&format!("{} bytes of {stream} are no longer kept", to - from)),
                Piece::Lost(at) => {
                    note(&format!("{stream} is lost from byte {at} on: the sandbox no longer knows the task"));
                }
            }
        }
        Ok(0)
    };
    let wish = tokio::select! {
        code = shown => return code,
        wish = signals.wish(target, interrupt) => wish,
    };
    drop(followers);
    signals.leave(target, wish).await
}

/// Its task ends with it.
struct Aborts(AbortHandle);

impl Drop for Aborts {
    fn drop(&mut self) {
        self.0.abort();
    }
}

type Told = (bool, Result<Piece, ClientError>);

async fn pass(mut follow: Follow, stderr: bool, to: mpsc::Sender<Told>) {
    while let Some(piece) = follow.next().await.transpose() {
        let failed = piece.is_err();
        if to.send((stderr, piece)).await.is_err() || failed {
            return;
        }
    }
}

/// A terminal or pipe that takes nothing must not keep Ctrl-C from being heard.
pub(crate) async fn write(stderr: bool, bytes: Vec<u8>) -> std::io::Result<()> {
    let written = spawn_blocking(move || {
        if stderr {
            return std::io::stderr().write_all(&bytes);
        }
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(&bytes)?;
        stdout.flush()
    });
    written.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}

/// How somebody wants to go.
pub(crate) enum Wish {
    /// With this exit code, while the task runs on.
    Leave(u8),
    /// The task is to end first.
    Cancel,
}

/// What asks us to go.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    pub(crate) fn new() -> Result<Signals, Fault> {
        let of = |kind| signal(kind).map_err(|error| Fault::new(exit::INTERNAL, &error));
        Ok(Signals { interrupt: of(SignalKind::interrupt())?, terminate: of(SignalKind::terminate())? })
    }

    /// Comes when somebody wants to go. Until it is known how, the task may end by itself, and that counts then.
    pub(crate) async fn wish(&mut self, target: &Target, interrupt: Interrupt) -> Wish {
        let again = format!("task {} runs on; `{}` shows its output", target.task, target.words("logs --follow"));
        tokio::select! {
            _ = self.terminate.recv() => {
                note(&again);
                return Wish::Leave(TERMINATED);
            }
            _ = self.interrupt.recv() => {}
        }
        if interrupt == Interrupt::Leave {
            return Wish::Leave(INTERRUPTED);
        }
        note(&format!("{again}; Ctrl-C again cancels it"));
        match tokio::time::timeout(MOMENT, self.interrupt.recv()).await {
            Err(_) => Wish::Leave(INTERRUPTED),
            Ok(_) => Wish::Cancel,
        }
    }

    /// Go as it was wished; our exit code. Nobody races with it: how a cancelled task ended is not our exit code.
    pub(crate) async fn leave(&mut self, target: &Target, wish: Wish) -> Result<u8, Fault> {
        if let Wish::Leave(code) = wish {
            return Ok(code);
        }
        note("cancelling");
        let asked = request("POST", &format!("{}/cancel?wait=60s", target.path()));
        tokio::select! {
            task = target.client.ask::<Task>(asked) => {
                let task = task.map_err(fault)?;
                note(&format!("task {} is {}", task.task_id, task.state.name()));
            }
            _ = self.interrupt.recv() => note(&format!("it may still end; `{}` tells", target.words("show"))),
        }
        Ok(INTERRUPTED)
    }
}
