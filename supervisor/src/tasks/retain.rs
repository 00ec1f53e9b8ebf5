//! What ended tasks leave, and when it goes: bounded by count, age and bytes, or on a client's word.

use std::path::PathBuf;
use std::time::SystemTime;

use protocol::task::Output;

use super::journal::Record;
use super::{Tasks, identity};
use crate::workspace::work::Work;
use crate::workspace::workers::Input;

/// Beginning of a folder's name on its way out; no task's id begins with a dot.
const REMOVED: &str = ".removed-";
/// What a task writes in: the supervisor never opens these, nor anything in them.
const SHARED: [&str; 3] = ["workspace", "artifacts", "scratch"];

impl Tasks {
    /// A tenth above the bounds, so that not every end has to look at all that ended before.
    pub(super) fn keeps_too_much(&self) -> bool {
        let (count, bytes) = self.ended;
        count > self.config.keep_count + self.config.keep_count / 10
            || bytes > self.config.keep_bytes.saturating_add(self.config.keep_bytes / 10)
    }

    /// Oldest first, until count, age and bytes are within their bounds.
    pub(super) async fn retain(&mut self) {
        let mut ended: Vec<(String, String, u64)> = self
            .table
            .iter()
            .filter(|(_, row)| row.record.task.state.is_final())
            .map(|(id, row)| {
                let task = &row.record.task;
                (task.finished_at.clone().unwrap_or_default(), id.clone(), kept(&task.output))
            })
            .collect();
        ended.sort();
        let oldest_allowed = identity::time(SystemTime::now() - self.config.keep_age);
        let mut bytes: u64 = ended.iter().map(|(_, _, kept)| kept).sum();
        let mut count = ended.len();
        for (finished, id, kept) in ended {
            if count <= self.config.keep_count && bytes <= self.config.keep_bytes && finished >= oldest_allowed {
                break;
            }
            if let Err(error) = self.forget(&id).await {
                tracing::error!(error, task_id = id, "an old task could not be forgotten");
                return;
            }
            (count, bytes) = (count - 1, bytes - kept);
        }
        self.ended = (count, bytes);
        self.ledger.tidy(self.table.values().map(|row| &row.record));
    }

    /// First the record, then the files: after a crash between the two the files are found and removed.
    pub(super) async fn forget(&mut self, id: &str) -> Result<(), String> {
        let Some(row) = self.table.get(id) else { return Ok(()) };
        let record = Record { deleted: true, ..row.record.clone() };
        self.ledger.write(&record).await?;
        self.table.remove(id);
        self.keys.retain(|_, known| known != id);
        self.remove_files(id);
        Ok(())
    }

    pub(super) fn remove_files(&self, id: &str) {
        let roots = [Some(self.log_root.clone()), self.config.directory.clone()];
        // Moved at once, so that a new task of this name finds nothing.
        let moved = |root: PathBuf| {
            let away = root.join(format!("{REMOVED}{}", identity::run_id()));
            std::fs::rename(root.join(id), &away).is_ok().then_some(away)
        };
        self.remove_folders(roots.into_iter().flatten().filter_map(moved).collect());
    }

    /// What no record tells of: its task was forgotten just before a crash, or its line was damaged.
    pub(super) fn remove_leftovers(&self) {
        let entries = |root: &PathBuf| std::fs::read_dir(root).into_iter().flatten().flatten();
        let roots = [Some(self.log_root.clone()), self.config.directory.clone()];
        let is_removed =
            |entry: &std::fs::DirEntry| entry.file_name().as_encoded_bytes().starts_with(REMOVED.as_bytes());
        let removed = roots.iter().flatten().flat_map(entries).filter(is_removed);
        self.remove_folders(removed.map(|entry| entry.path()).collect());
        for entry in entries(&self.log_root).filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            let name = entry.file_name();
            if let Some(id) = name.to_str().filter(|id| !id.starts_with('.') && !self.table.contains_key(*id)) {
                self.remove_files(id);
            }
        }
    }

    fn remove_folders(&self, folders: Vec<PathBuf>) {
        if folders.is_empty() {
            return;
        }
        let workers = self.workers.clone();
        let log_root = self.log_root.clone();
        tokio::spawn(async move {
            for folder in folders {
                let shared = SHARED.map(|name| folder.join(name));
                if !remove_empty(shared.clone()).await {
                    // What the task left is its own to walk: links may be planted there, and another uid's folders closed.
                    for root in shared.clone() {
                        let _ = workers.run(&Work::Clear { root }, Input::None).await;
                    }
                    remove_empty(shared).await;
                }
                if !remove(folder.clone(), folder.starts_with(&log_root)).await {
                    tracing::warn!(folder = %folder.display(), "what a task left could not be removed");
                }
            }
        });
    }
}

/// Bytes on disk.
pub(super) fn kept(output: &Output) -> u64 {
    (output.stdout_bytes + output.stderr_bytes).saturating_sub(output.cut_bytes)
}

/// Remove directories without opening them; whether none is left.
async fn remove_empty(directories: [PathBuf; SHARED.len()]) -> bool {
    let removing = tokio::task::spawn_blocking(move || {
        directories.iter().fold(true, |all, directory| all & is_gone(std::fs::remove_dir(directory)))
    });
    removing.await.unwrap_or(false)
}

/// Remove a task's folder, with `ours` also what it holds; whether it is gone.
async fn remove(folder: PathBuf, ours: bool) -> bool {
    let removing = tokio::task::spawn_blocking(move || {
        // What a task could write in is gone from here, or the folder is kept as it is.
        let emptied = SHARED.iter().all(|name| folder.join(name).symlink_metadata().is_err());
        emptied && is_gone(if ours { std::fs::remove_dir_all(folder) } else { std::fs::remove_dir(folder) })
    });
    removing.await.unwrap_or(false)
}

fn is_gone(removed: std::io::Result<()>) -> bool {
    removed.map_or_else(|e| e.kind() == std::io::ErrorKind::NotFound, |()| true)
}
