//! One running tree as its supervisor sees it: events come out, commands go in.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream as StdStream;
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, Shutdown, recv, shutdown};
use protocol::control::{Command, Decoder, Exit, Report, encode};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};

use crate::metrics::Metrics;

/// What happens to a tree, in order. After `Ended`, `Failed` or `ShimLost` nothing follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// What the shim says.
    Report(Report),
    /// The shim itself is gone without a last word: it was killed. What lived in its tree has been inherited by the
    /// supervisor.
    ShimLost(Exit),
}

/// A tree. Dropping it closes the lifeline: the shim ends everything and exits.
pub struct Tree {
    shim: i32,
    events: mpsc::Receiver<Event>,
    commands: mpsc::Sender<Command>,
}

impl Tree {
    /// Follow the shim `pid`, whose first frame is still to be written.
    pub(super) fn follow(
        pid: i32,
        socket: StdStream,
        first: Vec<u8>,
        exit: oneshot::Receiver<Exit>,
        metrics: Arc<Metrics>,
    ) -> io::Result<Tree> {
        let socket = UnixStream::from_std(socket)?;
        let (event_sender, events) = mpsc::channel(16);
        let (commands, command_receiver) = mpsc::channel(16);
        let conversation = Conversation {
            socket,
            outgoing: VecDeque::from(first),
            decoder: Decoder::default(),
            events: event_sender,
            last_word: false,
            metrics,
        };
        tokio::spawn(conversation.run(command_receiver, exit));
        Ok(Tree { shim: pid, events, commands })
    }

    /// Pid of the shim.
    pub fn shim(&self) -> i32 {
        self.shim
    }

    /// The next event; `None` after the last.
    pub async fn event(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    /// Tell the shim. Waits while 16 commands are under way; a tree that has ended ignores it.
    pub async fn command(&self, command: Command) {
        let _ = self.commands.send(command).await;
    }
}

struct Conversation {
    socket: UnixStream,
    outgoing: VecDeque<u8>,
    decoder: Decoder,
    events: mpsc::Sender<Event>,
    last_word: bool,
    metrics: Arc<Metrics>,
}

impl Conversation {
    async fn run(mut self, mut commands: mpsc::Receiver<Command>, mut exit: oneshot::Receiver<Exit>) {
        loop {
            let interest =
                if self.outgoing.is_empty() { Interest::READABLE } else { Interest::READABLE | Interest::WRITABLE };
            tokio::select! {
                biased;
                ended = &mut exit => return self.finish(ended.unwrap_or(Exit::Signal(libc::SIGKILL))).await,
                command = commands.recv() => match command {
                    Some(command) => self.queue(&command),
                    // Dropped by its owner: closing the socket is the order to end.
                    None => return,
                },
                ready = self.socket.ready(interest) => {
                    let Ok(ready) = ready else { return };
                    if ready.is_writable() {
                        self.write();
                    }
                    if ready.is_readable() && !self.read().await {
                        // End of file: the shim is about to exit or is gone; its status says which.
                        let ended = exit.await.unwrap_or(Exit::Signal(libc::SIGKILL));
                        return self.finish(ended).await;
                    }
                }
            }
        }
    }

    fn queue(&mut self, command: &Command) {
        match encode(command) {
            Ok(frame) => self.outgoing.extend(frame),
            Err(error) => tracing::error!(%error, "a command to a shim could not be written"),
        }
    }

    fn write(&mut self) {
        while !self.outgoing.is_empty() {
            match self.socket.try_write(self.outgoing.as_slices().0) {
                Ok(written) => drop(self.outgoing.drain(..written)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.end_lifeline();
                    return self.outgoing.clear();
                }
            }
        }
    }

    /// Read what is there; false at the end.
    async fn read(&mut self) -> bool {
        let mut bytes = [0u8; 4096];
        loop {
            match self.socket.try_read(&mut bytes) {
                Ok(0) => return false,
                Ok(n) => {
                    if !self.take(&bytes[..n]).await {
                        self.end_lifeline();
                        return false;
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return true,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.end_lifeline();
                    return false;
                }
            }
        }
    }

    /// The shim is gone, and its exit is on the way; or the kernel has no memory for what one tells the other, or it speaks another language:
    /// then each would wait for ever for what does not come, so the shim is made to end. What it has said already can still be read.
    fn end_lifeline(&self) {
        let _ = shutdown(self.socket.as_raw_fd(), Shutdown::Both);
    }

    /// Read to the end past the event loop, which may know of the shim's exit before it knows that the shim's last
    /// words are there: `try_read` would answer from what it knows.
    async fn read_last_words(&mut self) {
        let mut bytes = [0u8; 4096];
        loop {
            match recv(self.socket.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT) {
                Ok(n) if n > 0 => drop(self.take(&bytes[..n]).await),
                Err(Errno::EINTR) => {}
                Ok(_) | Err(_) => return,
            }
        }
    }

    /// Tell every frame that is whole; false where the shim speaks another language.
    async fn take(&mut self, bytes: &[u8]) -> bool {
        self.decoder.push(bytes);
        loop {
            match self.decoder.next::<Report>() {
                Ok(Some(report)) => self.tell(report).await,
                Ok(None) => return true,
                Err(error) => {
                    tracing::error!(%error, "a shim sent what no shim sends");
                    return false;
                }
            }
        }
    }

    async fn tell(&mut self, report: Report) {
        match &report {
            Report::Orphans(count) => {
                self.metrics.orphans_reaped.inc_by(*count);
                return;
            }
            Report::Ended { .. } | Report::Failed(_) => self.last_word = true,
            _ => {}
        }
        // The owner may have stopped listening; the tree still runs to its end.
        let _ = self.events.send(Event::Report(report)).await;
    }

    async fn finish(mut self, exit: Exit) {
        self.read_last_words().await;
        if !self.last_word {
            let _ = self.events.send(Event::ShimLost(exit)).await;
        }
    }
}
