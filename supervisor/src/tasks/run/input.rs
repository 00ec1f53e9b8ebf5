//! Standard input of a task: a pipe, or what is typed at its terminal.
//!
//! Bytes come in the order in which they were taken, and what nobody reads waits, in bounds: a client that sends more
//! is not answered before there is room.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use protocol::task::Terminal;
use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe;
use tokio::sync::oneshot;

use crate::launch::terminal::Master;
use crate::tasks::request::Spec;

/// Pieces that wait for a program that does not read; each is at most one request's body.
const WAITING: usize = 16;

/// What a client sends.
#[derive(Debug)]
pub(crate) enum Typed {
    /// Bytes; answers whether all of them were taken.
    Bytes(Vec<u8>, oneshot::Sender<bool>),
    /// Nothing more will come.
    End,
}

/// Where it goes.
pub(super) struct Input {
    pipe: Option<pipe::Sender>,
    /// Kept open until the program has ended, or it would be hung up on.
    terminal: Option<Master>,
    waiting: VecDeque<(Vec<u8>, Option<oneshot::Sender<bool>>)>,
    /// After what waits the pipe is closed.
    last: bool,
}

impl Input {
    /// Nowhere.
    pub(super) fn none() -> Input {
        Input { pipe: None, terminal: None, waiting: VecDeque::new(), last: true }
    }

    /// Into a pipe, whose other end is returned; first what came with the request.
    pub(super) fn pipe(spec: &mut Spec) -> io::Result<(Input, OwnedFd)> {
        let (read_end, write_end) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        fcntl(&write_end, FcntlArg::F_SETFL(OFlag::O_WRONLY | OFlag::O_NONBLOCK))?;
        let waiting = spec.stdin.take().map(|bytes| (bytes, None)).into_iter().collect();
        let pipe = Some(pipe::Sender::from_owned_fd(write_end)?);
        Ok((Input { pipe, terminal: None, waiting, last: !spec.stdin_open }, read_end))
    }

    /// Into a terminal.
    pub(super) fn terminal(master: Master) -> io::Result<Input> {
        // Not a pipe, but polled, written and closed like one.
        let pipe = Some(pipe::Sender::from_owned_fd_unchecked(master.descriptor()?)?);
        Ok(Input { pipe, terminal: Some(master), waiting: VecDeque::new(), last: false })
    }

    /// Whether more can be taken now.
    pub(super) fn has_room(&self) -> bool {
        self.waiting.len() < WAITING
    }

    /// Put it behind what waits.
    pub(super) fn take(&mut self, typed: Typed) {
        match (typed, &self.terminal) {
            (Typed::Bytes(_, taken), _) if self.pipe.is_none() || self.last => drop(taken.send(false)),
            (Typed::Bytes(bytes, taken), _) => self.waiting.push_back((bytes, Some(taken))),
            // A terminal stays open: what follows is the program's business.
            (Typed::End, Some(terminal)) => self.waiting.push_back((vec![terminal.end_of_input()], None)),
            (Typed::End, None) => self.last = true,
        }
    }

    /// The terminal, where there is one, has another size.
    pub(super) fn resize(&self, size: Option<Terminal>) {
        let (Some(terminal), Some(size)) = (&self.terminal, size) else { return };
        if let Err(error) = terminal.resize(size) {
            tracing::warn!(%error, "a terminal could not be given another size");
        }
    }

    /// Write what waits; for ever pending when there is nothing to do. May be cancelled between two writes.
    pub(super) async fn work(&mut self) {
        let Some(pipe) = &mut self.pipe else { return std::future::pending().await };
        let Some((bytes, _)) = self.waiting.front_mut() else {
            if self.last {
                self.pipe = None;
                return;
            }
            return std::future::pending().await;
        };
        let written = match bytes.is_empty() {
            true => Ok(0),
            false => pipe.write(bytes).await,
        };
        match written {
            Ok(count) => drop(bytes.drain(..count)),
            // The task has closed its input: what waits will never be read.
            Err(_) => {
                self.pipe = None;
                for (_, taken) in self.waiting.drain(..) {
                    let _ = taken.map(|taken| taken.send(false));
                }
                return;
            }
        }
        if bytes.is_empty()
            && let Some((_, Some(taken))) = self.waiting.pop_front()
        {
            let _ = taken.send(true);
        }
    }
}
