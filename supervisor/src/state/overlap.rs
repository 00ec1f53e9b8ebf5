//! Whether a path that must stay secret and a path that the agent may write are one tree.
//!
//! Three views, since each one alone can be deceived: canonical paths (symlinks), device and inode of every ancestor
//! (a directory mounted twice), and the path inside the file system (a mount of a part of a volume beside a mount of
//! the whole, as `subPath` makes them).

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::mounts::{self, Mount, resolve};

/// The first of `writable` that lies inside `secret` or contains it. Neither has to exist yet.
pub fn conflict(secret: &Path, writable: &[PathBuf]) -> Option<PathBuf> {
    // Without mountinfo the other two views still hold.
    let mounts = mounts::read(Path::new("/proc")).unwrap_or_default();
    conflict_among(secret, writable, &mounts)
}

fn conflict_among(secret: &Path, writable: &[PathBuf], mounts: &[Mount]) -> Option<PathBuf> {
    let secret = View::of(secret, mounts);
    writable.iter().find(|path| secret.meets(&View::of(path, mounts))).cloned()
}

struct View {
    path: PathBuf,
    /// The path itself first, `None` for what does not exist.
    ancestors: Vec<Option<(u64, u64)>>,
    /// Device of the file system and the path inside it.
    inside: Option<(String, PathBuf)>,
}

impl View {
    fn of(path: &Path, mounts: &[Mount]) -> View {
        let path = resolve(path);
        let identity = |path: &Path| path.metadata().ok().map(|data| (data.dev(), data.ino()));
        let ancestors = path.ancestors().map(identity).collect();
        let mount = mounts::lookup(mounts, &path);
        let inside = mount.and_then(|mount| Some((mount.device.clone(), mount.inside(&path)?)));
        View { path, ancestors, inside }
    }

    fn meets(&self, other: &View) -> bool {
        self.lies_in(other) || other.lies_in(self)
    }

    fn lies_in(&self, other: &View) -> bool {
        let by_inode = matches!(other.ancestors.first(), Some(Some(_))) && self.ancestors.contains(&other.ancestors[0]);
        let by_volume = matches!((&self.inside, &other.inside),
            (Some((device, path)), Some((other_device, other_path)))
            if device == other_device && path.starts_with(other_path));
        self.path.starts_with(&other.path) || by_inode || by_volume
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("scratch");
        let path = dir.path().to_owned();
        for name in ["work/inner", "state", "other"] {
            std::fs::create_dir_all(path.join(name)).expect("made");
        }
        (dir, path)
    }

    #[test]
    fn a_secret_inside_or_around_a_writable_path_is_a_conflict() {
        let (_dir, root) = scratch();
        let writable = [root.join("other"), root.join("work")];
        assert_eq!(conflict(&root.join("work/inner"), &writable), Some(root.join("work")));
        assert_eq!(conflict(&root.join("work"), &writable), Some(root.join("work")));
        assert_eq!(conflict(&root.join("work/not/yet"), &writable), Some(root.join("work")));
        assert_eq!(conflict(&root, &writable), Some(root.join("other")));
    }

    #[test]
    fn neighbours_and_common_beginnings_are_no_conflict() {
        let (_dir, root) = scratch();
        let writable = [root.join("work")];
        assert_eq!(conflict(&root.join("state"), &writable), None);
        assert_eq!(conflict(&root.join("workshop"), &writable), None);
        assert_eq!(conflict(&root.join("work/../state/token"), &writable), None);
    }

    #[test]
    fn a_symlink_does_not_hide_a_conflict_not_even_a_dangling_one() {
        let (_dir, root) = scratch();
        std::os::unix::fs::symlink("work", root.join("alias")).expect("link");
        std::os::unix::fs::symlink("work/token", root.join("token")).expect("link");
        let writable = [root.join("work")];
        assert_eq!(conflict(&root.join("alias/x"), &writable), Some(root.join("work")));
        assert_eq!(conflict(&root.join("token"), &writable), Some(root.join("work")));
        assert_eq!(conflict(&root.join("work/x"), &[root.join("alias")]), Some(root.join("alias")));
    }

    #[test]
    fn paths_alone_tell_where_nothing_exists_yet_and_no_table_can_be_read() {
        let found = |secret: &str, writable: &str| conflict_among(Path::new(secret), &[writable.into()], &[]).is_some();
        assert!(found("/no-such/work/x", "/no-such/work") && found("/no-such", "/no-such/work"));
        assert!(!found("/no-such/state", "/no-such/work"));
    }

    #[test]
    fn a_directory_mounted_twice_is_known_by_its_inode() {
        mounts::tests::on_small_disk(64 * 1024, |disk| {
            use nix::mount::{MsFlags, mount};
            let (work, alias) = (disk.join("work"), disk.join("alias"));
            std::fs::create_dir_all(work.join("inner")).expect("made");
            std::fs::create_dir(&alias).expect("made");
            let nothing = None::<&str>;
            mount(Some(&work), &alias, nothing, MsFlags::MS_BIND, nothing).expect("binds");
            assert!(conflict_among(&alias.join("inner"), std::slice::from_ref(&work), &[]).is_some());
            assert!(conflict_among(&alias, &[work.join("inner")], &[]).is_some());
        });
    }

    #[test]
    fn two_mounts_of_one_volume_are_compared_inside_the_volume() {
        let mounts = mounts::parse(
            b"1 0 0:1 / / rw - overlay overlay rw\n\
              2 1 8:1 / /no-such/whole rw - ext4 /dev/a rw\n\
              3 1 8:1 /work /no-such/work rw - ext4 /dev/a rw\n\
              4 1 8:1 /state /no-such/state rw - ext4 /dev/a rw\n\
              5 1 8:2 /work /no-such/elsewhere rw - ext4 /dev/b rw\n",
        );
        let found = |secret: &str, writable: &str| {
            conflict_among(Path::new(secret), &[PathBuf::from(writable)], &mounts).is_some()
        };
        assert!(found("/no-such/whole/work/secret", "/no-such/work"));
        assert!(found("/no-such/whole", "/no-such/work"));
        assert!(!found("/no-such/state", "/no-such/work"), "siblings by subPath");
        assert!(!found("/no-such/elsewhere", "/no-such/work"), "the same path on another device");
    }
}
