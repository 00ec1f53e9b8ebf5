//! Where the programs under test are.
//!
//! `CHAPERONE_BIN_DIR` names a directory with `supervisor` and `shim`, for instance `dist`. Without it they are built
//! once per test program: cargo builds only the programs of the package that it tests.

use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();

/// Where root's tests go when cargo's directory is closed to others. Not below /run, which a stage replaces.
const SCRATCH: &str = "/var/lib/chaperone-tests";
/// The first programs of what is copied, by which the copies are named.
const FIRST: [&str; 2] = ["supervisor", "stage"];
/// For so long a copy may be wanted again: longer than any run of tests takes.
const KEPT: Duration = Duration::from_secs(6 * 3600);

/// Test what `just dist` left, unless `CHAPERONE_BIN_DIR` names something else: numbers are of what is shipped.
pub fn prefer_dist() {
    const ALL: [&str; 3] = ["supervisor", "shim", "gateway"];
    let dist = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../dist"));
    if std::env::var_os("CHAPERONE_BIN_DIR").is_none() && ALL.iter().all(|name| dist.join(name).exists()) {
        let dist = dist.canonicalize().unwrap_or_else(|_| dist.into());
        let _ = DIRECTORY.set(open_to_all(dist, &ALL));
    }
}

/// The directory with `supervisor` and `shim`.
pub fn directory() -> &'static Path {
    DIRECTORY.get_or_init(|| match std::env::var_os("CHAPERONE_BIN_DIR") {
        Some(given) => std::path::absolute(PathBuf::from(given)).expect("a directory name"),
        None => {
            build(&["--package", "supervisor", "--package", "shim"]);
            open_to_all(own(), &["supervisor", "shim"])
        }
    })
}

/// The supervisor.
pub fn supervisor() -> PathBuf {
    directory().join("supervisor")
}

/// The gateway.
pub fn gateway() -> PathBuf {
    static GATEWAY: OnceLock<PathBuf> = OnceLock::new();
    let built = || match std::env::var_os("CHAPERONE_BIN_DIR") {
        Some(given) => std::path::absolute(PathBuf::from(given)).expect("a directory name").join("gateway"),
        // `just dist` left one beside the others.
        None if DIRECTORY.get().is_some_and(|dist| dist.join("gateway").exists()) => directory().join("gateway"),
        None => {
            build(&["--package", "gateway"]);
            own().join("gateway")
        }
    };
    GATEWAY.get_or_init(built).clone()
}

/// A program of this crate. `cargo run --bin bench` has built no other.
pub fn helper(name: &str) -> PathBuf {
    const ALL: [&str; 4] = ["stage", "probe", "agent", "appender"];
    static HELPERS: OnceLock<PathBuf> = OnceLock::new();
    let directory = HELPERS.get_or_init(|| {
        if !ALL.iter().all(|name| own().join(name).exists()) {
            build(&["--package", "tests", "--bins"]);
        }
        open_to_all(own(), &ALL)
    });
    directory.join(name)
}

/// Cargo's directory, or copies of these programs where it lies in a home that only root may enter (agents of other uids
/// execute them too) or in /tmp (an agent could replace them, so the supervisor refuses to run there). The copies of one build are shared by all test programs and left for the next.
fn open_to_all(built: PathBuf, programs: &[&str]) -> PathBuf {
    let root = nix::unistd::geteuid().is_root();
    if (enterable(&built) || !root) && !written_by_agents(&built) {
        return built;
    }
    let stamp = |name: &&str| {
        let changed = built.join(name).metadata().and_then(|meta| meta.modified()).ok();
        changed.and_then(|time| time.duration_since(UNIX_EPOCH).ok()).map_or(0, |age| age.as_nanos())
    };
    let stamps: Vec<String> = programs.iter().map(stamp).map(|nanos| format!("{nanos:x}")).collect();
    let copies = closed_place().join(format!("{}-{}", programs[0], stamps.join("-")));
    if !copies.exists() {
        copy_all(programs, &built, &copies).expect("root may write to /var/lib; else set CHAPERONE_BIN_DIR");
    }
    // Used now. Without it they would only be forgotten too early.
    let _ = File::open(&copies).and_then(|directory| directory.set_modified(SystemTime::now()));
    copies
}

/// Copy a program that is to be executed, by another process: a descriptor of ours that writes it could be in a child that another
/// test forks at this instant, and then nobody may execute it (ETXTBSY, execve(2)).
pub fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    let done = Command::new("cp").arg(from).arg(to).status()?;
    if done.success() { Ok(()) } else { Err(std::io::Error::other(format!("cp {}: {done}", from.display()))) }
}

/// Made beside and renamed, because several test programs may do it at once.
fn copy_all(programs: &[&str], from: &Path, to: &Path) -> std::io::Result<()> {
    let place = closed_place();
    std::fs::create_dir_all(&place)?;
    let beside = tempfile::Builder::new().permissions(Permissions::from_mode(0o755)).tempdir_in(&place)?;
    for program in programs {
        copy(&from.join(program), &beside.path().join(program))?;
    }
    forget_old_copies(&place);
    match std::fs::rename(beside.path(), to) {
        Err(e) if !to.exists() => Err(e),
        _ => Ok(()),
    }
}

/// Every build makes new ones, a hundred megabytes each. A directory's time is that of its last use; what else lies here belongs to
/// tests that run.
fn forget_old_copies(place: &Path) {
    let is_copy = |entry: &std::fs::DirEntry| {
        let name = entry.file_name();
        FIRST.iter().any(|first| name.to_string_lossy().starts_with(&format!("{first}-")))
    };
    let is_old = |entry: &std::fs::DirEntry| {
        let changed = entry.metadata().and_then(|meta| meta.modified()).ok();
        changed.and_then(|time| time.elapsed().ok()).is_some_and(|age| age > KEPT)
    };
    for entry in std::fs::read_dir(place).into_iter().flatten().flatten().filter(is_copy).filter(is_old) {
        let _ = std::fs::remove_dir_all(entry.path());
    }
}

/// Where agents do not write by default: root's own place, or the user's cache.
fn closed_place() -> PathBuf {
    if nix::unistd::geteuid().is_root() {
        return SCRATCH.into();
    }
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    cache.or(home).unwrap_or_else(|| SCRATCH.into()).join("chaperone-tests")
}

fn written_by_agents(directory: &Path) -> bool {
    ["/tmp", "/var/tmp", "/dev/shm"].iter().any(|scratch| directory.starts_with(scratch))
}

/// Whether every uid may enter.
fn enterable(directory: &Path) -> bool {
    directory.ancestors().all(|a| a.metadata().is_ok_and(|m| m.permissions().mode() & 0o001 != 0))
}

/// Where cargo put this program's siblings: `target/debug`, one above `deps`.
fn own() -> PathBuf {
    let myself = std::env::current_exe().expect("/proc is mounted");
    let directory = myself.parent().expect("a file lies in a directory");
    if directory.ends_with("deps") { directory.parent().unwrap_or(directory).into() } else { directory.into() }
}

fn build(what: &[&str]) {
    let directory = own();
    let target = directory.parent().expect("cargo's directory has a profile below it");
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["build", "--quiet"]).args(what).arg("--target-dir").arg(target);
    command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    if directory.ends_with("release") {
        command.arg("--release");
    }
    // What cargo tells this program of its own package. Build scripts that look (ring's does) would run anew each time, here and in
    // the build after this one.
    for (name, _) in std::env::vars_os() {
        if ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|own| name.to_string_lossy().starts_with(own)) {
            command.env_remove(name);
        }
    }
    let status = command.status().expect("cargo runs; else set CHAPERONE_BIN_DIR");
    assert!(status.success(), "{what:?} do not build; CHAPERONE_BIN_DIR names other programs to test");
}

/// A program at this path, which sh(1) runs: a supervisor under something else, say.
pub fn script(path: &Path, text: &str) {
    std::fs::write(path, format!("#!/bin/sh\n{text}\n")).expect("our own directory");
    std::fs::set_permissions(path, Permissions::from_mode(0o755)).expect("our own file");
}

/// A scratch directory that an agent may not write by default: not in /tmp, /var/tmp or HOME, where a state
/// directory is refused, and to be entered by any uid.
pub fn scratch() -> tempfile::TempDir {
    let given = std::env::var_os("CHAPERONE_TEST_DIR").map(PathBuf::from);
    let places = [
        given,
        own().parent().map(|target| target.join("tmp")),
        Some(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/tmp").into()),
        Some(closed_place()),
    ];
    let root = nix::unistd::geteuid().is_root();
    for place in places.into_iter().flatten() {
        if std::fs::create_dir_all(&place).is_err() {
            continue;
        }
        let Ok(place) = place.canonicalize() else { continue };
        // Only root's agents have another uid.
        if (root && !enterable(&place)) || written_by_agents(&place) {
            continue;
        }
        if let Ok(made) = tempfile::Builder::new().prefix("test-").tempdir_in(&place) {
            std::fs::set_permissions(made.path(), Permissions::from_mode(0o755)).expect("our own directory");
            return made;
        }
    }
    panic!("no scratch directory outside /tmp that every uid can enter; set CHAPERONE_TEST_DIR");
}
