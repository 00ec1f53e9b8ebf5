//! The operator's bounds for dev-tasks.

use std::path::PathBuf;
use std::time::Duration;

use crate::config::{Reader, parse};

/// The operator's bounds.
#[derive(Clone, Debug)]
pub struct Config {
    /// Tasks that run at once.
    pub concurrency: usize,
    /// Tasks that wait; one more is refused with 429.
    pub queue: usize,
    /// Default and longest wall time.
    pub timeout: Duration,
    /// Kept bytes of each output stream: default and most.
    pub output_bytes: u64,
    /// TERM to KILL.
    pub grace: Duration,
    /// Scratch and artifact directories, one folder a task; `None` puts them into the state directory.
    pub directory: Option<PathBuf>,
    /// Ended tasks that are remembered.
    pub keep_count: usize,
    /// How long they are.
    pub keep_age: Duration,
    /// Kept output of all tasks together.
    pub keep_bytes: u64,
    /// An answer waits until its record is on the disk.
    pub sync_always: bool,
    /// Bytes that may come out of a task's archive.
    pub unpacked: u64,
    /// Tasks that were queued when the supervisor ended are run by the next one; else they fail.
    pub requeue: bool,
}

impl Config {
    /// From the settings `task_*`.
    pub fn read(reader: &mut Reader<'_>) -> Config {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let count = |most| move |text: &str| parse::number(1, most)(text).map(|n| n as usize);
        Config {
            concurrency: reader.optional("task_concurrency", count(10_000)).unwrap_or(2 * cores),
            queue: reader.value("task_queue", count(1_000_000)),
            timeout: reader.value("task_timeout", parse::positive_duration),
            output_bytes: reader.value("task_output", parse::size),
            grace: reader.value("task_grace", parse::duration),
            directory: reader.optional("task_dir", parse::path),
            keep_count: reader.value("task_keep_count", count(1_000_000)),
            keep_age: reader.value("task_keep_age", parse::positive_duration),
            keep_bytes: reader.value("task_keep_bytes", parse::size),
            sync_always: reader.value("task_sync", |text| match text {
                "group" => Ok(false),
                "always" => Ok(true),
                _ => Err(format!("`{text}` is neither group nor always")),
            }),
            unpacked: reader.value("archive_unpacked", parse::size),
            requeue: reader.value("task_requeue", parse::boolean),
        }
    }
}
