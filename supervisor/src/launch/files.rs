//! What a program may do with which path.
//!
//! Landlock only allows, so a secret beneath a readable directory is kept out by allowing the directory's other
//! entries instead of the directory. Directories on the way to a hidden path are opened up like that at each launch;
//! what appears in them later stays closed for the running program.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use protocol::policy::{Access, ExecutionClass, FileRule};

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

/// One hidden thing: by path, and by identity, since a volume may be mounted in two places.
struct Hidden {
    paths: BTreeSet<PathBuf>,
    identities: BTreeSet<(u64, u64)>,
}

impl Hidden {
    fn new(paths: &[PathBuf]) -> Hidden {
        let mut hidden = Hidden { paths: BTreeSet::new(), identities: BTreeSet::new() };
        for path in paths {
            hidden.add(path);
            if let Ok(real) = path.canonicalize() {
                hidden.add(&real);
                hidden.add_projected_volume(&real);
            }
        }
        hidden
    }

    fn add(&mut self, path: &Path) {
        self.paths.insert(path.into());
        if let Ok(meta) = path.metadata() {
            self.identities.insert((meta.dev(), meta.ino()));
        }
    }

    /// The kubelet rotates a projected token by making a new timestamped directory beside `..data`: what is hidden
    /// is the volume, or the next token would be readable.
    fn add_projected_volume(&mut self, real: &Path) {
        let volume = real.ancestors().skip(1).find(|a| a.join("..data").symlink_metadata().is_ok());
        if let Some(volume) = volume {
            self.add(volume);
        }
    }

    fn is(&self, path: &Path) -> bool {
        self.paths.contains(path)
            || path.metadata().is_ok_and(|meta| self.identities.contains(&(meta.dev(), meta.ino())))
    }

    fn has_beneath(&self, directory: &Path) -> bool {
        self.paths.iter().any(|hidden| hidden != directory && hidden.starts_with(directory))
    }
}

/// The rules, in the order in which they matter to a reader: readable tree, devices, writable paths.
pub fn rules(config: &super::Config, home: Option<&Path>) -> Vec<FileRule> {
    let hidden = Hidden::new(&config.hide);
    let mut rules = Vec::new();
    if config.read_nothing_else {
        let own = std::env::current_exe().ok();
        rules.extend(LIBRARIES.iter().map(Path::new).chain(own.as_deref()).map(|path| rule(path, Access::Read)));
    } else {
        read_except(Path::new("/"), &hidden, &mut rules);
    }
    for path in &config.read {
        add(path.canonicalize().ok(), Access::Read, &hidden, &mut rules);
    }
    rules.extend(DEVICES.iter().map(|d| rule(Path::new(d), Access::Device)));
    let writable = writable(config, home);
    for path in &writable {
        let real = place::real(path, &writable).filter(|real| place::may_be_written(real));
        add(real, Access::Write, &hidden, &mut rules);
    }
    rules
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

fn read_except(directory: &Path, hidden: &Hidden, rules: &mut Vec<FileRule>) {
    let whole = directory != Path::new("/") && !hidden.has_beneath(directory);
    if whole {
        rules.push(rule(directory, Access::Read));
        return;
    }
    let Ok(entries) = directory.read_dir() else { return };
    let mut entries: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    entries.sort();
    for entry in entries {
        // A symlink needs no rule: Landlock looks at where it leads. /dev is a list of its own.
        let Ok(kind) = entry.symlink_metadata().map(|m| m.file_type()) else { continue };
        if kind.is_symlink() || entry == Path::new("/dev") || hidden.is(&entry) {
            continue;
        }
        if kind.is_dir() {
            read_except(&entry, hidden, rules);
        } else if kind.is_file() {
            rules.push(rule(&entry, Access::Read));
        }
    }
}

fn rule(path: &Path, access: Access) -> FileRule {
    FileRule { path: path.into(), access }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_rules(directory: &Path, hide: &[PathBuf]) -> Vec<PathBuf> {
        let mut rules = Vec::new();
        read_except(directory, &Hidden::new(hide), &mut rules);
        rules.into_iter().map(|rule| PathBuf::from(rule.path)).collect()
    }

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
        let other: Vec<FileRule> = rules(&config, Some(Path::new("/home")))
            .into_iter()
            .filter(|rule| !known.contains(&Path::new(&rule.path)))
            .collect();
        assert_eq!(other, [rule(&real.join("a"), Access::Read)]);
    }

    #[test]
    fn the_siblings_of_a_hidden_path_are_allowed_and_the_path_is_not() {
        let dir = tree();
        let root = dir.path().canonicalize().expect("real");
        let rules = read_rules(&root, &[root.join("a/secret"), root.join("a/token")]);
        assert_eq!(rules, [root.join("a/public"), root.join("b")]);
    }

    #[test]
    fn a_hidden_path_is_found_behind_a_symlink() {
        let dir = tree();
        let root = dir.path().canonicalize().expect("real");
        std::os::unix::fs::symlink(root.join("a"), root.join("link")).expect("symlink");
        let rules = read_rules(&root, &[root.join("link/token")]);
        assert_eq!(rules, [root.join("a/public"), root.join("a/secret"), root.join("b")]);
    }

    #[test]
    fn the_whole_volume_of_a_projected_token_is_hidden() {
        let dir = tree();
        let root = dir.path().canonicalize().expect("real");
        let volume = root.join("tokens");
        std::fs::create_dir_all(volume.join("..2026_01")).expect("mkdir");
        std::fs::write(volume.join("..2026_01/token"), "t").expect("write");
        std::os::unix::fs::symlink("..2026_01", volume.join("..data")).expect("symlink");
        std::os::unix::fs::symlink("..data/token", volume.join("token")).expect("symlink");
        let rules = read_rules(&root, &[volume.join("token")]);
        assert_eq!(rules, [root.join("a"), root.join("b")]);
    }
}
