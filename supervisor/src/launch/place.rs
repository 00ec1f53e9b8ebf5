//! Where a configured writable path really is, without trusting what an agent may have changed on the way to it.
//!
//! A path that leads through another writable path belongs to the agent from there on: in an earlier run it may have
//! put a link there, and following it would widen the confinement by wherever it leads. Such a path is left out; where
//! nobody played tricks the outer one covers it anyway.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

/// As many as the kernel follows (path_resolution(7)).
const MAX_LINKS: usize = 40;

/// The real path of `path`; `None` where it does not exist or leads through another of `writable`.
pub(super) fn real(path: &Path, writable: &[PathBuf]) -> Option<PathBuf> {
    let others: Vec<PathBuf> =
        writable.iter().filter(|other| *other != path).filter_map(|other| other.canonicalize().ok()).collect();
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
        assert_eq!(real(&outer, &writable), Some(outer.clone()));
        assert_eq!(real(&inner, &writable), None);
        // Also by another name, through a link that the agent cannot change.
        let alias = root.join("alias");
        symlink(&inner, &alias).expect("symlink");
        assert_eq!(real(&alias, &[outer, alias.clone()]), None);
    }

    #[test]
    fn links_that_no_agent_can_change_are_followed() {
        let dir = tempfile::tempdir().expect("tempdir");
        let root = dir.path().canonicalize().expect("real");
        std::fs::create_dir_all(root.join("volume/a")).expect("mkdir");
        symlink("volume/../volume", root.join("link")).expect("symlink");
        assert_eq!(real(&root.join("link/a"), &[]), Some(root.join("volume/a")));
        assert_eq!(real(&root.join("missing"), &[]), None);
        symlink("loop", root.join("loop")).expect("symlink");
        assert_eq!(real(&root.join("loop"), &[]), None);
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
