//! What can be done at the paths that matter, and how they came here.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::mounts::{self, Mount};

/// A path and its mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// Whose it is.
    pub what: String,
    /// As configured.
    pub path: PathBuf,
    /// Something is there.
    pub exists: bool,
    /// Where its file system is mounted.
    pub mount_point: Option<PathBuf>,
    /// Kind of file system.
    pub fstype: String,
    /// How it was delivered, as far as the mount tells: `image-volume`, `empty-dir`, `container-image`, …
    pub delivery: String,
    /// Nothing can be written.
    pub read_only: bool,
    /// Nothing can be executed.
    pub noexec: bool,
    /// Set-id bits have no effect.
    pub nosuid: bool,
    /// Device nodes have no effect.
    pub nodev: bool,
}

/// Whether a file can be used as it must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Access {
    /// As configured.
    pub path: PathBuf,
    /// Yes or no.
    pub ok: bool,
    /// Why not, or who else can.
    pub why: String,
}

pub(super) fn place(what: &str, path: &Path, table: &[Mount]) -> Place {
    let mount = mounts::lookup(table, &mounts::resolve(path));
    let has = |option: &str| mount.is_some_and(|mount| mount.has(option));
    Place {
        what: what.to_owned(),
        path: path.to_owned(),
        exists: path.exists(),
        mount_point: mount.map(|mount| mount.point.clone()),
        fstype: mount.map(|mount| mount.fstype.clone()).unwrap_or_default(),
        delivery: mount.map(delivery).unwrap_or_default(),
        read_only: mount.is_some_and(Mount::read_only),
        noexec: has("noexec"),
        nosuid: has("nosuid"),
        nodev: has("nodev"),
    }
}

/// A guess: the kubelet's directories give most volumes away, and an image volume is the read-only overlay that is not
/// the root.
fn delivery(mount: &Mount) -> String {
    let root = mount.root.to_string_lossy();
    let volume = root.split_once("/volumes/kubernetes.io~").and_then(|(_, rest)| rest.split('/').next());
    let is_root = mount.point == Path::new("/");
    match (volume, mount.fstype.as_str()) {
        (Some(kind), _) => kind,
        (None, "overlay") if is_root => "container-image",
        (None, "overlay") if mount.read_only() => "image-volume",
        (None, "tmpfs") => "memory",
        (None, _) if is_root => "host",
        (None, _) => "other-mount",
    }
    .to_owned()
}

/// One byte is read and dropped: only a read tells whether the content can be had.
pub(super) fn readable(path: &Path) -> Access {
    let try_it = || -> io::Result<String> {
        // A projected token is a link into `..data`, so links are followed here. O_NONBLOCK: it may be a FIFO.
        let mut file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        let data = file.metadata()?;
        if !data.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a plain file"));
        }
        match file.read(&mut [0])? {
            0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "empty")),
            _ => Ok(format!("mode {:04o}, uid {}, gid {}", data.mode() & 0o7777, data.uid(), data.gid())),
        }
    };
    access(path, try_it())
}

/// Opened and closed again; nothing is written or cut.
pub(super) fn writable(path: &Path) -> Access {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let opened = OpenOptions::new().write(true).custom_flags(flags).open(path);
    access(path, opened.and_then(is_plain).map(|()| String::new()))
}

fn is_plain(file: File) -> io::Result<()> {
    match file.metadata()?.is_file() {
        true => Ok(()),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a plain file")),
    }
}

fn access(path: &Path, tried: io::Result<String>) -> Access {
    let ok = tried.is_ok();
    Access { path: path.to_owned(), ok, why: tried.unwrap_or_else(|error| error.to_string()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: &[u8] = b"\
103 65 0:50 / / ro,relatime - overlay overlay rw,lowerdir=/l\n\
104 103 0:51 / /.chaperone/bin ro,relatime - overlay overlay rw,volatile\n\
119 103 254:0 /var/lib/kubelet/pods/52c9/volumes/kubernetes.io~empty-dir/state /var/lib/supervisor rw,relatime - ext4 /dev/vda rw\n\
120 103 254:0 /var/lib/kubelet/pods/52c9/volumes/kubernetes.io~csi/pvc-1/mount /workspace rw,noexec - ext4 /dev/vdb rw\n\
121 103 254:0 /srv/data /data rw,nosuid,nodev - ext4 /dev/vda rw\n\
125 103 0:39 / /tmp rw,relatime - tmpfs tmpfs rw\n";

    fn at(path: &str) -> Place {
        place("x", Path::new(path), &mounts::parse(POD))
    }

    #[test]
    fn a_pod_s_mounts_tell_how_they_were_delivered() {
        for (path, delivery) in [
            ("/", "container-image"),
            ("/.chaperone/bin/supervisor", "image-volume"),
            ("/var/lib/supervisor", "empty-dir"),
            ("/workspace/x", "csi"),
            ("/data", "other-mount"),
        ] {
            assert_eq!(at(path).delivery, delivery, "{path}");
        }
    }

    #[test]
    fn flags_come_from_the_path_s_own_mount() {
        let flags = |place: Place| (place.read_only, place.noexec, place.nosuid, place.nodev);
        assert_eq!(flags(at("/.chaperone/bin/supervisor")), (true, false, false, false));
        assert_eq!(flags(at("/workspace")), (false, true, false, false));
        assert_eq!(flags(at("/data/x")), (false, false, true, true));
    }

    #[test]
    fn a_token_is_readable_when_a_byte_of_it_can_be_had() {
        let dir = tempfile::tempdir().expect("scratch");
        let path = dir.path().join("token");
        assert!(readable(&path).why.contains("No such file"));
        std::fs::write(&path, "").expect("made");
        assert_eq!((readable(&path).ok, readable(&path).why.as_str()), (false, "empty"));
        std::fs::write(&path, "swordfish").expect("made");
        let access = readable(&path);
        assert!(access.ok && access.why.starts_with("mode 0") && !access.why.contains("swordfish"), "{access:?}");
        assert!(!readable(dir.path()).ok, "a directory");
    }

    #[test]
    fn a_log_is_found_writable_without_being_touched() {
        let dir = tempfile::tempdir().expect("scratch");
        let path = dir.path().join("log");
        assert!(!writable(&path).ok && !path.exists());
        std::fs::write(&path, "old").expect("made");
        assert!(writable(&path).ok);
        assert_eq!(std::fs::read(&path).expect("there"), b"old");
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&path, &link).expect("link");
        assert!(!writable(&link).ok && !writable(dir.path()).ok);
    }
}
