//! A container's root, in memory: this machine's root as the lower layer, so that every program is there, and a
//! memory file system above it, so that nothing can be harmed. Nothing is ever cleaned up by hand; the kernel drops
//! it all with the mount namespace.

use std::fs::{self, DirBuilder, File, Permissions};
use std::os::fd::IntoRawFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, chown, symlink};
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::{chdir, pivot_root};
use rustix::fs::{XattrFlags, setxattr};

use super::Profile;
use crate::{kernel, scene};

const NOTHING: Option<&str> = None;

/// Make the root in `scratch`, with the supervisor, the shim and the probe of `programs`, and enter it.
pub(super) fn enter(scratch: &Path, programs: &Path, profile: Profile) -> Result<(), String> {
    let root = scratch.join("root");
    make(scratch, &root).map_err(|e| format!("container root: {e}"))?;
    devices(&root).map_err(|e| format!("container /dev: {e}"))?;
    install(&root, programs).map_err(|e| format!("container programs: {e}"))?;
    furnish(&root, profile).map_err(|e| format!("container files: {e}"))?;
    chdir(&root).map_err(|e| format!("enter {}: {e}", root.display()))?;
    // the old root lies under the new one for a moment, then it is gone (pivot_root(2), NOTES)
    pivot_root(".", ".").map_err(|e| format!("pivot_root: {e}"))?;
    umount2(".", MntFlags::MNT_DETACH).map_err(|e| format!("detach the old root: {e}"))?;
    chdir("/").map_err(|e| format!("enter /: {e}"))?;
    loopback_up();
    be_careless().map_err(|e| format!("a runtime's mistakes: {e}"))
}

/// Core files of any size, where that may be, and a descriptor that every program inherits: the one is what runtimes leave on, the other was a
/// way out of runc (CVE-2024-21626).
fn be_careless() -> std::io::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_CORE)?;
    // Beyond the hard limit takes CAP_SYS_RESOURCE.
    setrlimit(Resource::RLIMIT_CORE, RLIM_INFINITY, RLIM_INFINITY)
        .or_else(|_| setrlimit(Resource::RLIMIT_CORE, hard, hard))?;
    Ok(kernel::leak(File::open("/")?.into_raw_fd())?)
}

fn make(scratch: &Path, root: &Path) -> std::io::Result<()> {
    memory(scratch, "mode=0755")?;
    for name in ["upper", "work", "root"] {
        fs::create_dir(scratch.join(name))?;
    }
    let options = format!("lowerdir=/,upperdir={0}/upper,workdir={0}/work", scratch.display());
    mount(Some("overlay"), root, Some("overlay"), MsFlags::empty(), Some(options.as_str()))?;
    memory(&root.join("tmp"), "mode=1777")?;
    memory(&root.join("run"), "mode=0755")?;
    memory(&root.join("dev"), "mode=0755")?;
    // whatever this machine has there, with whatever modes, is none of the scene; /srv stays on the workspace's file
    // system, so that links between the two can be tried
    for name in ["opt", "srv"] {
        fs::create_dir_all(root.join(name))?;
        fs::set_permissions(root.join(name), Permissions::from_mode(0o755))?;
    }
    memory(&root.join("opt"), "mode=0755")?;
    mount(Some("proc"), &root.join("proc"), Some("proc"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, NOTHING)?;
    mount(Some("/sys"), &root.join("sys"), NOTHING, MsFlags::MS_BIND | MsFlags::MS_REC, NOTHING)?;
    Ok(())
}

fn memory(path: &Path, options: &str) -> std::io::Result<()> {
    Ok(mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), Some(options))?)
}

fn bind(from: &Path, to: &Path, read_only: bool) -> std::io::Result<()> {
    File::create(to)?;
    mount(Some(from), to, NOTHING, MsFlags::MS_BIND, NOTHING)?;
    if read_only {
        mount(NOTHING, to, NOTHING, MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, NOTHING)?;
    }
    Ok(())
}

/// What a runtime gives, and two nodes that it does not give: a disk and the kernel's log.
fn devices(root: &Path) -> std::io::Result<()> {
    let dev = root.join("dev");
    for name in ["null", "zero", "full", "random", "urandom", "tty"] {
        bind(&Path::new("/dev").join(name), &dev.join(name), false)?;
    }
    for name in ["kmsg", "net/tun"] {
        fs::create_dir_all(dev.join("net"))?;
        if Path::new("/dev").join(name).exists() {
            bind(&Path::new("/dev").join(name), &dev.join(name), false)?;
        }
    }
    for name in ["pts", "shm"] {
        fs::create_dir(dev.join(name))?;
    }
    let options = Some("newinstance,ptmxmode=0666,mode=0620");
    mount(Some("devpts"), &dev.join("pts"), Some("devpts"), MsFlags::MS_NOSUID, options)?;
    memory(&dev.join("shm"), "mode=1777")?;
    symlink("pts/ptmx", dev.join("ptmx"))?;
    for (name, target) in [("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")] {
        symlink(target, dev.join(name))?;
    }
    // not possible in a user namespace, where the probe then says that it could not be tried
    let _ = mknod(&inside(root, scene::DISK), SFlag::S_IFBLK, Mode::from_bits_truncate(0o600), makedev(7, 0));
    Ok(())
}

fn install(root: &Path, programs: &Path) -> std::io::Result<()> {
    let probes = inside(root, scene::PROBE).parent().map(Path::to_path_buf).unwrap_or_default();
    fs::create_dir_all(inside(root, scene::PROGRAMS))?;
    fs::create_dir_all(&probes)?;
    for name in ["supervisor", "shim"] {
        if programs.join(name).exists() {
            bind(&programs.join(name), &inside(root, scene::PROGRAMS).join(name), true)?;
        }
    }
    let probe = std::env::current_exe()?.with_file_name("probe");
    bind(&probe, &inside(root, scene::PROBE), false)?;
    // on the overlay, because bind mounts of this machine's file may be nosuid
    fs::copy(&probe, inside(root, scene::SETUID_PROBE))?;
    fs::set_permissions(inside(root, scene::SETUID_PROBE), Permissions::from_mode(0o4755))?;
    fs::copy(&probe, inside(root, scene::CAPABLE_PROBE))?;
    setxattr(inside(root, scene::CAPABLE_PROBE), "security.capability", &KILL, XattrFlags::empty())?;
    Ok(())
}

/// `struct vfs_cap_data` (linux/capability.h): revision 2, effective; `CAP_KILL`, which is 5, permitted and not inheritable.
const KILL: [u8; 20] = [1, 0, 0, 2, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn furnish(root: &Path, profile: Profile) -> std::io::Result<()> {
    let uid = profile.uid();
    let agent = if profile == Profile::Baseline { scene::AGENT_UID } else { uid };
    for (path, mode, owner) in [
        (scene::STATE, 0o700, uid),
        (scene::WORKSPACE, 0o775, agent),
        (scene::OUTSIDE, 0o777, uid),
        (scene::OUTSIDE_DIRECTORY, 0o777, uid),
        ("/opt/outside", 0o777, uid),
        ("/home/codex", 0o775, agent),
    ] {
        let path = inside(root, path);
        DirBuilder::new().recursive(true).mode(mode).create(&path)?;
        fs::set_permissions(&path, Permissions::from_mode(mode))?;
        own(&path, owner);
    }
    let device = inside(root, scene::DEVICE);
    let _ = mknod(&device, SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(1, 5));
    let _ = fs::set_permissions(&device, Permissions::from_mode(0o666));
    // as kubelet leaves them: secrets by fsGroup, the termination log for anybody
    for (path, mode, owner) in [
        (scene::TOKEN, 0o440, uid),
        (scene::STATE_FILE, 0o600, uid),
        (scene::STATE_PROGRAM, 0o700, uid),
        (scene::OUTSIDE_FILE, 0o666, uid),
        (scene::WORKSPACE_FILE, 0o664, agent),
        (scene::SECRET, 0o444, uid),
        (scene::TERMINATION_LOG, 0o666, 0),
    ] {
        let path = inside(root, path);
        fs::create_dir_all(path.parent().unwrap_or(root))?;
        let mut file = File::options().write(true).create(true).truncate(true).mode(mode).open(&path)?;
        let content = match path.file_name().and_then(|name| name.to_str()) {
            Some("termination-log") => "",
            Some("program") => "#!/bin/true\n",
            _ => scene::CANARY,
        };
        std::io::Write::write_all(&mut file, content.as_bytes())?;
        file.set_permissions(Permissions::from_mode(mode))?;
        own(&path, owner);
    }
    Ok(())
}

/// In a user namespace of one id everything has the same owner anyway.
fn own(path: &Path, uid: u32) {
    let _ = chown(path, Some(uid), Some(uid));
}

fn inside(root: &Path, path: &str) -> std::path::PathBuf {
    // `/var/run` is a link to `/run`, which would lead out of the root while it is being made
    root.join(path.replacen("/var/run/", "/run/", 1).trim_start_matches('/'))
}

/// netdevice(7); C libraries disagree about the type.
const SIOCSIFFLAGS: u64 = 0x8914;

/// Best effort: a Pod's network has it, most probes do without.
fn loopback_up() {
    let Ok(socket) = std::net::UdpSocket::bind("0.0.0.0:0") else { return };
    // struct ifreq: 16 bytes of name, then the flags (netdevice(7))
    let mut request = [0u8; 40];
    request[..2].copy_from_slice(b"lo");
    request[16..18].copy_from_slice(&(libc::IFF_UP as u16 | libc::IFF_RUNNING as u16).to_ne_bytes());
    let fd = std::os::fd::AsRawFd::as_raw_fd(&socket) as u64;
    let _ = kernel::call(libc::SYS_ioctl, &[fd, SIOCSIFFLAGS, kernel::address_mut(&mut request)]);
}
