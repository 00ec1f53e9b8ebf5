//! `supervisor worker`: one piece of workspace work, in a process of its own with the agent's ids.
//!
//! The workspace is the agent's: links may be planted there, and archives may be made to break their reader. So PID 1
//! opens and parses none of it; this process does, started through the shim and confined to the one directory that the
//! work is about. It reads contents on standard input, and answers a line of JSON and then the bytes on standard output.
//! What fails before that line is told in it; what fails after it ends the process with a code that is not 0.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::AsFd;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::exit;
use crate::workspace::failure::{Failure, Kind};
use crate::workspace::root::Root;
use crate::workspace::work::Work;
use crate::workspace::{archive, diff, files, pack, unpack};

/// The first line of every answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Head<T> {
    /// Done, or the bytes follow.
    Done(T),
    /// Not done.
    Failed(Failure),
}

/// Do the work that the arguments say; the exit code.
pub fn run(arguments: &[OsString]) -> u8 {
    let Some(work) = Work::parse(arguments) else {
        eprintln!("supervisor: worker: these arguments are no work");
        return exit::USAGE;
    };
    // Signals just end us. Only a write has something to tidy up: it ends with its input, which is closed together with
    // our lifeline; what keeps it longer than its grace is killed.
    if matches!(work, Work::Write { .. }) {
        let _ = crate::init::block_signals();
    }
    let mut answer = match (stream(io::stdin()), stream(io::stdout())) {
        (Ok(input), Ok(output)) => Answer { input, output: BufWriter::with_capacity(64 * 1024, output), begun: false },
        _ => return exit::INTERNAL,
    };
    match answer.work(work).and_then(|()| answer.output.flush().map_err(gone)) {
        Ok(()) => 0,
        Err(failure) => {
            if !answer.begun {
                let _ = answer
                    .head(&Head::<()>::Failed(failure.clone()))
                    .and_then(|()| answer.output.flush().map_err(gone));
            }
            eprintln!("supervisor: worker: {failure}");
            if failure.kind == Kind::Full { exit::TEMPORARY } else { exit::INTERNAL }
        }
    }
}

/// Not through std's locked and buffered handles, whose buffers would hide what was really written.
fn stream(of: impl AsFd) -> io::Result<File> {
    Ok(File::from(of.as_fd().try_clone_to_owned()?))
}

struct Answer {
    input: File,
    output: BufWriter<File>,
    begun: bool,
}

impl Answer {
    fn work(&mut self, work: Work) -> Result<(), Failure> {
        match work {
            Work::List { root, directory, recursive, after, limit } => {
                let page = files::list(&open(&root)?, directory.as_ref(), recursive, after.as_ref(), limit)?;
                self.done(&())?;
                self.json(&page)
            }
            Work::Stat { root, path } => {
                let entry = files::stat(&open(&root)?, path.as_ref())?;
                self.done(&())?;
                self.json(&entry)
            }
            Work::Read { root, path, span } => {
                let (opened, mut content) = files::open(&open(&root)?, &path, span)?;
                let count = opened.part.map_or(0, |(_, count)| count);
                self.done(&opened)?;
                files::copy(&mut content, &mut self.output, count).map_err(gone)
            }
            Work::Write { root, path, mode, parents, length } => {
                let entry = files::write(&open(&root)?, &path, mode, parents, (length, &self.input))?;
                self.done(&())?;
                self.json(&entry)
            }
            Work::Remove { root, path } => files::remove(&open(&root)?, &path).and_then(|()| self.done(&())),
            Work::Pack { root, gzip } => {
                let root = open(&root)?;
                self.done(&())?;
                pack::pack(&root, gzip, &mut self.output)
            }
            Work::Check { most } => archive::read(&self.input, most, &mut |_, _| Ok(())).and_then(|()| self.done(&())),
            Work::Unpack { root, most } => {
                unpack::unpack(&open(&root)?, &self.input, most)?;
                self.done(&())
            }
            Work::Diff { root } => {
                let seed = self.input.try_clone().map_err(gone)?;
                // Held back until it is whole: a patch that fails half-way is told as a failure.
                let mut patch = Vec::new();
                diff::diff(&open(&root)?, seed, &mut patch)?;
                self.done(&())?;
                self.output.write_all(&patch).map_err(gone)
            }
            Work::Clear { root } => files::clear(&open(&root)?).and_then(|()| self.done(&())),
        }
    }

    fn done(&mut self, head: &impl Serialize) -> Result<(), Failure> {
        self.head(&Head::Done(head))
    }

    fn head(&mut self, head: &impl Serialize) -> Result<(), Failure> {
        self.begun = true;
        self.json(head)?;
        self.output.write_all(b"\n").map_err(gone)
    }

    fn json(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        let bytes = serde_json::to_vec(value).map_err(|e| Failure::new(Kind::Internal, e.to_string()))?;
        self.output.write_all(&bytes).map_err(gone)
    }
}

fn open(root: &Path) -> Result<Root, Failure> {
    Root::open(root).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => Failure::new(Kind::NotFound, "this directory does not exist any more"),
        _ => Failure::new(Kind::Internal, format!("the directory cannot be opened: {e}")),
    })
}

fn gone(error: io::Error) -> Failure {
    Failure::new(Kind::Internal, format!("input or output ended early: {error}"))
}
