//! A process of the Pod that is not of the agent's tree, as `kubectl exec` starts them, and how to find and watch
//! processes from inside.

use std::fs;
use std::io::Write;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use nix::unistd::Pid;

use crate::scene;

/// Be the outsider: listen, say so with one byte, and stay.
pub fn run() -> std::io::Result<()> {
    let secret = scene::CANARY.to_string();
    let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(scene::ABSTRACT)?)?;
    std::io::stdout().write_all(b".")?;
    std::io::stdout().flush()?;
    loop {
        let (_, _) = listener.accept()?;
        std::hint::black_box(&secret);
    }
}

/// The outsider's pid.
pub fn find() -> Option<Pid> {
    let needle = format!("\0{}\0", scene::OUTSIDER);
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        String::from_utf8_lossy(&line).ends_with(&needle).then(|| Pid::from_raw(pid))
    })
}

/// One field of `/proc/PID/stat` after the name: 0 is the state (proc_pid_stat(5) counts it as 3).
pub fn stat(pid: Pid, field: usize) -> Option<String> {
    let line = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    line.rsplit_once(") ")?.1.split(' ').nth(field).map(str::to_string)
}

/// The parent of a process.
pub fn parent(pid: Pid) -> Option<Pid> {
    stat(pid, 1)?.parse().ok().map(Pid::from_raw)
}

/// Whether it runs, and is not a zombie.
pub fn alive(pid: Pid) -> bool {
    stat(pid, 0).is_some_and(|state| !matches!(state.as_str(), "Z" | "X"))
}

/// Whether it dies within a moment: signals are not delivered at once.
pub fn dies(pid: Pid) -> bool {
    for _ in 0..40 {
        if !alive(pid) {
            return true;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    false
}
