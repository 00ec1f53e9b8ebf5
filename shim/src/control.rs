//! The socket to the supervisor: commands in, reports out, never waiting for either.
//!
//! A supervisor that does not read must not keep the shim from reaping: what cannot be sent stays in one buffer, and
//! counts are summed until it is empty.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, send};
use protocol::control::{Command, Decoder, Failure, FrameError, Report, Step, encode};
use protocol::policy::Policy;

use crate::failure::failed;
use crate::zygote;

/// Each page that is touched for the first time costs a fault, and most policies fit into one.
const PAGE: usize = 4096;

/// The shim's end.
pub struct Control {
    socket: OwnedFd,
    decoder: Decoder,
    unsent: Vec<u8>,
}

/// Why no more commands will come.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The supervisor's end is closed: the lifeline is broken.
    #[error("the supervisor is gone")]
    Closed,
    /// The supervisor's bytes are not frames.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

impl Control {
    /// Over this socket.
    pub fn new(socket: OwnedFd) -> Control {
        Control { socket, decoder: Decoder::default(), unsent: Vec::new() }
    }

    /// Wait for the policy, the first frame, and what comes beside it.
    pub fn policy(&mut self) -> Result<(Box<Policy>, Vec<OwnedFd>), Failure> {
        let mut beside = Vec::new();
        loop {
            match self.command() {
                Ok(Some(Command::Start(policy))) => return Ok((policy, beside)),
                Ok(Some(_)) => return Err(failed(Step::Policy, 0, "the first command was not the policy")),
                Ok(None) => {}
                Err(error) => return Err(failed(Step::Policy, 0, error.to_string())),
            }
            let mut bytes = [0u8; PAGE];
            match zygote::receive(&self.socket, &mut bytes) {
                Ok((count, came)) if count > 0 => {
                    self.decoder.push(&bytes[..count]);
                    beside.extend(came);
                }
                _ => return Err(failed(Step::Policy, 0, "the supervisor closed the socket before it sent a policy")),
            }
        }
    }

    /// The next command that is already here.
    pub fn command(&mut self) -> Result<Option<Command>, ControlError> {
        Ok(self.decoder.next()?)
    }

    /// Take in what has arrived.
    pub fn receive_what_is_there(&mut self) -> Result<(), ControlError> {
        let mut bytes = [0u8; PAGE];
        match recv(self.socket.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT) {
            Ok(0) => Err(ControlError::Closed),
            Ok(count) => {
                self.decoder.push(&bytes[..count]);
                Ok(())
            }
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(()),
            Err(_) => Err(ControlError::Closed),
        }
    }

    /// Put a report behind those that are not sent yet, and send what the socket takes.
    pub fn report(&mut self, report: &Report) {
        // A report is far below the largest frame: its longest part is one message.
        if let Ok(frame) = encode(report) {
            self.unsent.extend_from_slice(&frame);
        }
        self.send_what_fits();
    }

    /// Send what the socket takes. An error means that nobody reads any more, which the lifeline will tell.
    pub fn send_what_fits(&mut self) {
        self.send(MsgFlags::MSG_DONTWAIT);
    }

    /// Send everything, waiting for the reader; for the last frame, when nothing else is left to do.
    pub fn send_all(&mut self) {
        self.send(MsgFlags::empty());
    }

    fn send(&mut self, flags: MsgFlags) {
        while !self.unsent.is_empty() {
            match send(self.socket.as_raw_fd(), &self.unsent, flags | MsgFlags::MSG_NOSIGNAL) {
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return,
                Err(_) => self.unsent.clear(),
            }
        }
    }

    /// Whether reports wait for the reader.
    pub fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }
}

impl AsFd for Control {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
