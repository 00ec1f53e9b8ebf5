//! Which file `argv[0]` means, and whether it can be one at all: said before anything is started.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};

/// The program cannot be what was meant.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// No such file, or not in `PATH`.
    #[error("program `{}` was not found{}; give a path that exists in this image", name.display(), place(.searched))]
    Missing {
        /// As written.
        name: PathBuf,
        /// The `PATH` that was searched.
        searched: Option<OsString>,
    },
    /// It is there and cannot be executed.
    #[error("program `{}` cannot be executed: {source}; check its mode and that its mount is not noexec", path.display())]
    NotExecutable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A directory or the like.
    #[error("program `{}` is not a file", path.display())]
    NotAFile {
        /// What it is.
        path: PathBuf,
    },
    /// What it may read, and what is hidden from it, cannot be looked at now.
    #[error("the paths of its confinement cannot be looked at: {0}; nothing is started until they can")]
    Paths(#[source] io::Error),
    /// argv or an argument cannot be passed to a program.
    #[error("the program's arguments {0}")]
    Arguments(&'static str),
}

fn place(searched: &Option<OsString>) -> String {
    searched.as_ref().map(|p| format!(" in PATH ({})", p.display())).unwrap_or_default()
}

/// The file to execute: a name without a slash is looked up in `path`, as `execvp(3)` does.
pub fn resolve(name: &OsStr, cwd: Option<&Path>, path: Option<&OsStr>) -> Result<PathBuf, ProgramError> {
    if name.is_empty() {
        return Err(ProgramError::Arguments("begin with an empty name"));
    }
    if name.as_bytes().contains(&b'/') {
        let file = cwd.unwrap_or(Path::new("")).join(name);
        return usable(&file)?.ok_or_else(|| ProgramError::Missing { name: name.into(), searched: None });
    }
    let searched = path.filter(|p| !p.is_empty()).unwrap_or(OsStr::new("/usr/local/bin:/usr/bin:/bin"));
    let mut refused = None;
    for directory in std::env::split_paths(searched) {
        match usable(&directory.join(name)) {
            Ok(Some(file)) => return Ok(file),
            Ok(None) => {}
            // Go on, as execvp(3) does after EACCES: a later directory may have a good one.
            Err(error) => refused = Some(error),
        }
    }
    Err(refused.unwrap_or_else(|| ProgramError::Missing { name: name.into(), searched: Some(searched.into()) }))
}

fn usable(file: &Path) -> Result<Option<PathBuf>, ProgramError> {
    match std::fs::metadata(file) {
        Ok(meta) if meta.is_file() => {}
        Ok(_) => return Err(ProgramError::NotAFile { path: file.into() }),
        Err(_) => return Ok(None),
    }
    match access(file, AccessFlags::X_OK) {
        Ok(()) => std::path::absolute(file).map(Some).map_err(|source| not_executable(file, source)),
        Err(errno) => Err(not_executable(file, errno.into())),
    }
}

fn not_executable(file: &Path, source: io::Error) -> ProgramError {
    ProgramError::NotExecutable { path: file.into(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_name_is_searched_in_path_and_a_refused_file_does_not_hide_a_good_one() {
        let (first, second) = (tempfile::tempdir().expect("tempdir"), tempfile::tempdir().expect("tempdir"));
        std::fs::write(first.path().join("tool"), "").expect("write");
        let good = second.path().join("tool");
        std::fs::write(&good, "").expect("write");
        std::fs::set_permissions(&good, PermissionsExt::from_mode(0o755)).expect("chmod");
        let path = std::env::join_paths([first.path(), second.path()]).expect("join");
        assert_eq!(resolve("tool".as_ref(), None, Some(&path)).expect("found"), good);
        let only_bad = resolve("tool".as_ref(), None, Some(first.path().as_os_str()));
        assert!(matches!(only_bad, Err(ProgramError::NotExecutable { .. })), "{only_bad:?}");
    }

    #[test]
    fn a_missing_program_is_named_with_where_it_was_looked_for() {
        let error = resolve("no-such".as_ref(), None, Some("/nowhere".as_ref())).expect_err("missing");
        assert_eq!(
            error.to_string(),
            "program `no-such` was not found in PATH (/nowhere); give a path that exists in this image"
        );
    }

    #[test]
    fn a_relative_path_is_taken_from_the_working_directory() {
        let dir = tempfile::tempdir().expect("tempdir");
        assert!(resolve("./x".as_ref(), Some(dir.path()), None).is_err());
        assert!(matches!(resolve("/".as_ref(), None, None), Err(ProgramError::NotAFile { .. })));
    }
}
