//! Shims that are forked instead of started, ahead of their need: the supervisor's side of the zygote.
//!
//! Promises: a shim that is forked is a child of ours like any other, owned before it can have ended; one that waits for a
//! policy in vain ends with its control socket; a zygote that fails, is killed or does not answer costs an order no more
//! than [`PATIENCE`], is ended, and the shim is started the longer way. The first order starts the zygote, so a sandbox
//! without dev-tasks has none.

use std::ffi::OsStr;
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command as Process, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{ControlMessage, MsgFlags, send, sendmsg};
use nix::unistd::Pid;
use protocol::control::{Exit, encode};
use protocol::zygote::{FLAG, HOLD, ORDER, read_answer};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::sync::oneshot::error::TryRecvError;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::timeout;

use super::Shim;
use super::readable::{Readable, Remembered};
use crate::init::Reaper;

/// A fork takes a tenth of a millisecond; a machine that gives the zygote no turn for so long is no reason to end it.
const PATIENCE: Duration = Duration::from_secs(2);

/// Forks shims. Cheap to clone; all clones have one zygote.
#[derive(Clone)]
pub(super) struct Zygote {
    /// How many wait ready for a policy.
    spare: usize,
    remembered: Arc<Remembered>,
    /// From the first order on. `None` in it stands for a shim that could not be forked.
    ready: Arc<Mutex<Option<mpsc::Receiver<Option<Shim>>>>>,
}

impl Zygote {
    /// Not started yet.
    pub(super) fn new(spare: usize, remembered: Arc<Remembered>) -> Zygote {
        Zygote { spare, remembered, ready: Arc::default() }
    }

    /// A shim that waits for its policy. `None` where it has to be started.
    pub(super) async fn shim(&self, program: &Path, reaper: &Reaper) -> Option<Shim> {
        let mut ready = self.ready.lock().await;
        let ready = ready.get_or_insert_with(|| {
            let (sender, ready) = mpsc::channel(self.spare);
            // A task of its own: an order that is given up half-way would leave its answer to the next one.
            let (shim, reaper, remembered) = (program.into(), reaper.clone(), self.remembered.clone());
            tokio::spawn(Keeper { shim, reaper, remembered, running: None }.run(sender));
            ready
        });
        loop {
            let mut shim = ready.recv().await??;
            // Somebody may have ended it while it waited.
            if shim.exit.try_recv() == Err(TryRecvError::Empty) {
                return Some(shim);
            }
        }
    }
}

/// Keeps the one zygote.
struct Keeper {
    shim: PathBuf,
    reaper: Reaper,
    remembered: Arc<Remembered>,
    running: Option<Running>,
}

impl Keeper {
    /// Forks while there is room for one more, until nobody can take one any more.
    async fn run(mut self, ready: mpsc::Sender<Option<Shim>>) {
        while let Ok(room) = ready.reserve().await {
            let shim = self.fork().await;
            if let Err(error) = &shim {
                tracing::warn!(%error, "a shim could not be forked and is started");
            }
            room.send(shim.ok());
        }
    }

    async fn fork(&mut self) -> io::Result<Shim> {
        let (control, theirs) = super::control_socket()?;
        // Taken out, so that one that fails here is ended here.
        let mut running = match self.running.take() {
            Some(running) => running,
            None => Running::start(&self.shim, &self.reaper)?,
        };
        if let Some(readable) = self.remembered.to_hold()
            && running.held != readable.number
        {
            running.hold(&readable)?;
        }
        let expected = self.reaper.expect();
        running.order(&theirs.into())?;
        let pid = timeout(PATIENCE, running.answer()).await.map_err(|_| io::ErrorKind::TimedOut)??;
        let exit = expected.own(pid).ok_or_else(|| io::Error::other("the shim that was forked is gone"))?;
        let held = running.held;
        self.running = Some(running);
        Ok(Shim { control, pid, exit, held })
    }
}

/// A zygote. Dropping it ends it.
struct Running {
    pid: i32,
    socket: UnixStream,
    exit: oneshot::Receiver<Exit>,
    /// What it holds open, by number.
    held: Option<u64>,
}

impl Running {
    fn start(shim: &Path, reaper: &Reaper) -> io::Result<Running> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let socket = UnixStream::from_std(ours)?;
        let mut process = Process::new(shim);
        process.arg(FLAG).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let pid = super::spawn_with(&mut process, &theirs)?;
        Ok(Running { pid, socket, exit: reaper.own(pid), held: None })
    }

    /// From the next order on.
    fn hold(&mut self, readable: &Readable) -> io::Result<()> {
        let paths: Vec<&OsStr> = readable.paths.iter().map(|path| path.as_os_str()).collect();
        let frame = encode(&paths).map_err(io::Error::other)?;
        let message = [&HOLD[..], &frame].concat();
        // It reads whatever comes at once, so that there is always room.
        let sent = send(self.socket.as_raw_fd(), &message, MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT)?;
        if sent != message.len() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.held = readable.number;
        Ok(())
    }

    fn order(&self, control: &OwnedFd) -> io::Result<()> {
        let number = [control.as_raw_fd()];
        let beside = [ControlMessage::ScmRights(&number)];
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
