//! The termination message: what the kubelet shows of a container that is gone.
//!
//! - The file is opened once, at the start: later the agent's doings cannot lead a write elsewhere.
//! - It holds one whole JSON record at every moment, because a provisional one is all that a killed container leaves.
//! - At most 4096 bytes, the kubelet's limit; a longer reason is cut.
//! - Writing never fails the caller: a disk's trouble is counted.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::Serialize;

/// Where the kubelet puts the file unless the Pod says otherwise (`terminationMessagePath`).
pub const DEFAULT_PATH: &str = "/dev/termination-log";

/// The kubelet keeps this much.
pub const MAX_BYTES: usize = 4096;

const ELLIPSIS: char = '…';

/// One record; the last one written is what is read after the end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Record {
    /// Version of this record: 1.
    pub v: u32,
    /// The agent's state, in the words of health.
    pub state: String,
    /// Exit code of the container, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit: Option<i32>,
    /// The signal that ended the agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// For people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Which agent, as configured.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub agent_id: String,
    /// Restarts since the supervisor started.
    pub restarts: u64,
    /// Whether memory ran out, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom: Option<bool>,
}

impl Record {
    /// The supervisor itself cannot go on.
    pub fn fault(code: i32, reason: &str) -> Record {
        Record { v: 1, state: "fault".into(), exit: Some(code), reason: reason.into(), ..Record::default() }
    }

    /// Compact JSON that fits; the least needed words are cut first.
    fn encode(&self) -> Vec<u8> {
        let mut record = self.clone();
        let parts: [fn(&mut Record) -> &mut String; 3] = [|r| &mut r.reason, |r| &mut r.agent_id, |r| &mut r.state];
        for part in parts {
            let encoded = json(&record);
            if encoded.len() <= MAX_BYTES {
                return encoded;
            }
            let whole = std::mem::take(part(&mut record));
            let room = MAX_BYTES.saturating_sub(json(&record).len());
            // The field may be left out when empty, so its name and punctuation take room as well.
            *part(&mut record) = cut(&whole, room.saturating_sub(r#","agent_id":"""#.len()));
        }
        json(&record)
    }
}

fn json(record: &Record) -> Vec<u8> {
    serde_json::to_vec(record).unwrap_or_default()
}

/// The beginning of `text` that takes at most `room` bytes inside a JSON string, with an ellipsis for the rest.
fn cut(text: &str, room: usize) -> String {
    let mut used = ELLIPSIS.len_utf8();
    let mut kept = String::new();
    for char in text.chars() {
        used += match char {
            '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
            control if control < ' ' => 6,
            plain => plain.len_utf8(),
        };
        if used > room {
            break;
        }
        kept.push(char);
    }
    kept.push(ELLIPSIS);
    if kept.len() > room { String::new() } else { kept }
}

/// A termination log that was asked for and cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("termination log {path} cannot be written; name a plain file in a writable place")]
pub struct TerminationError {
    /// As configured.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

/// The open file, or nothing where this is no Pod.
#[derive(Debug)]
pub struct TerminationLog {
    file: Option<File>,
    length: u64,
    errors: u64,
}

impl TerminationLog {
    /// `configured` must be writable and is made where it is missing. Without it, `default` is used if it is there:
    /// outside a Pod nobody made it and nobody reads it.
    pub fn open(configured: Option<&Path>, default: &Path) -> Result<TerminationLog, TerminationError> {
        let file = match configured {
            Some(path) => Some(open(path, true).map_err(|source| TerminationError { path: path.to_owned(), source })?),
            None => open(default, false).ok(),
        };
        Ok(TerminationLog { file, length: 0, errors: 0 })
    }

    /// Whether anything is written at all.
    pub fn is_open(&self) -> bool {
        self.file.is_some()
    }

    /// How many writes failed.
    pub fn errors(&self) -> u64 {
        self.errors
    }

    /// Replaces the record.
    pub fn write(&mut self, record: &Record) {
        let Some(file) = &self.file else { return };
        let mut bytes = record.encode();
        let length = bytes.len() as u64;
        // Blanks over what is left of a longer record: a kill between the two calls then still leaves valid JSON.
        bytes.resize(bytes.len().max(usize::try_from(self.length).unwrap_or(0)), b' ');
        match file.write_all_at(&bytes, 0).and_then(|()| file.set_len(length)) {
            Ok(()) => self.length = length,
            Err(_) => {
                self.errors += 1;
                self.length = bytes.len() as u64;
            }
        }
    }
}

fn open(path: &Path, create: bool) -> io::Result<File> {
    let file = OpenOptions::new()
        .write(true)
        .create(create)
        .mode(0o644)
        // O_NONBLOCK: opening a FIFO for writing would wait for a reader (fifo(7)).
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a plain file"));
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scratch() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("scratch");
        let path = dir.path().join("termination-log");
        (dir, path)
    }

    fn record(reason: &str) -> Record {
        Record { v: 1, state: "ended".into(), exit: Some(3), reason: reason.into(), ..Record::default() }
    }

    fn read(path: &Path) -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(path).expect("there")).expect("one JSON value")
    }

    #[test]
    fn the_last_record_is_all_that_is_left() {
        let (_dir, path) = scratch();
        let mut log = TerminationLog::open(Some(&path), &path).expect("made");
        log.write(&record("a long word about nothing in particular"));
        log.write(&record("short"));
        assert_eq!(
            std::fs::read_to_string(&path).expect("there"),
            r#"{"v":1,"state":"ended","exit":3,"reason":"short","restarts":0}"#
        );
        assert_eq!(log.errors(), 0);
    }

    #[test]
    fn a_default_file_that_is_missing_is_no_error_and_is_not_made() {
        let (_dir, path) = scratch();
        let mut log = TerminationLog::open(None, &path).expect("nothing asked for");
        log.write(&record("x"));
        assert!(!log.is_open() && !path.exists());
        std::fs::write(&path, "left over from before, and longer than any record that will be written here soon")
            .expect("made");
        let mut log = TerminationLog::open(None, &path).expect("opens");
        log.write(&record("x"));
        assert_eq!(read(&path)["reason"], "x");
    }

    #[test]
    fn a_configured_file_that_cannot_be_written_is_named() {
        let (dir, path) = scratch();
        for bad in [dir.path().to_owned(), dir.path().join("no/such"), PathBuf::from("/proc/no-such-file")] {
            let error = TerminationLog::open(Some(&bad), &path).expect_err("not a writable file");
            assert!(error.to_string().contains(&bad.display().to_string()));
        }
    }

    #[test]
    fn neither_a_link_nor_a_fifo_is_written_through() {
        let (dir, path) = scratch();
        let outside = dir.path().join("outside");
        std::fs::write(&outside, "outside").expect("made");
        std::os::unix::fs::symlink(&outside, &path).expect("link");
        let fifo = dir.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("made");
        let _reader = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&fifo).expect("reads");
        for bad in [&path, &fifo] {
            assert!(TerminationLog::open(Some(bad), &path).is_err());
            assert!(!TerminationLog::open(None, bad).expect("quietly off").is_open());
        }
        assert_eq!(std::fs::read(&outside).expect("there"), b"outside");
    }

    #[test]
    fn a_failed_write_is_counted_and_nothing_else() {
        let mut log = TerminationLog { file: Some(File::open("/dev/null").expect("linux")), length: 0, errors: 0 };
        log.write(&record("x"));
        assert_eq!(log.errors(), 1);
    }

    #[test]
    fn a_reason_that_just_fits_is_not_cut() {
        let bare = json(&record("x")).len() - 1;
        assert_eq!(record(&"y".repeat(MAX_BYTES - bare)).encode().len(), MAX_BYTES);
        assert!(!String::from_utf8_lossy(&record(&"y".repeat(MAX_BYTES - bare)).encode()).contains(ELLIPSIS));
        assert!(String::from_utf8_lossy(&record(&"y".repeat(MAX_BYTES - bare + 1)).encode()).contains(ELLIPSIS));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn any_record_fits_and_stays_json(reason in "(\\PC|[\\x00-\\x1f\"\\\\é🦀]){0,3000}", id in "\\PC{0,5000}", state in ".{0,6000}") {
            let record = Record { reason, agent_id: id, state, ..record("") };
            let encoded = record.encode();
            prop_assert!(encoded.len() <= MAX_BYTES);
            prop_assert!(serde_json::from_slice::<serde_json::Value>(&encoded).is_ok());
        }
    }
}
