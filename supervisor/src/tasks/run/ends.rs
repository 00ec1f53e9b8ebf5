//! The ends of one program: what the shim is given, and what is left with us.
//!
//! All that a program writes goes into its task's streams as fast as the disk takes it, whoever reads them. What a
//! terminal shows is its standard output, so cursors, bounds and readers are the same for both.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use protocol::task::Terminal;
use tokio::net::unix::pipe::Receiver;
use tokio::task::JoinHandle;

use super::counted::Counted;
use super::input::Input;
use crate::launch::Streams;
use crate::launch::output::{drain, pipe_to_read};
use crate::launch::terminal::Master;
use crate::link::{Lines, lines};
use crate::tasks::request::Spec;

/// Both sides.
pub(super) struct Ends {
    /// For the shim.
    pub(super) streams: Streams,
    /// Each ends when nobody has the program's side any more.
    pub(super) pumps: Vec<JoinHandle<()>>,
    /// What the program reads.
    pub(super) input: Input,
}

impl Ends {
    /// A pipe each; without `takes_input` nothing is read. `lines` gets a copy for the gateway, as of task `id`.
    pub(super) fn pipes(
        takes_input: Option<&mut Spec>,
        into: &(Counted, Counted),
        (lines, id): (&Lines, &str),
    ) -> io::Result<Ends> {
        let ((out, stdout), (err, stderr)) = (pipe_to_read()?, pipe_to_read()?);
        let (input, stdin) = match takes_input {
            Some(spec) => Input::pipe(spec).map(|(input, end)| (input, Some(end)))?,
            None => (Input::none(), None),
        };
        let keep = |stream: &Counted, copy: lines::Copier| {
            let (stream, copy) = (stream.clone(), Mutex::new(copy));
            move |bytes: &[u8]| {
                stream.append(bytes)?;
                copy.lock().unwrap_or_else(PoisonError::into_inner).take(bytes);
                Ok(())
            }
        };
        let (stdout_copy, stderr_copy) = (lines.of(Some(id), "stdout"), lines.of(Some(id), "stderr"));
        let pumps = vec![pump(out, keep(&into.0, stdout_copy)), pump(err, keep(&into.1, stderr_copy))];
        Ok(Ends { streams: Streams::Task { stdin, stdout, stderr }, pumps, input })
    }

    /// One terminal for all three.
    pub(super) fn terminal(size: Terminal, into: &Counted) -> io::Result<Ends> {
        let (master, end) = Master::open(size)?;
        let shown = Receiver::from_owned_fd_unchecked(master.descriptor()?)?;
        let input = Input::terminal(master)?;
        Ok(Ends { streams: Streams::Terminal(end), pumps: vec![pump(shown, keep_or_drop(into.clone()))], input })
    }
}

/// Who writes into a pipe that nobody reads is told so; at a terminal it would wait for ever. So after the disk has
/// refused bytes the rest is dropped. Nothing is kept behind a hole: positions would be wrong from there on.
fn keep_or_drop(stream: Counted) -> impl Fn(&[u8]) -> io::Result<()> {
    let refused = AtomicBool::new(false);
    move |bytes| {
        if refused.load(Relaxed) {
            return Ok(());
        }
        if let Err(error) = stream.append(bytes) {
            tell(&error);
            refused.store(true, Relaxed);
        }
        Ok(())
    }
}

/// Pass on until nobody writes any more.
fn pump(from: Receiver, keep: impl Fn(&[u8]) -> io::Result<()> + Send + Sync + 'static) -> JoinHandle<()> {
    tokio::spawn(async move {
        if let Err(error) = drain(from, keep).await {
            tell(&error);
        }
    })
}

fn tell(error: &io::Error) {
    tracing::error!(%error, "output of a task could not be kept");
}
