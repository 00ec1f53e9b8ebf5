//! What an attached client is shown: the task's streams from its cursors on, as fast as it takes them.
//!
//! Bytes come from the disk when they are asked for, one chunk at a time, so a client that does not read costs a chunk
//! and slows nobody. Bytes that were cut before it came to them are named, and the end is told after the last byte.

use std::io;
use std::sync::Arc;

use protocol::attach::{Cut, Stream as Name};
use tokio::sync::watch;
use tokio::task::spawn_blocking;

use crate::tasks::output::{Progress, Stream};

/// Read at once, and the largest message that is sent.
const CHUNK: usize = 32 * 1024;

/// The next thing to show.
#[derive(Debug)]
pub(super) enum Piece {
    /// From here on bytes are of this stream.
    Switch(Name),
    /// These are missing.
    Cut(Cut),
    /// These follow.
    Bytes(Vec<u8>),
    /// Nothing more will come.
    End,
}

/// One stream, and how far it was shown.
pub(super) struct Tap {
    name: Name,
    stream: Arc<Stream>,
    progress: watch::Receiver<Progress>,
    cursor: u64,
    ended: bool,
    /// Read, and not shown yet because something has to be said first.
    held: Option<Vec<u8>>,
}

impl Tap {
    pub(super) fn new(name: Name, stream: &Arc<Stream>, cursor: u64) -> Tap {
        Tap { name, stream: stream.clone(), progress: stream.progress(), cursor, ended: false, held: None }
    }

    /// Look whether there is more; what was cut on the way to it.
    async fn look(&mut self) -> io::Result<Option<Cut>> {
        let seen = *self.progress.borrow_and_update();
        self.ended = seen.ended && seen.total <= self.cursor;
        if seen.total <= self.cursor || self.held.is_some() {
            return Ok(None);
        }
        let (stream, cursor) = (self.stream.clone(), self.cursor);
        let read = spawn_blocking(move || stream.read(cursor, CHUNK)).await;
        let chunk = read.unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))?;
        let cut = (chunk.start > cursor).then_some(Cut { stream: self.name, from: cursor, to: chunk.start });
        self.cursor = chunk.start + chunk.bytes.len() as u64;
        self.held = Some(chunk.bytes);
        Ok(cut)
    }
}

/// Both streams as one sequence.
pub(super) struct Outlet {
    taps: [Tap; 2],
    /// Which of them the client believes to see, and whose turn it is.
    shown: usize,
    turn: usize,
}

impl Outlet {
    /// Standard output is what the client believes to see.
    pub(super) fn new(stdout: Tap, stderr: Tap) -> Outlet {
        Outlet { taps: [stdout, stderr], shown: 0, turn: 0 }
    }

    /// Waits for the task. May be cancelled: nothing is lost.
    pub(super) async fn next(&mut self) -> io::Result<Piece> {
        loop {
            for turn in [self.turn, 1 - self.turn] {
                if let Some(cut) = self.taps[turn].look().await? {
                    return Ok(Piece::Cut(cut));
                }
                if self.taps[turn].held.is_none() {
                    continue;
                }
                if self.shown != turn {
                    self.shown = turn;
                    return Ok(Piece::Switch(self.taps[turn].name));
                }
                self.turn = 1 - turn;
                return Ok(Piece::Bytes(self.taps[turn].held.take().unwrap_or_default()));
            }
            if self.taps.iter().all(|tap| tap.ended) {
                return Ok(Piece::End);
            }
            let [stdout, stderr] = &mut self.taps;
            // An error says that the stream was forgotten with its task, which ends before that.
            tokio::select! {
                Ok(()) = stdout.progress.changed(), if !stdout.ended => {}
                Ok(()) = stderr.progress.changed(), if !stderr.ended => {}
                else => return Ok(Piece::End),
            }
        }
    }
}
