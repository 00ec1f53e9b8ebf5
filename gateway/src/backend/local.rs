//! Sandboxes on this machine: a supervisor each, in a directory of its own.
//!
//! Promises: a sandbox is its directory (`state`, `workspace`, `home`, `token`, `log`), so it is there again after any crash
//! of the gateway; a supervisor that still runs is adopted, never started twice; one that ended is started again, later each
//! time; a stop asks with TERM, waits, and kills; what is removed has no mount point inside.
//!
//! Which process a sandbox's supervisor is, its own lock says (`state/lock`: the kernel lets it go with the process).

use std::collections::BTreeMap;
use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::{BoxFuture, join_all};
use tokio::sync::{broadcast, watch};
use tokio::task::JoinHandle;

use super::{Backend, BackendError, Managed, New, Seen, Spec, State};
use crate::tokens::is_name;

mod keeper;
pub(crate) mod process;

use keeper::Keeper;

/// Changes that a slow listener may miss none of.
const CHANGES: usize = 64;

/// What every sandbox here is started with.
#[derive(Clone, Debug)]
pub struct Config {
    /// A directory for each sandbox in here.
    pub root: PathBuf,
    /// The program.
    pub supervisor: PathBuf,
    /// Where it dials.
    pub gateway_url: String,
}

/// Supervisors on this machine.
pub struct Local {
    config: Arc<Config>,
    kept: Mutex<BTreeMap<String, Kept>>,
    changes: broadcast::Sender<String>,
}

struct Kept {
    state: watch::Receiver<State>,
    stop: watch::Sender<bool>,
    keeper: JoinHandle<()>,
}

impl Local {
    /// None are kept yet: [`Local::resume`] and [`Backend::create`] begin.
    pub fn new(config: Config) -> Local {
        let (changes, _) = broadcast::channel(CHANGES);
        Local { config: Arc::new(config), kept: Mutex::default(), changes }
    }

    /// The sandboxes whose directories are there, with their tokens.
    pub fn known(root: &Path) -> Result<Vec<New>, BackendError> {
        let failed = |source| BackendError::List { path: root.into(), source };
        let entries = match std::fs::read_dir(root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(failed)?,
        };
        let mut known = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed)?;
            let id = entry.file_name().to_string_lossy().into_owned();
            // What is half made or half removed has another name.
            if is_name(&id) {
                let token = std::fs::read_to_string(entry.path().join("token")).map_err(failed)?;
                known.push(New { id, token: Some(token.trim().into()), spec: Spec::default() });
            }
        }
        known.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(known)
    }

    /// Whether a supervisor of one of them runs.
    pub fn any_runs(root: &Path, known: &[New]) -> bool {
        known.iter().any(|sandbox| process::running(&root.join(&sandbox.id).join("state")).is_some())
    }

    /// Keep a sandbox whose directory is there: adopt its supervisor, or start it.
    pub fn resume(&self, id: &str) {
        let (state_sender, state) = watch::channel(State::Starting { reason: None });
        let (stop, stopped) = watch::channel(false);
        let tell = (state_sender, self.changes.clone());
        let keeper = Keeper::new(self.config.clone(), id.into(), tell, stopped);
        let keeper = tokio::spawn(keeper.run());
        self.lock().insert(id.into(), Kept { state, stop, keeper });
    }

    /// The changing state of a sandbox.
    pub fn watch(&self, id: &str) -> Option<watch::Receiver<State>> {
        self.lock().get(id).map(|kept| kept.state.clone())
    }

    /// End all supervisors. Their sandboxes stay and can be resumed.
    pub async fn stop(&self) {
        let all = std::mem::take(&mut *self.lock());
        join_all(all.into_values().map(end)).await;
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn end(kept: Kept) {
    kept.stop.send_replace(true);
    // A keeper that panicked has logged it.
    let _ = kept.keeper.await;
}

impl Backend for Local {
    fn gives_tokens(&self) -> bool {
        true
    }

    fn check(&self, _: &str, spec: &Spec) -> Result<(), BackendError> {
        if *spec == Spec::default() {
            return Ok(());
        }
        let problem = "sandboxes on this machine are all alike; only an id can be asked for".into();
        Err(BackendError::Request { field: "the body".into(), problem })
    }

    fn create(&self, sandbox: New) -> BoxFuture<'_, Result<(), BackendError>> {
        Box::pin(async move {
            make(&self.config.root, &sandbox)?;
            self.resume(&sandbox.id);
            Ok(())
        })
    }

    fn delete<'a>(&'a self, id: &'a str, _: Option<&'a str>) -> BoxFuture<'a, Result<(), BackendError>> {
        Box::pin(async move {
            let kept = self.lock().remove(id);
            if let Some(kept) = kept {
                end(kept).await;
            }
            let (root, id) = (self.config.root.clone(), id.to_string());
            let removed = tokio::task::spawn_blocking(move || remove(&root, &id)).await;
            removed.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
        })
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<Managed>, BackendError>> {
        let managed = |id: &String| Managed { id: id.clone(), instance: id.clone(), whole: true };
        let all = self.lock().keys().map(managed).collect();
        Box::pin(std::future::ready(Ok(all)))
    }

    fn see(&self, id: &str) -> Option<Seen> {
        let state = self.lock().get(id)?.state.borrow().clone();
        Some(Seen { state, place: self.config.root.join(id).display().to_string(), node: None })
    }

    fn changes(&self) -> broadcast::Receiver<String> {
        self.changes.subscribe()
    }

    fn look<'a>(&'a self, _: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(std::future::ready(()))
    }

    fn away(&self) -> Option<String> {
        None
    }

    fn explain<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Option<String>> {
        Box::pin(std::future::ready(None))
    }
}

/// Beside, then renamed: a sandbox is whole or not there.
fn make(root: &Path, sandbox: &New) -> Result<(), BackendError> {
    let path = root.join(&sandbox.id);
    if path.exists() {
        return Err(BackendError::Exists(sandbox.id.clone()));
    }
    let beside = root.join(format!(".new-{}", sandbox.id));
    let made = || {
        if beside.exists() {
            std::fs::remove_dir_all(&beside)?;
        }
        let directory = |path: &Path| DirBuilder::new().recursive(true).mode(0o700).create(path);
        for name in ["state", "workspace", "home"] {
            directory(&beside.join(name))?;
        }
        let mut token = OpenOptions::new().write(true).create_new(true).mode(0o600).open(beside.join("token"))?;
        token.write_all(sandbox.token.as_deref().unwrap_or_default().as_bytes())?;
        std::fs::rename(&beside, &path)
    };
    made().map_err(|source| BackendError::Make { id: sandbox.id.clone(), path: path.clone(), source })
}

/// Renamed, then removed: what is half removed is no sandbox any more.
fn remove(root: &Path, id: &str) -> Result<(), BackendError> {
    let path = root.join(id);
    let beside = root.join(format!(".old-{id}"));
    if let Some(mount) = mount_inside(&path).or_else(|| mount_inside(&beside)) {
        return Err(BackendError::Mounted { id: id.into(), path: mount });
    }
    let gone = |result: io::Result<()>| match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    };
    // A removal that failed before has left something.
    gone(std::fs::remove_dir_all(&beside))
        .and_then(|()| gone(std::fs::rename(&path, &beside)))
        .and_then(|()| gone(std::fs::remove_dir_all(&beside)))
        .map_err(|source| BackendError::Remove { id: id.into(), path, source })
}

/// A recursive removal would empty what is mounted there.
fn mount_inside(path: &Path) -> Option<PathBuf> {
    let path = path.canonicalize().ok()?;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    let mut points = mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape);
    points.find(|point| point.starts_with(&path))
}

/// Blanks and the like are octal there (proc_pid_mountinfo(5)).
fn unescape(text: &str) -> PathBuf {
    let plain = text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\");
    PathBuf::from(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sandbox(id: &str) -> New {
        New { id: id.into(), token: Some(format!("token-of-{id}")), spec: Spec::default() }
    }

    #[test]
    fn a_sandbox_is_its_directory_and_its_token_is_private() {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().expect("a scratch directory");
        make(root.path(), &sandbox("b")).expect("made");
        make(root.path(), &sandbox("a")).expect("made");
        assert!(matches!(make(root.path(), &sandbox("a")), Err(BackendError::Exists(_))));
        let known = Local::known(root.path()).expect("listed");
        assert_eq!(known.iter().map(|new| new.id.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(known[0].token.as_deref(), Some("token-of-a"));
        let mode = std::fs::metadata(root.path().join("a/token")).expect("made").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!Local::any_runs(root.path(), &known));
    }

    #[test]
    fn what_was_half_made_or_half_removed_is_no_sandbox_and_in_nobodys_way() {
        let root = tempfile::tempdir().expect("a scratch directory");
        std::fs::create_dir_all(root.path().join(".new-a/state")).expect("our own directory");
        std::fs::create_dir_all(root.path().join(".old-a/state")).expect("our own directory");
        assert!(Local::known(root.path()).expect("listed").is_empty());
        make(root.path(), &sandbox("a")).expect("made");
        remove(root.path(), "a").expect("removed");
        remove(root.path(), "a").expect("removed already");
        assert_eq!(std::fs::read_dir(root.path()).expect("there").count(), 0);
    }

    #[test]
    fn links_in_a_workspace_are_removed_and_not_followed() {
        let root = tempfile::tempdir().expect("a scratch directory");
        let other = tempfile::tempdir().expect("a scratch directory");
        std::fs::write(other.path().join("kept"), "").expect("our own file");
        make(root.path(), &sandbox("a")).expect("made");
        std::os::unix::fs::symlink(other.path(), root.path().join("a/workspace/link")).expect("linked");
        remove(root.path(), "a").expect("removed");
        assert!(other.path().join("kept").exists());
    }

    #[test]
    fn a_mount_point_is_found_however_it_is_written() {
        assert_eq!(unescape("/a\\040b"), PathBuf::from("/a b"));
        assert!(mount_inside(Path::new("/proc")).is_some());
        assert!(mount_inside(Path::new("/no-such-directory")).is_none());
    }
}
