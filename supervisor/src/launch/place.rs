//! Where a configured writable path really is, without trusting what an agent may have changed on the way to it.
//!
//! A path that leads through another writable path belongs to the agent from there on: in an earlier run it may have
//! put a link there, and following it would widen the confinement by wherever it leads. Such a path is left out; where
//! nobody played tricks the outer one covers it anyway.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};

/// As many as the kernel follows (path_resolution(7)).
const MAX_LINKS: usize = 40;

/// The real paths of `writable`, in order; `None` where one does not exist or leads through another of them.
pub(super) fn real(writable: &[PathBuf]) -> Vec<Option<PathBuf>> {
    let canonical: Vec<Option<PathBuf>> = writable.iter().map(|path| canonical(path)).collect();
    let others = |path: &Path| -> Vec<&Path> {
        let all = writable.iter().zip(&canonical).filter(|(other, _)| *other != path);
        all.filter_map(|(_, canonical)| canonical.as_deref()).collect()
    };
    let real = |(path, canonical): (&PathBuf, &Option<PathBuf>)| match canonical {
        // No link on the way, so its ancestors are those that its name says.
        Some(canonical) if canonical == path => {
            let passes = |other: &Path| other != path && path.starts_with(other);
            (!others(path).into_iter().any(passes)).then(|| path.clone())
        }
        Some(_) => walk(path, &others(path)),
        None => None,
    };
    writable.iter().zip(&canonical).map(real).collect()
}

/// The real path, where there is one.
fn canonical(path: &Path) -> Option<PathBuf> {
    meaning(path).ok().flatten()
}

/// As `realpath(3)`, in one call where there is nothing to resolve; `None` where nothing is there. What cannot be looked at now is an error:
/// it may well be there.
pub(super) fn meaning(path: &Path) -> io::Result<Option<PathBuf>> {
    let is_plain = path.is_absolute() && path.components().all(|part| !matches!(part, Component::ParentDir));
    let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC).resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
    match is_plain.then(|| openat2(AT_FDCWD, path, how)) {
        // Without doubled or trailing slashes.
        Some(Ok(_)) => Ok(Some(path.components().collect())),
        Some(Err(Errno::ENOENT | Errno::ENOTDIR)) => Ok(None),
        // There is a link, or a container's filter is older than the call.
        _ => unless_absent(path.canonicalize()),
    }
}

/// `None` where nothing is there, or nothing that children with these ids could come to. An error is one that says nothing of the path:
/// the kernel lacks the means to look, or a disk fails.
pub(super) fn unless_absent<T>(looked: io::Result<T>) -> io::Result<Option<T>> {
    match looked {
        Ok(found) => Ok(Some(found)),
        Err(error) => match error.raw_os_error() {
            Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::EIO) => Err(error),
            _ => Ok(None),
        },
    }
}

/// The real path, unless it leads through one of `others`.
fn walk(path: &Path, others: &[&Path]) -> Option<PathBuf> {
    let mut ahead: VecDeque<OsString> = path.components().filter_map(name).collect();
    let mut at = PathBuf::from("/");
    let mut links = 0;
    while let Some(next) = ahead.pop_front() {
        if next == ".." {
            at.pop();
            continue;
        }
        if others.iter().any(|other| at.starts_with(other)) {
            return None;
        }
        let step = at.join(&next);
        if !step.symlink_metadata().ok()?.is_symlink() {
            at = step;
            continue;
        }
        links += 1;
        let target = step.read_link().ok()?;
        if links > MAX_LINKS {
            return None;
        }
        if target.is_absolute() {
            at = PathBuf::from("/");
        }
        for part in target.components().rev().filter_map(name) {
            ahead.push_front(part);
        }
    }
    Some(at)
}

/// Not the kernel's own file systems: a write there reaches processes and devices, not files. Shared memory and queues
/// are the two places beneath /dev that programs make files in.
pub(super) fn may_be_written(real: &Path) -> bool {
    let kernel = ["/proc", "/sys", "/dev"].iter().any(|root| real.starts_with(root));
    let shared = ["/dev/shm", "/dev/mqueue"].iter().any(|root| real.starts_with(root));
    real != Path::new("/") && (!kernel || shared)
}

fn name(component: Component<'_>) -> Option<OsString> {
    match component {
        Component::Normal(name) => Some(name.into()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_path_that_leads_through_another_writable_one_is_left_out() {
        let dir = tempfile::tempdir().expect("tempdir");
        let root = dir.path().canonicalize().expect("real");
        let (outer, elsewhere) = (root.join("workspace"), root.join("elsewhere"));
        std::fs::create_dir_all(&outer).expect("mkdir");
        std::fs::create_dir_all(&elsewhere).expect("mkdir");
        let inner = outer.join("home");
        // What an earlier run left in the place of its home.
        symlink(&elsewhere, &inner).expect("symlink");
        let writable = [outer.clone(), inner.clone()];
        assert_eq!(real(&writable), [Some(outer.clone()), None]);
        // Also by another name, through a link that the agent cannot change.
        let alias = root.join("alias");
        symlink(&inner, &alias).expect("symlink");
        assert_eq!(real(&[outer.clone(), alias]), [Some(outer.clone()), None]);
        // Nor where there is nothing but directories.
        let beneath = outer.join("real");
        std::fs::create_dir(&beneath).expect("mkdir");
        assert_eq!(real(&[beneath.clone(), outer.clone()]), [None, Some(outer)]);
        assert_eq!(real(std::slice::from_ref(&beneath)), [Some(beneath)]);
    }

    #[test]
    fn links_that_no_agent_can_change_are_followed() {
        let dir = tempfile::tempdir().expect("tempdir");
        let root = dir.path().canonicalize().expect("real");
        std::fs::create_dir_all(root.join("volume/a")).expect("mkdir");
        symlink("volume/../volume", root.join("link")).expect("symlink");
        let one = |name: &str| real(&[root.join(name)]).pop().flatten();
        assert_eq!(one("link/a"), Some(root.join("volume/a")));
        assert_eq!(one("link/../volume//a/"), Some(root.join("volume/a")));
        assert_eq!(one("missing"), None);
        symlink("loop", root.join("loop")).expect("symlink");
        assert_eq!(one("loop"), None);
    }

    #[test]
    fn the_kernels_file_systems_are_never_writable_but_for_shared_memory() {
        for (path, expected) in
            [("/", false), ("/proc", false), ("/sys/fs", false), ("/dev", false), ("/dev/shm", true), ("/tmp", true)]
        {
            assert_eq!(may_be_written(Path::new(path)), expected, "{path}");
        }
    }
}
