//! Who dies first when memory is short: the program, not the shim.
//!
//! The files of a process that is not dumpable belong to root (proc(5)), so a shim without root could not open its
//! program's. Being dumpable for the time of that opening would let every process of the same uid open its memory too
//! (ptrace(2)), and keep it open. So the shim opens its own file before it hides, gives itself the score for the
//! time of the fork, which hands it down, and takes its old one back.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;

use protocol::control::{Failure, Step};

use crate::failure::failed;
use crate::kernel;

/// The shim's own score, opened or not: who needs it, will be told.
pub struct OomScore(io::Result<File>);

impl OomScore {
    /// Before `PR_SET_DUMPABLE`.
    pub fn open() -> OomScore {
        OomScore(OpenOptions::new().read(true).write(true).open("/proc/self/oom_score_adj"))
    }

    /// From here on what is forked has `score`.
    pub fn lend(self, score: Option<i16>) -> Result<Lent, Failure> {
        let Some(score) = score else { return Ok(Lent(None)) };
        let lend = || {
            let file = self.0?;
            let mut own = [0u8; 16];
            let length = file.read_at(&mut own, 0)?;
            file.write_all_at(score.to_string().as_bytes(), 0)?;
            Ok(Lent(Some((file, own[..length].to_vec()))))
        };
        lend().map_err(|error: io::Error| {
            failed(
                Step::OomScore,
                kernel::errno_of(&error),
                format!(
                    "setting oom_score_adj to {score}: {error} (a lower one than the supervisor's own needs \
                     CAP_SYS_RESOURCE)"
                ),
            )
        })
    }
}

/// The shim has the program's score.
#[must_use]
pub struct Lent(Option<(File, Vec<u8>)>);

impl Lent {
    /// The shim's own again. Call it with the capabilities that lending had: with CAP_SYS_RESOURCE the kernel took the
    /// score for the lowest that a process without may have (proc_pid_oom_score_adj(5)).
    pub fn take_back(self) -> Result<(), Failure> {
        let Lent(Some((file, own))) = self else { return Ok(()) };
        file.write_all_at(&own, 0).map_err(|error| {
            failed(Step::OomScore, kernel::errno_of(&error), format!("restoring the shim's own oom_score_adj: {error}"))
        })
    }
}
