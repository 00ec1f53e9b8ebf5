//! What ended tasks leave, and when it goes: bounded by count, age and bytes, or on a client's word.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use protocol::task::Output;

use super::folders::READY;
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
        // An age may be longer than the calendar that we write.
        let since = SystemTime::now().checked_sub(self.config.keep_age).map_or(UNIX_EPOCH, |at| at.max(UNIX_EPOCH));
        let oldest_allowed = identity::time(since);
        let mut bytes: u64 = ended.iter().map(|(_, _, kept)| kept).sum();
        let mut count = ended.len();
        let mut left = Vec::new();
        for (finished, id, kept) in ended {
            if count <= self.config.keep_count && bytes <= self.config.keep_bytes && finished >= oldest_allowed {
                break;
            }
            match self.forget(&id).await {
                Ok(folders) => left.extend(folders),
                Err(error) => {
                    tracing::error!(error, task_id = id, "an old task could not be forgotten");
                    break;
                }
            }
            (count, bytes) = (count - 1, bytes - kept);
        }
        self.remove_folders(left);
        self.ended = (count, bytes);
        self.ledger.tidy(self.table.values().map(|row| &row.record));
    }

    /// First the record, then the files: after a crash between the two the files are found and removed. Answers what is
    /// to be removed.
    pub(super) async fn forget(&mut self, id: &str) -> Result<Vec<PathBuf>, String> {
        let Some(row) = self.table.get(id) else { return Ok(Vec::new()) };
        let record = Record { deleted: true, ..row.record.clone() };
        self.ledger.write(&record).await?;
        if let Some(row) = self.table.remove(id) {
            self.metrics.tasks.forget(&row.record.task);
        }
        self.keys.retain(|_, known| known != id);
        Ok(self.put_away(id))
    }

    /// Move a task's folders at once, so that a new task of this name finds nothing.
    pub(super) fn put_away(&self, id: &str) -> Vec<PathBuf> {
        let roots = [Some(self.log_root.clone()), self.config.directory.clone()];
        let moved = |root: PathBuf| {
            let away = root.join(format!("{REMOVED}{}", identity::run_id()));
            std::fs::rename(root.join(id), &away).is_ok().then_some(away)
        };
        roots.into_iter().flatten().filter_map(moved).collect()
    }

    /// What no record tells of: its task was forgotten just before a crash, or its line was damaged.
    pub(super) fn remove_leftovers(&self) {
        let entries = |root: &PathBuf| std::fs::read_dir(root).into_iter().flatten().flatten();
        let roots = [Some(self.log_root.clone()), self.config.directory.clone()];
        let is_removed = |entry: &std::fs::DirEntry| {
            let name = entry.file_name();
            [REMOVED, READY].iter().any(|prefix| name.as_encoded_bytes().starts_with(prefix.as_bytes()))
        };
        let removed = roots.iter().flatten().flat_map(entries).filter(is_removed);
        self.remove_folders(removed.map(|entry| entry.path()).collect());
        for entry in entries(&self.log_root).filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            let name = entry.file_name();
            if let Some(id) = name.to_str().filter(|id| !id.starts_with('.') && !self.table.contains_key(*id)) {
                self.remove_folders(self.put_away(id));
            }
        }
    }

    /// Later, beside everything else.
    pub(super) fn remove_folders(&self, folders: Vec<PathBuf>) {
        if folders.is_empty() {
            return;
        }
        let workers = self.workers.clone();
        let log_root = self.log_root.clone();
        tokio::spawn(async move {
            for folder in remove(folders, log_root.clone()).await {
                // What the task left is its own to walk: links may be planted there, and another uid's folders closed.
                for root in SHARED.map(|name| folder.join(name)) {
                    let _ = workers.run(&Work::Clear { root }, Input::None).await;
                }
                for folder in remove(vec![folder], log_root.clone()).await {
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

/// Remove tasks' folders with one waking of a thread; answers those that are still there.
async fn remove(mut folders: Vec<PathBuf>, log_root: PathBuf) -> Vec<PathBuf> {
    let removing = tokio::task::spawn_blocking(move || {
        folders.retain(|folder| !remove_one(folder, folder.starts_with(&log_root)));
        folders
    });
    removing.await.unwrap_or_default()
}

/// Remove a task's folder, with `ours` also what it holds; whether it is gone. What a task could write in is removed without
/// being opened, or the folder is kept as it is.
fn remove_one(folder: &Path, ours: bool) -> bool {
    SHARED.iter().all(|name| is_gone(std::fs::remove_dir(folder.join(name))))
        && is_gone(if ours { std::fs::remove_dir_all(folder) } else { std::fs::remove_dir(folder) })
}

fn is_gone(removed: std::io::Result<()>) -> bool {
    removed.map_or_else(|e| e.kind() == std::io::ErrorKind::NotFound, |()| true)
}
