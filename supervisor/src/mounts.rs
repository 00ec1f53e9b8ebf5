//! Which mount a path lies on, as `/proc/self/mountinfo` has it (`proc_pid_mountinfo(5)`).
//!
//! A path's mount is found the way the kernel walks: from the root mount down through the children, so a mount
//! that a later one hides is never named. Paths are bytes and their octal escapes are undone.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// One line of mountinfo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Unique id.
    pub id: u64,
    /// The mount that this one sits on.
    pub parent: u64,
    /// `major:minor`.
    pub device: String,
    /// Which directory of the file system is shown here.
    pub root: PathBuf,
    /// Where.
    pub point: PathBuf,
    /// Options of this mount.
    pub options: Vec<String>,
    /// Kind of file system.
    pub fstype: String,
    /// Options of the file system beneath.
    pub super_options: Vec<String>,
}

impl Mount {
    /// Nothing can be written through this mount, whichever layer says so.
    pub fn read_only(&self) -> bool {
        self.has("ro") || self.super_options.iter().any(|option| option == "ro")
    }

    /// Whether this mount has that option: `noexec`, `nosuid`, `nodev`, …
    pub fn has(&self, option: &str) -> bool {
        self.options.iter().any(|have| have == option)
    }

    /// `path` as the file system itself names it, so that two mounts of one directory compare equal.
    pub fn inside(&self, path: &Path) -> Option<PathBuf> {
        path.strip_prefix(&self.point).ok().map(|rest| self.root.join(rest))
    }
}

/// The mounts as this thread sees them. `proc` is `/proc`.
pub fn read(proc: &Path) -> io::Result<Vec<Mount>> {
    Ok(parse(&std::fs::read(proc.join("thread-self/mountinfo"))?))
}

/// Lines that are not as the manual has them are left out: a newer kernel must not stop a start.
pub fn parse(text: &[u8]) -> Vec<Mount> {
    text.split(|byte| *byte == b'\n').filter_map(line).collect()
}

/// The mount that `path` lies on; `path` is absolute and has no symlinks.
pub fn lookup<'a>(mounts: &'a [Mount], path: &Path) -> Option<&'a Mount> {
    let is_root = |mount: &&Mount| mount.point == Path::new("/");
    let stands_alone = |mount: &&Mount| mount.parent == mount.id || !mounts.iter().any(|m| m.id == mount.parent);
    let mut at = mounts.iter().filter(is_root).find(stands_alone).or_else(|| mounts.iter().find(is_root))?;
    // Each step goes to a child, so the count only guards against a table that contradicts itself.
    for _ in 0..mounts.len() {
        // The walk meets the shortest mount point first. A mount over another's root is that one's child.
        let child = mounts
            .iter()
            .filter(|mount| mount.parent == at.id && mount.id != at.id && path.starts_with(&mount.point))
            .min_by_key(|mount| mount.point.as_os_str().len());
        match child {
            Some(child) => at = child,
            None => break,
        }
    }
    Some(at)
}

fn line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let id = text(fields.next()?).parse().ok()?;
    let parent = text(fields.next()?).parse().ok()?;
    let device = text(fields.next()?);
    let root = path(fields.next()?);
    let point = path(fields.next()?);
    let options = list(fields.next()?);
    // Optional fields (`shared:1`, …) end with a single hyphen.
    fields.by_ref().find(|field| *field == b"-")?;
    let fstype = text(fields.next()?);
    let _source = fields.next()?;
    let super_options = list(fields.next().unwrap_or_default());
    Some(Mount { id, parent, device, root, point, options, fstype, super_options })
}

fn text(field: &[u8]) -> String {
    String::from_utf8_lossy(field).into_owned()
}

fn list(field: &[u8]) -> Vec<String> {
    text(field).split(',').filter(|option| !option.is_empty()).map(str::to_owned).collect()
}

fn path(field: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(unescape(field)))
}

/// Space, tab, newline and backslash arrive as `\` and three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        let octal =
            after.first_chunk::<3>().filter(|digits| first == b'\\' && digits.iter().all(|d| (b'0'..b'8').contains(d)));
        match octal.and_then(|d| u8::try_from(d.iter().fold(0u32, |sum, d| sum * 8 + u32::from(d - b'0'))).ok()) {
            Some(byte) => {
                plain.push(byte);
                rest = &after[3..];
            }
            None => {
                plain.push(first);
                rest = after;
            }
        }
    }
    plain
}

/// `path` without symlinks, also where its end does not exist yet; a dangling link leads to what it names.
pub fn resolve(path: &Path) -> PathBuf {
    resolve_within(path, 40) // as many links as the kernel follows: path_resolution(7)
}

fn resolve_within(path: &Path, links: u32) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    if let Ok(canonical) = std::fs::canonicalize(&path) {
        return canonical;
    }
    let Some(parent) = path.parent() else { return path };
    let parent = resolve_within(parent, links);
    let joined = match path.components().next_back() {
        Some(std::path::Component::Normal(name)) => parent.join(name),
        Some(std::path::Component::ParentDir) => return parent.parent().unwrap_or(&parent).to_owned(),
        _ => return parent,
    };
    match std::fs::read_link(&joined) {
        Ok(target) if links > 0 && !target.as_os_str().as_bytes().is_empty() => {
            resolve_within(&parent.join(target), links - 1)
        }
        _ => joined,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Runs `test` on a file system of `bytes` that only this thread can see; `false` where nobody may mount. The
    /// mount goes with the thread, so nothing is left to clean up.
    pub(crate) fn on_small_disk(bytes: u64, test: impl FnOnce(&Path) + Send) -> bool {
        use nix::mount::{MsFlags, mount};
        let dir = tempfile::tempdir().expect("scratch");
        let dir = dir.path();
        let run = || {
            let nothing = None::<&str>;
            let size = format!("size={bytes}");
            let mounted = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)
                .and_then(|()| mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing))
                .and_then(|()| mount(Some("tmpfs"), dir, Some("tmpfs"), MsFlags::empty(), Some(size.as_str())));
            if let Err(errno) = mounted {
                println!("not run: no right to mount here ({errno})");
                return false;
            }
            test(dir);
            true
        };
        std::thread::scope(|scope| match scope.spawn(run).join() {
            Ok(ran) => ran,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }

    const TABLE: &[u8] = b"\
700 600 0:200 / / ro,relatime - overlay overlay rw,lowerdir=/l\n\
701 700 0:201 / /proc rw,nosuid,nodev,noexec,relatime - proc proc rw\n\
702 700 0:210 / /.chaperone/bin ro,relatime - overlay overlay rw,volatile\n\
703 700 254:0 /pods/1/volumes/kubernetes.io~empty-dir/work /work\\040space rw,relatime shared:1 master:2 - ext4 /dev/vda rw\n\
nonsense\n\
704 703 0:99 / /work\\040space rw,noexec - tmpfs tmpfs rw,size=1k\n\
705 700 0:98 / /a/b rw - tmpfs tmpfs rw\n\
706 700 0:97 / /a rw - tmpfs tmpfs rw\n";

    fn at(path: &str) -> u64 {
        lookup(&parse(TABLE), Path::new(path)).expect("every path has a mount").id
    }

    #[test]
    fn a_path_belongs_to_the_mount_that_a_walk_from_the_root_reaches() {
        assert_eq!(at("/etc/passwd"), 700);
        assert_eq!(at("/proc"), 701);
        assert_eq!(at("/.chaperone/bin/supervisor"), 702);
        assert_eq!(at("/.chaperone/binary"), 700, "a common beginning is not a directory");
    }

    #[test]
    fn a_mount_that_a_later_one_hides_is_not_named() {
        assert_eq!(at("/work space/x"), 704, "stacked on the same point");
        assert_eq!(at("/a/b/c"), 706, "hidden by a mount over its parent");
    }

    #[test]
    fn options_of_either_layer_make_a_mount_read_only() {
        let mounts = parse(TABLE);
        assert!(mounts[0].read_only() && !mounts[3].read_only());
        let line = b"1 0 0:1 / / rw - ext4 /dev/x ro";
        assert!(parse(line)[0].read_only());
    }

    #[test]
    fn escapes_are_undone_and_broken_ones_kept() {
        assert_eq!(unescape(br"a\040b\011c\012d\134e\043f"), b"a b\tc\nd\\e#f");
        assert_eq!(unescape(br"\04"), br"\04");
        assert_eq!(unescape(br"\777"), br"\777");
        assert_eq!(unescape(b"\xff\\"), b"\xff\\");
    }

    #[test]
    fn the_kernel_s_own_table_is_understood_line_for_line() {
        let text = std::fs::read("/proc/self/mountinfo").expect("linux has mountinfo");
        let lines = text.split(|b| *b == b'\n').filter(|l| !l.is_empty()).count();
        assert_eq!(parse(&text).len(), lines);
        assert_eq!(lookup(&parse(&text), Path::new("/proc/self")).expect("found").fstype, "proc");
    }

    #[test]
    fn a_missing_end_and_a_dangling_link_still_resolve() {
        let home = tempfile::tempdir().expect("scratch");
        let home = std::fs::canonicalize(home.path()).expect("exists");
        std::os::unix::fs::symlink("elsewhere/file", home.join("link")).expect("link");
        std::os::unix::fs::symlink("loop", home.join("loop")).expect("link");
        assert_eq!(resolve(&home.join("no/such")), home.join("no/such"));
        assert_eq!(resolve(&home.join("link")), home.join("elsewhere/file"));
        assert_eq!(resolve(&home.join("no/../x")), home.join("x"));
        assert!(resolve(&home.join("loop")).starts_with(&home));
    }
}
