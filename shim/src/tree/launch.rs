//! Whether the child became the program: its status pipe closes at `execve`, or says first which step failed.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use protocol::control::{Decoder, Failure, Report, Step};
use protocol::guarantee::Standing;

use crate::control::Control;
use crate::failure::{because, failed};

/// A launch that is under way, or was.
pub(super) struct Launch {
    status: Option<File>,
    said: Vec<u8>,
    pid: i32,
    guarantees: Vec<Standing>,
    landlock_abi: u32,
}

/// How far it is.
pub(super) enum Outcome {
    /// The child still works on its steps, or the program runs and that has been reported.
    Settled,
    /// A step failed.
    Failed(Failure),
}

impl Launch {
    pub(super) fn new(
        pid: i32,
        status: OwnedFd,
        guarantees: Vec<Standing>,
        landlock_abi: u32,
    ) -> Result<Launch, Failure> {
        fcntl(&status, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(because(Step::Fork, "the status pipe"))?;
        Ok(Launch { status: Some(File::from(status)), said: Vec::new(), pid, guarantees, landlock_abi })
    }

    /// What to wait for, while there is something to wait for.
    pub(super) fn status(&self) -> Option<BorrowedFd<'_>> {
        self.status.as_ref().map(AsFd::as_fd)
    }

    /// Take what the child said; report the start once the pipe is closed.
    pub(super) fn look(&mut self, control: &mut Control) -> Outcome {
        let Some(status) = &mut self.status else { return Outcome::Settled };
        match status.read_to_end(&mut self.said) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Outcome::Settled,
            Ok(_) | Err(_) => self.status = None,
        }
        if self.said.is_empty() {
            control.report(&Report::Started {
                pid: self.pid,
                guarantees: std::mem::take(&mut self.guarantees),
                landlock_abi: self.landlock_abi,
            });
            return Outcome::Settled;
        }
        let mut decoder = Decoder::default();
        decoder.push(&self.said);
        match decoder.next() {
            Ok(Some(failure)) => Outcome::Failed(failure),
            Ok(None) | Err(_) => Outcome::Failed(failed(Step::Fork, 0, "the child ended in the middle of a step")),
        }
    }
}
