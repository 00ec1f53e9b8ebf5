//! Frames between the supervisor and one shim, over one stream socket that the shim inherits.
//!
//! A frame is a little-endian `u32` length and that many bytes of postcard. The first frame to the shim is
//! [`Command::Start`]; afterwards the socket is also the lifeline: when the supervisor's end closes, the shim ends
//! its tree and exits. Both programs are always of one build, so the frames carry no version; the shim refuses a
//! policy that it cannot decode to the last byte.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::time::Duration;

use crate::guarantee::Standing;
use crate::policy::Policy;

/// The largest frame, in bytes: argv and environment together may have 2 MiB on Linux (`execve(2)`), the rest is
/// paths. A longer length is a broken peer, not a larger policy.
pub const MAX_FRAME: usize = 8 * 1024 * 1024;

/// Supervisor to shim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Start the program. Once, first.
    Start(Box<Policy>),
    /// Send this signal to the main program.
    Signal(i32),
    /// End the tree: `signal` to whom `scope` says, wait `grace`, then KILL everyone. Sent again, the earlier
    /// deadline wins.
    Stop {
        /// First signal.
        signal: i32,
        /// Who gets it.
        scope: Scope,
        /// Until KILL.
        grace: Duration,
    },
}

/// Who gets a stop's first signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scope {
    /// The main program, as the kubelet would do without a supervisor.
    Main,
    /// Every process of the tree.
    Tree,
}

/// Shim to supervisor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Report {
    /// The program runs: `execve` succeeded under the confinement described.
    Started {
        /// Pid of the main program.
        pid: i32,
        /// What holds and what does not.
        guarantees: Vec<Standing>,
        /// Landlock ABI in force, 0 for none.
        landlock_abi: u32,
    },
    /// Nothing was started. The shim exits after this frame.
    Failed(Failure),
    /// The main program ended. Others of its tree may still live.
    Exited(Exit),
    /// This many orphans of the tree have been reaped since the last such frame.
    Orphans(u64),
    /// Nobody of the tree is left. The last frame; the shim exits 0 after it.
    Ended {
        /// How the main program ended.
        exit: Exit,
        /// What the whole tree used.
        usage: Usage,
        /// Processes that had to be ended after the main program or by KILL.
        killed: u64,
    },
}

/// Which step failed, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The step.
    pub step: Step,
    /// `errno`, 0 where there is none.
    pub errno: i32,
    /// For people: names the thing and what to do.
    pub message: String,
}

/// The shim's steps, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)]
pub enum Step {
    Policy,
    Guarantees,
    Descriptors,
    Session,
    Fork,
    WorkingDirectory,
    Limits,
    OomScore,
    Nice,
    BoundingSet,
    Groups,
    User,
    NoNewPrivileges,
    Landlock,
    Capabilities,
    ReadBack,
    Seccomp,
    Exec,
}

/// How the main program ended, as `waitpid(2)` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// `exit(code)`, 0 to 255.
    Code(i32),
    /// Ended by this signal.
    Signal(i32),
}

impl Exit {
    /// The exit code that a shell and the kubelet show: the code itself, or 128 + the signal.
    pub const fn code(self) -> i32 {
        match self {
            Exit::Code(code) => code,
            Exit::Signal(signal) => 128 + signal,
        }
    }
}

/// What a tree used (`getrusage(2)`, children).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// CPU time in user mode, µs.
    pub user_us: u64,
    /// CPU time in the kernel, µs.
    pub system_us: u64,
    /// Largest resident set of any one process, KiB.
    pub max_rss_kib: u64,
}

/// A frame that cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Longer than [`MAX_FRAME`].
    #[error("frame of {0} bytes is longer than {MAX_FRAME}")]
    TooLong(usize),
    /// Not what the other side would write.
    #[error("frame cannot be decoded")]
    Malformed(#[source] postcard::Error),
    /// A message, and then so many bytes that are no part of it: the two sides do not mean the same.
    #[error("frame has {0} bytes behind its message")]
    Behind(usize),
}

/// One frame, length first.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, FrameError> {
    let mut frame = postcard::to_extend(message, vec![0u8; 4]).map_err(FrameError::Malformed)?;
    let length = frame.len() - 4;
    if length > MAX_FRAME {
        return Err(FrameError::TooLong(length));
    }
    frame[..4].copy_from_slice(&(length as u32).to_le_bytes());
    Ok(frame)
}

/// Bytes as they arrive, frames as they are complete.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
}

impl Decoder {
    /// Take what was read.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// How many bytes are known to be missing from the next frame; 0 when it is whole.
    pub fn missing(&self) -> Result<usize, FrameError> {
        let whole = match self.buffer.first_chunk::<4>() {
            None => 4,
            Some(head) => 4 + u32::from_le_bytes(*head) as usize,
        };
        if whole > 4 + MAX_FRAME {
            Err(FrameError::TooLong(whole))
        } else {
            Ok(whole.saturating_sub(self.buffer.len()))
        }
    }

    /// The next whole frame, `None` until more bytes come.
    // Not an iterator: each frame may be of another type.
    #[allow(clippy::should_implement_trait)]
    pub fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FrameError> {
        let Some(head) = self.buffer.first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_le_bytes(*head) as usize;
        if length > MAX_FRAME {
            return Err(FrameError::TooLong(length));
        }
        if self.buffer.len() < 4 + length {
            return Ok(None);
        }
        let frame = &self.buffer[4..4 + length];
        let (message, behind) = postcard::take_from_bytes(frame).map_err(FrameError::Malformed)?;
        if !behind.is_empty() {
            return Err(FrameError::Behind(behind.len()));
        }
        self.buffer.drain(..4 + length);
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_being_cut_anywhere() {
        let sent = [
            Report::Exited(Exit::Signal(9)),
            Report::Orphans(3),
            Report::Ended { exit: Exit::Code(7), usage: Usage::default(), killed: 2 },
        ];
        let bytes: Vec<u8> = sent.iter().flat_map(|r| encode(r).expect("small frames encode")).collect();
        for cut in 0..=bytes.len() {
            let mut decoder = Decoder::default();
            let mut got = Vec::new();
            for part in [&bytes[..cut], &bytes[cut..]] {
                decoder.push(part);
                while let Some(report) = decoder.next::<Report>().expect("frames decode") {
                    got.push(report);
                }
            }
            assert_eq!(got, sent);
        }
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_before_it_is_buffered() {
        let mut decoder = Decoder::default();
        decoder.push(&u32::MAX.to_le_bytes());
        assert!(matches!(decoder.next::<Report>(), Err(FrameError::TooLong(_))));
    }

    #[test]
    fn a_frame_with_bytes_behind_its_message_is_refused() {
        let mut frame = encode(&Report::Orphans(3)).expect("a small frame");
        frame[0] += 1;
        frame.push(0);
        let mut decoder = Decoder::default();
        decoder.push(&frame);
        assert!(matches!(decoder.next::<Report>(), Err(FrameError::Behind(1))));
    }
}
