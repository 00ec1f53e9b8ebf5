//! `NOTIFY_SOCKET`: what the agent says about itself, as `sd_notify(3)` defines it.
//!
//! - The socket lies in a fresh directory of its own, never in the state directory: the agent must reach it.
//! - Only the agent's own tree is heard: the kernel attaches the sender's pid and uid (`SCM_CREDENTIALS`, unix(7)).
//! - Descriptors never arrive here: there is no room for them, so the kernel closes them and the datagram is ignored.
//!   That also answers `sd_notify_barrier(3)`, which waits for exactly this closing.
//! - A datagram has at most 4 KiB; what is longer, or not understood, is ignored.

mod message;
mod sender;

pub use message::{Message, parse};
pub use sender::is_descendant;

use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram as StdDatagram;
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixCredentials, recvmsg, setsockopt, sockopt};
use nix::sys::stat::{FchmodatFlags, Mode, fchmod, fchmodat};
use nix::unistd::{UnlinkatFlags, mkdtemp, unlinkat};
use tokio::io::Interest;
use tokio::net::UnixDatagram;

/// As systemd has it (`NOTIFY_BUFFER_MAX`).
const MAX_DATAGRAM: usize = 4096;
const SOCKET: &str = "notify";

/// No socket could be made.
#[derive(Debug, thiserror::Error)]
#[error("no notify socket can be made in {}; mount a writable volume at one of them", list(.dirs))]
pub struct NotifyError {
    /// The directories that were tried.
    pub dirs: Vec<PathBuf>,
    /// Why the last one failed.
    pub source: io::Error,
}

fn list(dirs: &[PathBuf]) -> String {
    dirs.iter().map(|dir| dir.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// The socket that the agent is told of. It goes away when this is dropped.
#[derive(Debug)]
pub struct Notify {
    socket: UnixDatagram,
    place: Place,
}

impl Notify {
    /// Makes the socket in the first of `dirs` where that works. Needs a running tokio runtime.
    pub fn bind(dirs: &[PathBuf]) -> Result<Notify, NotifyError> {
        let mut source = io::Error::from(io::ErrorKind::NotFound);
        for dir in dirs {
            match Place::make(dir).and_then(|place| Ok((place.bind()?, place))) {
                Ok((socket, place)) => return Ok(Notify { socket, place }),
                Err(error) => source = error,
            }
        }
        Err(NotifyError { dirs: dirs.to_owned(), source })
    }

    /// The value of `NOTIFY_SOCKET`.
    pub fn path(&self) -> &Path {
        &self.place.socket
    }

    /// What the next datagram says, of those whose sender's pid and uid are accepted. May be cancelled.
    pub async fn next(&mut self, mut accept: impl FnMut(i32, u32) -> bool) -> io::Result<Vec<Message>> {
        loop {
            let mut bytes = [0; MAX_DATAGRAM];
            let socket = &self.socket;
            let received = socket.async_io(Interest::READABLE, || receive(socket, &mut bytes)).await?;
            if let Some((length, _)) = received.filter(|(_, sender)| accept(sender.pid(), sender.uid())) {
                return Ok(parse(&bytes[..length]));
            }
        }
    }
}

/// One datagram and its sender, `None` where it is to be ignored.
fn receive(socket: &UnixDatagram, bytes: &mut [u8]) -> io::Result<Option<(usize, UnixCredentials)>> {
    // Room for the credentials alone: descriptors that find none are closed by the kernel (unix(7)).
    let mut control = nix::cmsg_space!(UnixCredentials);
    let mut parts = [IoSliceMut::new(bytes)];
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let got = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags)?;
    if got.flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC) {
        return Ok(None);
    }
    let sender = got.cmsgs()?.find_map(|message| match message {
        ControlMessageOwned::ScmCredentials(sender) => Some(sender),
        _ => None,
    });
    Ok(sender.map(|sender| (got.bytes, sender)))
}

/// A directory of ours with one socket in it, held by descriptors: whoever may write to its parent can put another
/// in its place, and what we remove must still be our own.
#[derive(Debug)]
struct Place {
    parent: OwnedFd,
    name: PathBuf,
    dir: OwnedFd,
    socket: PathBuf,
}

impl Place {
    fn make(parent: &Path) -> io::Result<Place> {
        let path = mkdtemp(&parent.join("supervisor-notify-XXXXXX"))?;
        let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let dir = openat(AT_FDCWD, &path, flags | OFlag::O_RDONLY, Mode::empty())?;
        let parent = openat(AT_FDCWD, parent, OFlag::O_DIRECTORY | OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
        let name = path.file_name().map(PathBuf::from).unwrap_or_default();
        Ok(Place { parent, name, dir, socket: path.join(SOCKET) })
    }

    fn bind(&self) -> io::Result<UnixDatagram> {
        let socket = StdDatagram::bind(&self.socket)?;
        setsockopt(&socket, sockopt::PassCred, &true)?;
        socket.set_nonblocking(true)?;
        // The agent may have another uid. Sending needs write permission on the socket and search on the way to it.
        fchmodat(&self.dir, SOCKET, Mode::from_bits_truncate(0o666), FchmodatFlags::FollowSymlink)?;
        fchmod(&self.dir, Mode::from_bits_truncate(0o711))?;
        UnixDatagram::from_std(socket)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = unlinkat(&self.dir, SOCKET, UnlinkatFlags::NoRemoveDir);
        let _ = unlinkat(&self.parent, &self.name, UnlinkatFlags::RemoveDir);
    }
}

#[cfg(test)]
mod tests;
