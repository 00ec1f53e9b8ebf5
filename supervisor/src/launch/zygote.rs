//! Shims that are forked instead of started: the supervisor's side of the zygote.
//!
//! Promises: a shim that is forked is a child of ours like any other, owned before it can have ended; one whose order
//! was given up ends by itself, since its control socket closes; a zygote that fails, is killed or does not answer
//! costs an order no more than [`PATIENCE`], is ended, and the shim is started the longer way. The first order starts
//! the zygote, so a sandbox without dev-tasks has none.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command as Process, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::unistd::Pid;
use protocol::control::Exit;
use protocol::zygote::{DESCRIPTORS, FLAG, ORDER, read_answer};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::sync::oneshot::error::TryRecvError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::init::Reaper;

/// A fork takes a tenth of a millisecond; a machine that gives the zygote no turn for so long is no reason to end it.
const PATIENCE: Duration = Duration::from_secs(2);

/// A shim that was forked: its pid, and how it will end.
pub(super) type Sibling = (i32, oneshot::Receiver<Exit>);

/// Forks shims. Cheap to clone; all clones have one zygote.
#[derive(Clone)]
pub(super) struct Zygote {
    orders: Arc<OnceLock<mpsc::Sender<Order>>>,
}

struct Order {
    /// stdin, stdout, stderr, control socket.
    descriptors: [OwnedFd; DESCRIPTORS],
    forked: oneshot::Sender<Option<Sibling>>,
}

impl Zygote {
    /// Not started yet.
    pub(super) fn new() -> Zygote {
        Zygote { orders: Arc::default() }
    }

    /// A shim with these: standard input, output, error, and its control socket. `None` where it has to be started.
    pub(super) async fn fork(
        &self,
        shim: &Path,
        reaper: &Reaper,
        descriptors: [OwnedFd; DESCRIPTORS],
    ) -> Option<Sibling> {
        let orders = self.orders.get_or_init(|| {
            let (sender, orders) = mpsc::channel(16);
            // A task of its own: an order that is given up half-way would leave its answer to the next one.
            tokio::spawn(Keeper { shim: shim.into(), reaper: reaper.clone(), running: None }.run(orders));
            sender
        });
        let (forked, answer) = oneshot::channel();
        orders.send(Order { descriptors, forked }).await.ok()?;
        answer.await.ok()?
    }
}

/// Keeps the one zygote.
struct Keeper {
    shim: PathBuf,
    reaper: Reaper,
    running: Option<Running>,
}

impl Keeper {
    /// Until nobody can give an order any more.
    async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        while let Some(Order { descriptors, forked }) = orders.recv().await {
            let sibling = self.fork(&descriptors).await;
            if let Err(error) = &sibling {
                tracing::warn!(%error, "a shim could not be forked and is started");
            }
            // Nobody waits any more: the shim's control socket is closed with the order, and that ends it.
            let _ = forked.send(sibling.ok());
        }
    }

    async fn fork(&mut self, descriptors: &[OwnedFd; DESCRIPTORS]) -> io::Result<Sibling> {
        // Taken out, so that one that fails here is ended here.
        let mut running = match self.running.take() {
            Some(running) => running,
            None => Running::start(&self.shim, &self.reaper)?,
        };
        let expected = self.reaper.expect();
        running.order(descriptors)?;
        let pid = timeout(PATIENCE, running.answer()).await.map_err(|_| io::ErrorKind::TimedOut)??;
        let exit = expected.own(pid).ok_or_else(|| io::Error::other("the shim that was forked is gone"))?;
        self.running = Some(running);
        Ok((pid, exit))
    }
}

/// A zygote. Dropping it ends it.
struct Running {
    pid: i32,
    socket: UnixStream,
    exit: oneshot::Receiver<Exit>,
}

impl Running {
    fn start(shim: &Path, reaper: &Reaper) -> io::Result<Running> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let socket = UnixStream::from_std(ours)?;
        let mut process = Process::new(shim);
        process.arg(FLAG).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let pid = super::spawn_with(&mut process, &theirs)?;
        Ok(Running { pid, socket, exit: reaper.own(pid) })
    }

    fn order(&self, descriptors: &[OwnedFd; DESCRIPTORS]) -> io::Result<()> {
        let numbers = descriptors.each_ref().map(AsRawFd::as_raw_fd);
        let beside = [ControlMessage::ScmRights(&numbers)];
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        // One order is under way at most, so that there is always room for it.
        sendmsg::<()>(self.socket.as_raw_fd(), &[IoSlice::new(&ORDER)], &beside, flags, None)?;
        Ok(())
    }

    async fn answer(&mut self) -> io::Result<i32> {
        let mut bytes = [0; 4];
        self.socket.read_exact(&mut bytes).await?;
        read_answer(bytes).map_err(io::Error::from_raw_os_error)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Not after it was reaped: its pid may be another process by now.
        if self.exit.try_recv() == Err(TryRecvError::Empty) {
            let _ = kill(Pid::from_raw(self.pid), Signal::SIGKILL);
        }
    }
}
