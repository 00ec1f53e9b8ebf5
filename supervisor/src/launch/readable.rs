//! What every program may read, remembered from one launch to the next.
//!
//! Finding it lists each directory on the way to a hidden path and looks at every entry: some two hundred calls for what
//! hardly ever changes. It is what it was while the hidden paths mean the same files, no mount has come or gone, and none
//! of the listed directories has changed: an entry that comes, goes or is replaced changes its directory's times
//! (inode(7)). For as long, each path also means the file that it meant, so that the zygote can hold it open. A directory that changed a moment ago can change again within one tick of its clock and show the same time,
//! so what was found just after a change is used once and not remembered. Where a directory cannot be listed (no descriptor is
//! left, a disk fails), nothing is found: a part would be remembered as all of it.

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::hidden::Hidden;
use super::place::unless_absent;

/// Longer than the tick of any file system's clock (FAT: two seconds).
const SETTLED: Duration = Duration::from_secs(3);

/// More places than a zygote can hold open beside what else it needs are not held.
const MOST_HELD: usize = 200;

/// Asked at each launch.
pub struct Remembered {
    found: Mutex<(u64, Option<Found>)>,
    /// The mount table: polling tells whether it has changed since the last time (proc_pid_mountinfo(5)).
    mounts: Option<File>,
}

/// What may be read, and what may not.
#[derive(Clone)]
pub(super) struct Readable {
    pub(super) hidden: Arc<Hidden>,
    pub(super) paths: Arc<[PathBuf]>,
    /// Another one each time that it was found, as long as it is remembered.
    pub(super) number: Option<u64>,
}

/// What was found once.
struct Found {
    /// As configured, and what each meant.
    hide: Vec<(PathBuf, Option<Identity>)>,
    listed: Vec<(PathBuf, Stamp)>,
    /// Nothing was left out because it could not be looked at.
    whole: bool,
    readable: Readable,
}

/// Device and number of a file.
type Identity = (u64, u64);

/// What is another one after any change of the directory. In seconds and nanoseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    identity: Identity,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Remembered {
    /// Nothing yet.
    pub fn new() -> Remembered {
        // Without it nothing is remembered.
        Remembered { found: Mutex::default(), mounts: File::open("/proc/self/mountinfo").ok() }
    }

    /// Each file, and each directory with everything beneath it, but what is hidden.
    pub(super) fn readable(&self, hide: &[PathBuf]) -> io::Result<Readable> {
        self.readable_beneath(Path::new("/"), hide)
    }

    /// What the last launch found, for the zygote to hold open. Who counts on it asks whether it is so still.
    pub(super) fn to_hold(&self) -> Option<Readable> {
        let known = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let readable = known.1.as_ref().map(|found| found.readable.clone());
        readable.filter(|readable| readable.paths.len() <= MOST_HELD)
    }

    fn readable_beneath(&self, root: &Path, hide: &[PathBuf]) -> io::Result<Readable> {
        let mut known = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        // First: what is mounted from here on shows at the next launch.
        let same_mounts = self.same_mounts();
        if let Some(found) = known.1.as_ref().filter(|found| same_mounts && found.holds(hide)) {
            return Ok(found.readable.clone());
        }
        // Whatever comes of it, that one is old: the mount table tells of a change once.
        known.1 = None;
        let now = SystemTime::now();
        known.0 += 1;
        let mut found = Found::beneath(root, hide, known.0)?;
        let keep = self.mounts.is_some() && found.whole && found.has_settled(now);
        if !keep {
            found.readable.number = None;
        }
        let readable = found.readable.clone();
        known.1 = keep.then_some(found);
        Ok(readable)
    }

    fn same_mounts(&self) -> bool {
        let Some(mounts) = &self.mounts else { return false };
        let mut look = [PollFd::new(mounts.as_fd(), PollFlags::POLLPRI)];
        poll(&mut look, PollTimeout::ZERO).is_ok() && look[0].revents().is_some_and(|seen| seen.is_empty())
    }
}

impl Found {
    fn beneath(root: &Path, hide: &[PathBuf], number: u64) -> io::Result<Found> {
        // Before the rest, so that what changes meanwhile makes it old.
        let hide_and_meaning = hide.iter().map(|path| (path.clone(), identity(path))).collect();
        let hidden = Hidden::new(hide)?;
        let Listing { paths, listed, whole, .. } = Listing::of(root, &hidden)?;
        let readable = Readable { hidden: Arc::new(hidden), paths: paths.into(), number: Some(number) };
        Ok(Found { hide: hide_and_meaning, listed, whole, readable })
    }

    /// The directories on the way to what is hidden are listed, so that what is hidden by another name would show there.
    fn holds(&self, hide: &[PathBuf]) -> bool {
        let same = |(path, (known, meaning)): (&PathBuf, &(PathBuf, Option<Identity>))| {
            path == known && identity(path) == *meaning
        };
        self.hide.len() == hide.len()
            && hide.iter().zip(&self.hide).all(same)
            && self.listed.iter().all(|(path, stamp)| Stamp::of(path) == Some(*stamp))
    }

    fn has_settled(&self, now: SystemTime) -> bool {
        let seconds =
            |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |age| age.as_secs() as i64);
        let latest = seconds(now - SETTLED);
        self.listed.iter().all(|(_, stamp)| stamp.modified.0.max(stamp.changed.0) < latest)
    }
}

/// What the directories have that are opened up because of what lies beneath them.
struct Listing<'h> {
    hidden: &'h Hidden,
    paths: Vec<PathBuf>,
    listed: Vec<(PathBuf, Stamp)>,
    /// All entries could be looked at.
    whole: bool,
}

impl<'h> Listing<'h> {
    fn of(root: &Path, hidden: &'h Hidden) -> io::Result<Listing<'h>> {
        let mut listing = Listing { hidden, paths: Vec::new(), listed: Vec::new(), whole: true };
        listing.add(root)?;
        Ok(listing)
    }

    /// A directory that goes meanwhile, or that these ids cannot enter, has nothing to allow.
    fn add(&mut self, directory: &Path) -> io::Result<()> {
        // Before it is read, so that a change meanwhile makes what was read old.
        let Some(meta) = unless_absent(directory.symlink_metadata())? else { return Ok(()) };
        self.listed.push((directory.into(), Stamp::new(&meta)));
        let Some(entries) = unless_absent(directory.read_dir())? else { return Ok(()) };
        let mut entries = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<PathBuf>>>()?;
        entries.sort();
        for entry in entries {
            let looked = unless_absent(entry.symlink_metadata());
            // It is left out this time.
            self.whole &= looked.is_ok();
            let Ok(Some(meta)) = looked else { continue };
            let kind = meta.file_type();
            // A symlink needs no rule: Landlock looks at where it leads. /dev is a list of its own.
            if kind.is_symlink() || entry == Path::new("/dev") || self.hidden.is(&entry) {
                continue;
            }
            if kind.is_dir() && self.hidden.has_beneath(&entry) {
                self.add(&entry)?;
            } else if kind.is_dir() || kind.is_file() {
                self.paths.push(entry);
            }
        }
        Ok(())
    }
}

/// What a path means, through symlinks.
fn identity(path: &Path) -> Option<Identity> {
    path.metadata().ok().map(|meta| (meta.dev(), meta.ino()))
}

impl Stamp {
    fn of(directory: &Path) -> Option<Stamp> {
        directory.symlink_metadata().ok().as_ref().map(Stamp::new)
    }

    fn new(meta: &Metadata) -> Stamp {
        Stamp {
            identity: (meta.dev(), meta.ino()),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{File, FileTimes, create_dir_all, write};
    use std::os::unix::fs::symlink;

    use super::*;

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("tempdir");
        for name in ["a/secret", "a/public", "b"] {
            create_dir_all(dir.path().join(name)).expect("mkdir");
        }
        write(dir.path().join("a/token"), "t").expect("write");
        dir
    }

    fn read(root: &Path, hide: &[PathBuf]) -> Vec<PathBuf> {
        Remembered::new().readable_beneath(root, hide).expect("it can be looked at").paths.to_vec()
    }

    #[test]
    fn the_siblings_of_a_hidden_path_are_allowed_and_the_path_is_not() {
        let dir = tree();
        let root = dir.path().canonicalize().expect("real");
        let readable = read(&root, &[root.join("a/secret"), root.join("a/token")]);
        assert_eq!(readable, [root.join("a/public"), root.join("b")]);
    }

    #[test]
    fn a_hidden_path_is_found_behind_a_symlink() {
        let dir = tree();
        let root = dir.path().canonicalize().expect("real");
        symlink(root.join("a"), root.join("link")).expect("symlink");
        let readable = read(&root, &[root.join("link/token")]);
        assert_eq!(readable, [root.join("a/public"), root.join("a/secret"), root.join("b")]);
    }

    #[test]
    fn the_whole_volume_of_a_projected_token_is_hidden() {
        let dir = tree();
        let root = dir.path().canonicalize().expect("real");
        let volume = root.join("tokens");
        create_dir_all(volume.join("..2026_01")).expect("mkdir");
        write(volume.join("..2026_01/token"), "t").expect("write");
        symlink("..2026_01", volume.join("..data")).expect("symlink");
        symlink("..data/token", volume.join("token")).expect("symlink");
        let readable = read(&root, &[volume.join("token")]);
        assert_eq!(readable, [root.join("a"), root.join("b")]);
    }

    #[test]
    fn what_comes_goes_or_changes_its_meaning_is_seen_at_the_next_launch() {
        let dir = tree();
        let root = dir.path().canonicalize().expect("real");
        let hide = [root.join("a/token")];
        let remembered = Remembered::new();
        let readable = || remembered.readable_beneath(&root, &hide).expect("it can be looked at").paths.to_vec();
        let all = ["a/public", "a/secret", "b"].map(|name| root.join(name));
        assert_eq!(readable(), all);
        std::fs::remove_dir(root.join("a/public")).expect("rmdir");
        assert_eq!(readable(), all[1..]);
        // By another name now.
        std::fs::rename(root.join("a/token"), root.join("a/other")).expect("rename");
        write(root.join("a/token"), "new").expect("write");
        assert_eq!(readable(), [root.join("a/other"), root.join("a/secret"), root.join("b")]);
        std::fs::hard_link(root.join("a/token"), root.join("alias")).expect("link");
        assert!(!readable().contains(&root.join("alias")));
    }

    #[test]
    fn only_what_was_found_in_directories_that_have_settled_is_remembered() {
        let dir = tree();
        let root = dir.path().canonicalize().expect("real");
        let hide = [root.join("a/token")];
        let remembered = Remembered::new();
        assert_eq!(
            remembered.readable_beneath(&root, &hide).expect("it can be looked at").number,
            None,
            "its directories were made just now"
        );
        assert!(remembered.to_hold().is_none());
        // Their change time cannot be set back; let the clock be later instead.
        let found = Found::beneath(&root, &hide, 1).expect("it can be looked at");
        assert!(!found.has_settled(SystemTime::now()) && found.has_settled(SystemTime::now() + 3 * SETTLED));
        assert!(found.holds(&hide) && !found.holds(&[root.join("b")]) && !found.holds(&[]));
        // A time that is set back is a change too.
        let times = FileTimes::new().set_modified(SystemTime::UNIX_EPOCH);
        File::open(&root).and_then(|directory| directory.set_times(times)).expect("our own");
        assert!(!found.holds(&hide));
    }

    #[test]
    fn a_hidden_path_that_means_another_file_is_seen_wherever_its_link_leads() {
        let dir = tree();
        let root = dir.path().canonicalize().expect("real");
        let elsewhere = tempfile::tempdir().expect("tempdir");
        let far = elsewhere.path().canonicalize().expect("real").join("token");
        write(&far, "first").expect("write");
        symlink(&far, root.join("token")).expect("symlink");
        let hide = [root.join("token")];
        let found = Found::beneath(&root, &hide, 1).expect("it can be looked at");
        assert!(found.holds(&hide));
        write(elsewhere.path().join("new"), "second").expect("write");
        std::fs::rename(elsewhere.path().join("new"), &far).expect("rename");
        assert!(!found.holds(&hide));
    }
}
