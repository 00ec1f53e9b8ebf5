//! The folders of tasks, made before they are needed.
//!
//! Directories are the dearest part of a short task's start, and a disk may hold each of them up. So a thread that may
//! block makes some sets ahead, from the first task on, and a start gives one its name. A set has belonged to no task
//! before: who was given a directory once may still hold it open. Where none is ready a start makes its own.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::identity;

/// Beginning of a set's name while it has no task; no task's id begins with a dot.
pub(super) const READY: &str = ".ready-";
/// Sets that are made by one waking of a thread.
const BATCH: usize = 8;

/// Where tasks get their folders. Cheap to clone.
#[derive(Clone)]
pub(super) struct Folders {
    root: PathBuf,
    /// Tasks have another uid than we.
    shared: bool,
    ready: Arc<Mutex<Option<mpsc::Receiver<PathBuf>>>>,
}

impl Folders {
    /// Beneath `root`. Nothing is made yet.
    pub(super) fn new(root: PathBuf, shared: bool) -> Folders {
        Folders { root, shared, ready: Arc::default() }
    }

    /// Give the task whose folder is `home` its directories, one more where it has a `workspace`.
    pub(super) fn place(&self, home: &Path, workspace: Option<&Path>) -> io::Result<()> {
        // A seeded task's folder is there already, with its archive.
        let ready = if workspace.is_none() { self.ready() } else { None };
        if let Some(set) = ready {
            if std::fs::rename(&set, home).is_ok() {
                return Ok(());
            }
            remove(&set);
        }
        make(home, self.shared)?;
        workspace.map_or(Ok(()), |path| directory(path, self.shared))
    }

    fn ready(&self) -> Option<PathBuf> {
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        let ready = ready.get_or_insert_with(|| {
            let (sender, ready) = mpsc::channel(2 * BATCH);
            tokio::spawn(keep_ready(self.root.clone(), self.shared, sender));
            ready
        });
        ready.try_recv().ok()
    }
}

/// Until nobody can take one any more, or the disk refuses; then starts make their own and tell what is wrong.
async fn keep_ready(root: PathBuf, shared: bool, ready: mpsc::Sender<PathBuf>) {
    while let Ok(room) = ready.reserve_many(BATCH).await {
        let root = root.clone();
        let made = spawn_blocking(move || {
            let set = |_| {
                let set = root.join(format!("{READY}{}", identity::run_id()));
                make(&set, shared).map(|()| set)
            };
            (0..BATCH).map(set).collect::<io::Result<Vec<PathBuf>>>()
        });
        let Ok(Ok(made)) = made.await else { return };
        for (room, set) in room.zip(made) {
            room.send(set);
        }
    }
}

/// In a directory that no child may write, so that nobody can have put a link there.
fn make(home: &Path, shared: bool) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o711).create(home)?;
    directory(&home.join("artifacts"), shared)?;
    directory(&home.join("scratch"), shared)
}

fn directory(path: &Path, shared: bool) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::create_dir(path)?;
    // For a task of another uid; the parent and Landlock keep everybody else out.
    if shared { std::fs::set_permissions(path, PermissionsExt::from_mode(0o1777)) } else { Ok(()) }
}

/// A set that nobody had. What stays is removed by the next supervisor.
fn remove(set: &Path) {
    for path in [set.join("artifacts"), set.join("scratch"), set.to_path_buf()] {
        let _ = std::fs::remove_dir(path);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn entries(path: &Path) -> Vec<(String, u32)> {
        let entries = std::fs::read_dir(path).expect("it is there").flatten();
        let mode = |entry: &std::fs::DirEntry| entry.metadata().expect("it is there").permissions().mode() & 0o7777;
        let mut all: Vec<_> =
            entries.map(|entry| (entry.file_name().to_string_lossy().into_owned(), mode(&entry))).collect();
        all.sort();
        all
    }

    #[tokio::test]
    async fn a_set_that_was_made_ahead_is_like_one_that_is_made_on_the_spot() {
        let dir = tempfile::tempdir().expect("tempdir");
        let folders = Folders::new(dir.path().into(), true);
        let ready = || entries(dir.path()).iter().filter(|(name, _)| name.starts_with(READY)).count();
        folders.place(&dir.path().join("first"), None).expect("made on the spot");
        while ready() < 2 * BATCH {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        folders.place(&dir.path().join("second"), None).expect("made ahead");
        assert_eq!(ready(), 2 * BATCH - 1);
        for name in ["first", "second"] {
            let home = dir.path().join(name);
            assert_eq!(entries(&home), [("artifacts".into(), 0o1777), ("scratch".into(), 0o1777)], "{name}");
            assert_eq!(home.metadata().expect("it is there").permissions().mode() & 0o7777, 0o711, "{name}");
        }
    }

    #[tokio::test]
    async fn a_folder_that_holds_something_keeps_it() {
        let dir = tempfile::tempdir().expect("tempdir");
        let folders = Folders::new(dir.path().into(), false);
        let (home, workspace) = (dir.path().join("task"), dir.path().join("task/workspace"));
        std::fs::create_dir(&home).expect("mkdir");
        std::fs::write(home.join("seed"), "").expect("write");
        folders.place(&home, Some(&workspace)).expect("beside it");
        let names: Vec<String> = entries(&home).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["artifacts", "scratch", "seed", "workspace"]);
    }
}
