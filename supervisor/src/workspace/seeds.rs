//! Archives that clients send, until a task is made of them.
//!
//! PID 1 keeps the bytes and does not look into them: a worker has read each one to its end before it is taken. They
//! lie in the state directory, where no child can open them, and move into the task's folder when the task is accepted.
//! An upload has a name that the client chose, can be used by any number of tasks, and is forgotten after a day.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::body::Body;
use tokio::task::spawn_blocking;

use super::failure::{Failure, Kind};
use super::work::Work;
use super::workers::{Input, Workers};
use crate::streaming;
use crate::tasks::identity;

/// Uploads at once, and how long each is kept.
const MAX_UPLOADS: usize = 16;
const KEPT: Duration = Duration::from_secs(24 * 3600);

/// The archives. Cheap to clone.
#[derive(Clone)]
pub struct Seeds {
    directory: Arc<PathBuf>,
    workers: Workers,
    /// Bytes of one archive.
    pub upload: u64,
    /// Bytes that may come out of it.
    pub unpacked: u64,
}

/// An archive that was read and found good. Its file goes with it, unless a task has taken it.
#[derive(Debug)]
pub struct Seed {
    path: PathBuf,
}

impl Seed {
    /// Make it the file at `path`.
    pub fn move_to(self, path: &Path) -> io::Result<()> {
        std::fs::rename(&self.path, path)
    }
}

impl Drop for Seed {
    fn drop(&mut self) {
        // Already moved, or nobody's.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Seeds {
    /// In `directory`, which is ours alone. What an earlier supervisor was receiving is removed when the first comes.
    pub fn new(directory: PathBuf, workers: Workers, upload: u64, unpacked: u64) -> Seeds {
        Seeds { directory: Arc::new(directory), workers, upload, unpacked }
    }

    /// Bytes that came with a request.
    pub async fn take(&self, bytes: Vec<u8>) -> Result<Seed, Failure> {
        let (seed, mut file) = self.begin().await?;
        let written = spawn_blocking(move || file.write_all(&bytes)).await;
        written.unwrap_or_else(|_| Err(io::ErrorKind::Other.into())).map_err(|e| Failure::at("the archive", &e))?;
        self.check(seed).await
    }

    /// Take an upload under `name`, in place of an older one.
    pub async fn upload(&self, name: &str, body: Body) -> Result<(), Failure> {
        let (seed, mut file) = self.begin().await?;
        let mut body = streaming::Reader::new(body);
        while let Some(piece) = body.next().await? {
            let written = spawn_blocking(move || file.write_all(&piece).map(|()| file)).await;
            file = written
                .unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))
                .map_err(|e| Failure::at("the archive", &e))?;
        }
        let seed = self.check(seed).await?;
        let (named, at) = (self.named(name), self.directory.clone());
        let kept = spawn_blocking(move || {
            let others = forget_old(&at)?;
            if others >= MAX_UPLOADS && !named.exists() {
                return Ok(false);
            }
            seed.move_to(&named).map(|()| true)
        });
        match kept.await {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false)) => {
                Err(Failure::new(Kind::Busy, format!("{MAX_UPLOADS} archives are kept already; delete some of them")))
            }
            Ok(Err(e)) => Err(Failure::at("the archive", &e)),
            Err(_) => Err(Failure::new(Kind::Internal, "the archive could not be kept")),
        }
    }

    /// The upload of that name, for one task.
    pub async fn uploaded(&self, name: &str) -> Result<Seed, Failure> {
        let (seed, _) = self.begin().await?;
        let (from, to) = (self.named(name), seed.path.clone());
        // A copy, not a link: what a task was given does not change when the upload does.
        let copied = spawn_blocking(move || std::fs::copy(from, to)).await;
        match copied {
            Ok(Ok(_)) => Ok(seed),
            Ok(Err(e)) if e.kind() == io::ErrorKind::NotFound => {
                Err(Failure::new(Kind::Invalid, "names no archive that was uploaded, or it was forgotten"))
            }
            Ok(Err(e)) => Err(Failure::at("the archive", &e)),
            Err(_) => Err(Failure::new(Kind::Internal, "the archive could not be read")),
        }
    }

    /// Forget an upload; whether there was one.
    pub async fn forget(&self, name: &str) -> bool {
        let path = self.named(name);
        spawn_blocking(move || std::fs::remove_file(path).is_ok()).await.unwrap_or(false)
    }

    async fn check(&self, seed: Seed) -> Result<Seed, Failure> {
        let file = File::open(&seed.path).map_err(|e| Failure::at("the archive", &e))?;
        self.workers.run(&Work::Check { most: self.unpacked }, Input::File(file)).await?;
        Ok(seed)
    }

    async fn begin(&self) -> Result<(Seed, File), Failure> {
        let directory = self.directory.join("coming");
        let begun = spawn_blocking(move || {
            let path = directory.join(identity::run_id());
            crate::state::make_private(&directory)?;
            let file = File::options().write(true).create_new(true).open(&path)?;
            Ok((Seed { path }, file))
        });
        match begun.await {
            Ok(begun) => begun.map_err(|e| Failure::at("the archive", &e)),
            Err(_) => Err(Failure::new(Kind::Internal, "the archive could not be kept")),
        }
    }

    fn named(&self, name: &str) -> PathBuf {
        self.directory.join("uploaded").join(name)
    }
}

/// Remove uploads that are older than a day; how many are left.
fn forget_old(directory: &Path) -> io::Result<usize> {
    let uploads = directory.join("uploaded");
    crate::state::make_private(&uploads)?;
    let mut left = 0;
    for entry in uploads.read_dir()?.chain(directory.join("coming").read_dir()?).flatten() {
        let age = entry.metadata()?.modified().ok().and_then(|time| SystemTime::now().duration_since(time).ok());
        if age.is_some_and(|age| age > KEPT) {
            std::fs::remove_file(entry.path())?;
        } else if entry.path().starts_with(&uploads) {
            left += 1;
        }
    }
    Ok(left)
}
