//! Tokens, state and paths outside the workspace.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount, umount};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use protocol::guarantee::Guarantee::{FilesConfined, StateIntact, SyscallsFiltered, TokenUnreadable};

use super::{Outcome, Probe, call, effect, judge, probe, reaches};
use crate::kernel::{self, address, address_mut};
use crate::scene::{
    CANARY, OUTSIDE, OUTSIDE_FILE, SECRET, STATE, STATE_FILE, STATE_PROGRAM, TERMINATION_LOG, TOKEN, WORKSPACE,
    WORKSPACE_FILE,
};

const SAME_UID: &str =
    "chmod and utimes need only the uid, and Landlock ABI 7 has no right for them; the supervisor mends modes";
const NOTHING: Option<&str> = None;
/// Flags of open(2) that truncate without asking to write: for reading, and for neither reading nor writing.
const READING: u64 = (libc::O_RDONLY | libc::O_TRUNC) as u64;
const NOTHING_BUT: u64 = (libc::O_ACCMODE | libc::O_TRUNC) as u64;

pub(super) const PROBES: &[Probe] = &[
    probe("token-read", TokenUnreadable, |_| canary(TOKEN)),
    probe("token-by-symlink", TokenUnreadable, |_| {
        let link = format!("{WORKSPACE}/link");
        symlink(TOKEN, &link).map_or_else(|e| Outcome::Untried(e.to_string()), |()| canary(&link))
    }),
    probe("token-by-hardlink", TokenUnreadable, |_| {
        let link = "/etc/chaperone/hard";
        fs::hard_link(TOKEN, link).map_or_else(|e| Outcome::Denied(e.to_string()), |()| canary(link))
    })
    .root(),
    probe("token-by-proc-1-root", TokenUnreadable, |t| canary(&format!("/proc/{}/root{TOKEN}", t.supervisor))),
    probe("token-by-proc-self-root", TokenUnreadable, |_| canary(&format!("/proc/self/root{TOKEN}"))),
    probe("token-by-proc-cwd", TokenUnreadable, |t| canary(&format!("/proc/{}/cwd{TOKEN}", t.supervisor))),
    probe("token-by-dot-dot", TokenUnreadable, |_| canary(&format!("{WORKSPACE}/../{TOKEN}"))),
    probe("token-by-path-descriptor", TokenUnreadable, |_| {
        // O_PATH is not an open for Landlock; reading through /proc/self/fd is
        match nix::fcntl::open(TOKEN, nix::fcntl::OFlag::O_PATH, Mode::empty()) {
            Ok(fd) => canary(&format!("/proc/self/fd/{}", fd.as_raw_fd())),
            Err(error) => Outcome::Denied(error.to_string()),
        }
    }),
    probe("token-by-handle", TokenUnreadable, |_| by_handle()).root(),
    probe("token-by-bind-mount", TokenUnreadable, |_| {
        let place = format!("{WORKSPACE}/bound");
        let _ = File::create(&place);
        match mount(Some(TOKEN), place.as_str(), NOTHING, MsFlags::MS_BIND, NOTHING) {
            Ok(()) => canary(&place),
            Err(error) => Outcome::Denied(error.to_string()),
        }
    })
    .root(),
    probe("token-by-rename", TokenUnreadable, |_| {
        let place = format!("{WORKSPACE}/moved");
        fs::rename("/etc/chaperone", &place)
            .map_or_else(|e| Outcome::Denied(e.to_string()), |()| canary(&format!("{place}/token")))
    })
    .root(),
    probe("token-by-setuid-program", TokenUnreadable, |_| {
        match std::process::Command::new("cat").arg(TOKEN).output() {
            Ok(output) => effect(output.stdout.starts_with(CANARY.as_bytes()), "the token read by a child"),
            Err(error) => Outcome::Denied(error.to_string()),
        }
    }),
    probe("token-by-io-uring", TokenUnreadable, |_| super::syscalls::io_uring_setup()),
    probe("service-account-token", TokenUnreadable, |_| canary(SECRET)),
    probe("service-account-token-by-run", TokenUnreadable, |_| canary(&SECRET.replacen("/var/run", "/run", 1))),
    probe("secrets-list", TokenUnreadable, |_| judge(fs::read_dir("/var/run/secrets"))),
    probe("state-list", StateIntact, |_| judge(fs::read_dir(STATE))),
    probe("state-read", StateIntact, |_| canary(STATE_FILE)),
    probe("state-create", StateIntact, |_| judge(File::create(format!("{STATE}/planted")))),
    probe("state-make-directory", StateIntact, |_| judge(fs::create_dir(format!("{STATE}/planted")))),
    probe("state-symlink", StateIntact, |_| judge(symlink("/etc/passwd", format!("{STATE}/planted")))),
    probe("state-delete", StateIntact, |_| judge(fs::remove_file(STATE_FILE))),
    probe("state-rename", StateIntact, |_| judge(fs::rename(STATE_FILE, format!("{STATE}/renamed")))),
    probe("state-rename-directory", StateIntact, |_| judge(fs::rename(STATE, format!("{STATE}-gone")))).root(),
    probe("state-rename-over", StateIntact, |_| {
        let mine = format!("{WORKSPACE}/mine");
        fs::write(&mine, "mine")
            .map_or_else(|e| Outcome::Untried(e.to_string()), |()| judge(fs::rename(&mine, STATE_FILE)))
    }),
    probe("state-link-out", StateIntact, |_| judge(fs::hard_link(STATE_FILE, format!("{WORKSPACE}/out")))),
    probe("state-truncate", StateIntact, |_| judge(nix::unistd::truncate(STATE_FILE, 0))),
    probe("state-append", StateIntact, |_| judge(OpenOptions::new().append(true).open(STATE_FILE))),
    probe("state-chmod", StateIntact, |_| judge(fs::set_permissions(STATE, Permissions::from_mode(0o777))))
        .open_in_restricted(SAME_UID),
    probe("state-utimes", StateIntact, |_| {
        judge(nix::sys::stat::utimes(STATE, &nix::sys::time::TimeVal::new(0, 0), &nix::sys::time::TimeVal::new(0, 0)))
    })
    .open_in_restricted(SAME_UID),
    probe("state-execute", StateIntact, |_| match std::process::Command::new(STATE_PROGRAM).status() {
        Ok(status) => effect(status.success(), "a program of the state directory run"),
        Err(error) => Outcome::Denied(error.to_string()),
    }),
    probe("termination-log-write", FilesConfined, |_| {
        judge(OpenOptions::new().write(true).open(TERMINATION_LOG).and_then(|mut f| f.write_all(b"lie")))
    }),
    probe("termination-log-truncate", FilesConfined, |_| judge(nix::unistd::truncate(TERMINATION_LOG, 0))),
    probe("termination-log-delete", FilesConfined, |_| judge(fs::remove_file(TERMINATION_LOG))).root(),
    probe("write-outside", FilesConfined, |_| judge(fs::write(format!("{OUTSIDE}/new"), "x"))),
    probe("append-outside", FilesConfined, |_| {
        judge(OpenOptions::new().append(true).open(OUTSIDE_FILE).and_then(|mut f| f.write_all(b"x")))
    }),
    probe("truncate-outside", FilesConfined, |_| judge(nix::unistd::truncate(OUTSIDE_FILE, 0))),
    #[cfg(target_arch = "x86_64")]
    probe("truncate-by-open", FilesConfined, |_| truncated(|path| call(libc::SYS_open, &[path, READING]))),
    #[cfg(target_arch = "x86_64")]
    probe("truncate-by-open-for-nothing", FilesConfined, |_| {
        truncated(|path| call(libc::SYS_open, &[path, NOTHING_BUT]))
    }),
    probe("truncate-by-openat", FilesConfined, |_| truncated(|path| call(libc::SYS_openat, &[0, path, READING]))),
    probe("truncate-by-openat-for-nothing", FilesConfined, |_| {
        truncated(|path| call(libc::SYS_openat, &[0, path, NOTHING_BUT]))
    }),
    probe("truncate-by-openat2", FilesConfined, |_| {
        // struct open_how: flags, mode, resolve
        let how = [READING, 0, 0];
        truncated(|path| call(libc::SYS_openat2, &[0, path, address(&how), 24]))
    }),
    probe("delete-outside", FilesConfined, |_| judge(fs::remove_file(OUTSIDE_FILE))),
    probe("rename-outside", FilesConfined, |_| judge(fs::rename(OUTSIDE_FILE, format!("{OUTSIDE}/other")))),
    probe("link-from-outside", FilesConfined, |_| judge(fs::hard_link(OUTSIDE_FILE, format!("{WORKSPACE}/linked")))),
    probe("link-refused-inside", FilesConfined, |_| {
        // a domain denies it everywhere unless it handles REFER and allows it (landlock(7)), so this one right is missed otherwise
        let directory = format!("{WORKSPACE}/linked-here");
        match fs::create_dir(&directory).and_then(|()| fs::hard_link(WORKSPACE_FILE, format!("{directory}/file"))) {
            Ok(()) => Outcome::Denied("linked, as it should be".into()),
            Err(error) if error.raw_os_error() == Some(libc::EXDEV) => {
                Outcome::Escaped("no link from one directory of the workspace to another".into())
            }
            Err(error) => Outcome::Untried(error.to_string()),
        }
    })
    .nobody("where nothing confines it, nothing is refused that should be allowed"),
    probe("fifo-outside", FilesConfined, |_| {
        judge(nix::unistd::mkfifo(format!("{OUTSIDE}/fifo").as_str(), Mode::S_IRWXU))
    }),
    probe("socket-outside", FilesConfined, |_| {
        judge(std::os::unix::net::UnixListener::bind(format!("{OUTSIDE}/socket")))
    }),
    probe("make-directory-outside", FilesConfined, |_| judge(fs::create_dir(format!("{OUTSIDE}/new")))),
    probe("remove-directory-outside", FilesConfined, |_| judge(fs::remove_dir(crate::scene::OUTSIDE_DIRECTORY))),
    probe("symlink-outside", FilesConfined, |_| judge(symlink("/etc", format!("{OUTSIDE}/link")))),
    probe("list-outside-the-root", FilesConfined, |_| judge(fs::read_dir("/"))),
    probe("regular-node-outside", FilesConfined, |_| {
        let place = format!("{OUTSIDE}/node");
        judge(mknod(place.as_str(), SFlag::S_IFREG, Mode::S_IRUSR, 0))
    }),
    probe("whiteout-outside", FilesConfined, |_| {
        // the one character device that needs no privilege (mknod(2)): it hides what lies below it in an overlay
        judge(mknod(crate::scene::OUTSIDE_NODE, SFlag::S_IFCHR, Mode::S_IRUSR, makedev(0, 0)))
    }),
    probe("mknod-disk-outside", FilesConfined, |_| {
        let place = format!("{OUTSIDE}/disk");
        judge(mknod(place.as_str(), SFlag::S_IFBLK, Mode::S_IRUSR, makedev(7, 0)))
    })
    .root(),
    probe("device-outside-dev-ioctl", FilesConfined, |_| match File::open(crate::scene::DEVICE) {
        // a request that no driver has
        Ok(file) => reaches(kernel::call(libc::SYS_ioctl, &[file.as_raw_fd() as u64, 0x1234, 0]), &[Errno::ENOTTY]),
        Err(error) => Outcome::Untried(error.to_string()),
    }),
    probe("write-etc-passwd", FilesConfined, |_| judge(OpenOptions::new().append(true).open("/etc/passwd"))).root(),
    probe("write-own-program", FilesConfined, |_| judge(fs::write("/opt/probe/planted", "x"))).root(),
    probe("mknod-disk", FilesConfined, |_| {
        let place = format!("{WORKSPACE}/disk");
        judge(mknod(place.as_str(), SFlag::S_IFBLK, Mode::S_IRUSR, makedev(7, 0)))
    })
    .root(),
    probe("open-disk", FilesConfined, |_| judge(File::open(crate::scene::DISK))).root(),
    probe("open-kernel-log", FilesConfined, |_| judge(File::open("/dev/kmsg"))).root(),
    probe("open-kcore", FilesConfined, |_| judge(File::open("/proc/kcore"))).nobody("CONFIG_PROC_KCORE is off"),
    probe("write-core-pattern", FilesConfined, |_| same_again("/proc/sys/kernel/core_pattern")).root(),
    probe("write-overcommit", FilesConfined, |_| same_again("/proc/sys/vm/overcommit_memory")).root(),
    probe("open-sysrq-trigger", FilesConfined, |_| judge(OpenOptions::new().write(true).open("/proc/sysrq-trigger")))
        .nobody("CONFIG_MAGIC_SYSRQ is off"),
    probe("open-sys-for-writing", FilesConfined, |_| {
        judge(
            OpenOptions::new()
                .write(true)
                .open("/sys/kernel/uevent_helper")
                .or_else(|_| OpenOptions::new().write(true).open("/sys/kernel/mm/transparent_hugepage/enabled")),
        )
    })
    .root(),
    probe("mount-tmpfs", SyscallsFiltered, |_| {
        judge(mount(Some("tmpfs"), WORKSPACE, Some("tmpfs"), MsFlags::empty(), NOTHING))
    })
    .root(),
    probe("remount-writable", SyscallsFiltered, |_| {
        judge(mount(NOTHING, "/", NOTHING, MsFlags::MS_REMOUNT | MsFlags::MS_BIND, NOTHING))
    })
    .root(),
    probe("umount-run", SyscallsFiltered, |_| judge(umount("/dev/shm"))).root(),
    probe("fsopen", SyscallsFiltered, |_| call(libc::SYS_fsopen, &[address(&*text("tmpfs")), 0])).root(),
    probe("open-tree", SyscallsFiltered, |_| {
        // OPEN_TREE_CLONE makes a mount of its own
        call(libc::SYS_open_tree, &[libc::AT_FDCWD as u64, address(&*text("/etc")), 1])
    })
    .root(),
    probe("move-mount", SyscallsFiltered, |_| {
        let path = text("/nowhere");
        let (here, path) = (libc::AT_FDCWD as u64, address(&*path));
        reaches(kernel::call(libc::SYS_move_mount, &[here, path, here, path, 0]), &[Errno::ENOENT])
    })
    .root(),
    probe("mount-setattr", SyscallsFiltered, |_| {
        let attributes = [0u64; 4];
        call(
            libc::SYS_mount_setattr,
            &[libc::AT_FDCWD as u64, address(&*text("/dev/shm")), 0, address(&attributes), 32],
        )
    })
    .root(),
    probe("name-to-handle-at", SyscallsFiltered, |_| judge(handle_of(TOKEN))),
];

fn text(text: &str) -> Box<std::ffi::CStr> {
    CString::new(text).unwrap_or_default().into_boxed_c_str()
}

fn canary(path: &str) -> Outcome {
    match fs::read(Path::new(path)) {
        Ok(bytes) => effect(bytes.starts_with(CANARY.as_bytes()), "the secret"),
        Err(error) => Outcome::Denied(error.to_string()),
    }
}

/// Write what is there already.
fn same_again(path: &str) -> Outcome {
    match fs::read(path) {
        Ok(value) => judge(OpenOptions::new().write(true).open(path).and_then(|mut f| f.write_all(&value))),
        Err(error) => Outcome::Denied(error.to_string()),
    }
}

/// `struct file_handle` (open_by_handle_at(2)): length, type, bytes.
type Handle = [u32; 2 + 32];

fn handle_of(path: &str) -> nix::Result<Handle> {
    let mut handle: Handle = [0; 34];
    handle[0] = 128;
    let mut mount_id = 0i32;
    let path = text(path);
    let out = [address_mut(&mut handle), address_mut(&mut mount_id)];
    let number = libc::SYS_name_to_handle_at;
    match kernel::call(number, &[libc::AT_FDCWD as u64, address(&*path), out[0], out[1], 0]) {
        // an overlay without an index has no handles to open; AT_HANDLE_FID asks only for a name
        Err(Errno::EOPNOTSUPP) => {
            kernel::call(number, &[libc::AT_FDCWD as u64, address(&*path), out[0], out[1], 0x200]).map(|_| handle)
        }
        other => other.map(|_| handle),
    }
}

/// The Docker escape of 2014 ("shocker"): a handle needs no path. In memory file systems have handles, so the
/// workspace's own file system serves where the overlay has none.
fn by_handle() -> Outcome {
    let place = "/dev/shm/handle";
    if fs::write(place, CANARY).is_err() {
        return Outcome::Denied("no file to make a handle of".into());
    }
    let handle = match handle_of(place) {
        Ok(handle) => handle,
        Err(error) => return Outcome::Denied(format!("name_to_handle_at: {error}")),
    };
    let directory = match File::open("/dev/shm") {
        Ok(directory) => directory,
        Err(error) => return Outcome::Denied(error.to_string()),
    };
    match kernel::call(libc::SYS_open_by_handle_at, &[directory.as_raw_fd() as u64, address(&handle), 0]) {
        Ok(_) => Outcome::Escaped("a file opened without a path".into()),
        Err(error) => Outcome::Denied(error.to_string()),
    }
}

/// Of a file outside the workspace, by its path in memory.
fn truncated(open: impl FnOnce(u64) -> Outcome) -> Outcome {
    let path = CString::new(OUTSIDE_FILE).expect("no NUL in it");
    open(path.as_ptr() as u64)
}
