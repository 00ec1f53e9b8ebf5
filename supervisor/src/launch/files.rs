//! What a program may do with which path.
//!
//! Landlock only allows, so a secret beneath a readable directory is kept out by allowing the directory's other
//! entries instead of the directory. Directories on the way to a hidden path are opened up like that for each launch
//! (`readable.rs` remembers what was found); what appears in them later stays closed for the running program.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use protocol::policy::{Access, ExecutionClass, FileRule};

use super::hidden::Hidden;
use super::readable::Remembered;
use super::{Scratch, place};

/// Device nodes that programs need; the rest of /dev stays closed.
const DEVICES: &[&str] = &[
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/tty",
    "/dev/ptmx",
    "/dev/pts",
    "/dev/console",
];

/// What a dynamically linked program is made of; ours are static where they are shipped.
const LIBRARIES: &[&str] = &["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache"];

/// Writable for everybody, as without a supervisor. POSIX queues are files of /dev/mqueue for Landlock.
const SCRATCH: &[&str] = &["/tmp", "/var/tmp", "/dev/shm", "/dev/mqueue"];

/// Every path that a child of this configuration may write.
pub fn writable(config: &super::Config, home: Option<&Path>) -> Vec<PathBuf> {
    let workspace = (config.class != ExecutionClass::Readonly).then_some(config.workspace.as_path());
    let configured = config.write.iter().map(PathBuf::as_path);
    let home = home.filter(|home| *home != Path::new("/"));
    let scratch: &[&str] = match config.scratch {
        Scratch::Shared => SCRATCH,
        Scratch::Home => &["/dev/shm"],
        Scratch::None => &[],
    };
    let home = home.filter(|_| config.scratch != Scratch::None);
    scratch.iter().map(Path::new).chain(home).chain(workspace).chain(configured).map(PathBuf::from).collect()
}

/// What a program may do with which path.
pub struct Files {
    /// In the order in which they matter to a reader: readable tree, devices, writable paths.
    pub rules: Vec<FileRule>,
    /// The readable tree is left to the shim, whose zygote holds it open.
    pub held: bool,
}

/// For a shim whose zygote holds open what was found with the number `held`.
///
/// # Errors
///
/// Where what it may read, or what is hidden, cannot be looked at now.
pub fn files(
    config: &super::Config,
    home: Option<&Path>,
    remembered: &Remembered,
    held: Option<u64>,
) -> io::Result<Files> {
    let mut rules = Vec::new();
    let mut is_held = false;
    let hidden = if config.read_nothing_else {
        let own = std::env::current_exe().ok();
        rules.extend(LIBRARIES.iter().map(Path::new).chain(own.as_deref()).map(|path| rule(path, Access::Read)));
        Arc::new(Hidden::new(&config.hide)?)
    } else {
        let readable = remembered.readable(&config.hide)?;
        is_held = readable.number.is_some() && readable.number == held;
        rules.extend(readable.paths.iter().filter(|_| !is_held).map(|path| rule(path, Access::Read)));
        readable.hidden
    };
    for path in &config.read {
        add(path.canonicalize().ok(), Access::Read, &hidden, &mut rules);
    }
    rules.extend(DEVICES.iter().map(|d| rule(Path::new(d), Access::Device)));
    let writable = writable(config, home);
    for real in place::real(&writable) {
        add(real.filter(|real| place::may_be_written(real)), Access::Write, &hidden, &mut rules);
    }
    Ok(Files { rules, held: is_held })
}

/// The real path, unless it is the root (a HOME of `/` is what a uid without a passwd entry gets, and
/// means that there is no home) or would take a hidden path with it.
fn add(real: Option<PathBuf>, access: Access, hidden: &Hidden, rules: &mut Vec<FileRule>) {
    let Some(real) = real.filter(|real| real != Path::new("/")) else { return };
    if hidden.is(&real) || hidden.has_beneath(&real) {
        return;
    }
    rules.push(rule(&real, access));
}

fn rule(path: &Path, access: Access) -> FileRule {
    FileRule { path: path.into(), access }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("tempdir");
        for name in ["a/secret", "a/public", "b"] {
            std::fs::create_dir_all(dir.path().join(name)).expect("mkdir");
        }
        std::fs::write(dir.path().join("a/token"), "t").expect("write");
        dir
    }

    /// Every path that a worker for `root` may open.
    #[test]
    fn a_worker_can_open_its_root_its_program_and_libraries_and_nothing_else() {
        let dir = tree();
        let sources = crate::config::Sources::gather(Default::default(), Vec::new());
        let mut config = crate::launch::Config::read(&mut crate::config::Reader::new(&sources), &[dir.path().into()]);
        config.read_nothing_else = true;
        config.scratch = Scratch::None;
        config.class = ExecutionClass::Readonly;
        // Beneath a hidden path, as a task's directories are.
        config.read = vec![dir.path().join("a")];
        let own = std::env::current_exe().expect("a program");
        let known: Vec<&Path> = LIBRARIES.iter().chain(DEVICES).map(Path::new).chain([own.as_path()]).collect();
        let real = dir.path().canonicalize().expect("real");
        let other: Vec<FileRule> = files(&config, Some(Path::new("/home")), &Remembered::new(), None)
            .expect("they can be looked at")
            .rules
            .into_iter()
            .filter(|rule| !known.contains(&Path::new(&rule.path)))
            .collect();
        assert_eq!(other, [rule(&real.join("a"), Access::Read)]);
    }
}
