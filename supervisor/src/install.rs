//! `supervisor install DEST`: the init container's way to deliver, where there are no image volumes.
//!
//! Supervisor and shim are copied into DEST, read back, and the copy is run once: a volume that is mounted `noexec` or
//! came out empty fails here, with a message, and not later as a container that cannot start. An older copy is
//! replaced in one step, the shim first, so that a supervisor always finds its own shim.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::mounts;

/// The two programs, open for reading.
#[derive(Debug)]
pub struct Programs {
    supervisor: File,
    shim: File,
}

/// What stopped an installation.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum InstallError {
    #[error("{path} cannot be read; supervisor and shim must lie side by side")]
    Source { path: PathBuf, source: io::Error },
    #[error("directory {path} cannot be made; mount a writable volume there")]
    Directory { path: PathBuf, source: io::Error },
    #[error("{path} cannot be written; DEST must be a directory on a writable volume with some free space")]
    Write { path: PathBuf, source: io::Error },
    #[error("{path} does not read back as it was written; the volume is broken")]
    Differs { path: PathBuf },
    #[error("{path} cannot be run: {mount} is mounted noexec; use an image volume, or a volume that allows execution")]
    Noexec { path: PathBuf, mount: PathBuf },
    #[error("{path} cannot be run")]
    Run { path: PathBuf, source: io::Error },
    #[error("{path} was run and failed: {said}")]
    Failed { path: PathBuf, said: String },
}

impl Programs {
    /// The running supervisor and the shim beside it. `proc` is `/proc`.
    pub fn running(proc: &Path) -> Result<Programs, InstallError> {
        let exe = proc.join("self/exe");
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| InstallError::Source { path, source }
        };
        let path = std::fs::read_link(&exe).map_err(failed(&exe))?;
        let shim = path.with_file_name("shim");
        Ok(Programs {
            // By the kernel's own reference: right even if the path has a newer file by now.
            supervisor: File::open(&exe).map_err(failed(&exe))?,
            shim: File::open(&shim).map_err(failed(&shim))?,
        })
    }

    /// Any two files.
    pub fn open(supervisor: &Path, shim: &Path) -> Result<Programs, InstallError> {
        let open =
            |path: &Path| File::open(path).map_err(|source| InstallError::Source { path: path.to_owned(), source });
        Ok(Programs { supervisor: open(supervisor)?, shim: open(shim)? })
    }
}

/// Copies both into the directory `dest` and proves that they are whole and can run. Answers what is there now.
pub fn install(mut programs: Programs, dest: &Path) -> Result<Vec<PathBuf>, InstallError> {
    std::fs::create_dir_all(dest).map_err(|source| InstallError::Directory { path: dest.to_owned(), source })?;
    let shim = copy(&mut programs.shim, dest, "shim")?;
    let supervisor = copy(&mut programs.supervisor, dest, "supervisor")?;
    try_out(&supervisor)?;
    Ok(vec![supervisor, shim])
}

fn copy(from: &mut File, dest: &Path, name: &str) -> Result<PathBuf, InstallError> {
    let path = dest.join(name);
    let temporary = dest.join(format!(".{name}.new"));
    // Left by an installation that was cut off; an init container has DEST to itself.
    let _ = std::fs::remove_file(&temporary);
    let failed = |source| InstallError::Write { path: path.clone(), source };
    let written = write(from, &temporary).and_then(|digest| {
        std::fs::rename(&temporary, &path)?;
        File::open(dest)?.sync_all()?;
        Ok(digest)
    });
    if written.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    let digest = written.map_err(failed)?;
    let read_back = File::open(&path).and_then(|mut file| pump(&mut file, &mut io::sink())).map_err(failed)?;
    if read_back != digest {
        return Err(InstallError::Differs { path });
    }
    Ok(path)
}

/// Answers the digest of what was read.
fn write(from: &mut File, to: &Path) -> io::Result<[u8; 32]> {
    let mut file = File::options().write(true).create_new(true).mode(0o600).custom_flags(libc::O_NOFOLLOW).open(to)?;
    let digest = pump(from, &mut file)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o555))?;
    file.sync_all()?;
    Ok(digest)
}

fn pump(from: &mut impl Read, to: &mut impl Write) -> io::Result<[u8; 32]> {
    let mut hash = Sha256::new();
    let mut piece = vec![0; 256 * 1024];
    loop {
        match from.read(&mut piece) {
            Ok(0) => return Ok(hash.finalize().into()),
            Ok(count) => {
                hash.update(&piece[..count]);
                to.write_all(&piece[..count])?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Runs `supervisor --version`, with none of this process's settings.
fn try_out(path: &Path) -> Result<(), InstallError> {
    let run = || Command::new(path).arg("--version").env_clear().stdin(Stdio::null()).output();
    let mut output = run();
    for _ in 0..100 {
        // Whoever forked while the copy was being written holds it open until its own exec: execve(2), ETXTBSY.
        if !matches!(&output, Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy) {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
        output = run();
    }
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let words = String::from_utf8_lossy(&output.stderr);
            let first = words.lines().next().unwrap_or_default();
            Err(InstallError::Failed { path: path.to_owned(), said: format!("{}: {first}", output.status) })
        }
        Err(source) => Err(explain(path, source)),
    }
}

/// `execve(2)` answers EACCES for a mount without exec, and the table of mounts tells which.
fn explain(path: &Path, source: io::Error) -> InstallError {
    let table = mounts::read(Path::new("/proc")).unwrap_or_default();
    let mount = mounts::lookup(&table, &mounts::resolve(path));
    match mount.filter(|mount| mount.has("noexec") && source.kind() == io::ErrorKind::PermissionDenied) {
        Some(mount) => InstallError::Noexec { path: path.to_owned(), mount: mount.point.clone() },
        None => InstallError::Run { path: path.to_owned(), source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "#!/bin/sh\n[ \"$1\" = --version ] && [ -z \"$CARGO_PKG_NAME\" ]\n";

    struct Scratch {
        dir: tempfile::TempDir,
    }

    impl Scratch {
        fn new(supervisor: &str) -> Scratch {
            let scratch = Scratch { dir: tempfile::tempdir().expect("scratch") };
            std::fs::write(scratch.path("supervisor"), supervisor).expect("written");
            std::fs::write(scratch.path("shim"), "shim").expect("written");
            scratch
        }

        fn path(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        fn install(&self, dest: &Path) -> Result<Vec<PathBuf>, InstallError> {
            install(Programs::open(&self.path("supervisor"), &self.path("shim"))?, dest)
        }
    }

    fn names(dir: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(dir).expect("lists");
        let mut names: Vec<_> =
            entries.map(|entry| entry.expect("entry").file_name().into_string().expect("ascii")).collect();
        names.sort();
        names
    }

    #[test]
    fn both_programs_are_there_executable_and_alone() {
        let scratch = Scratch::new(GOOD);
        let dest = scratch.path("a/b");
        let installed = scratch.install(&dest).expect("installs");
        assert_eq!(installed, [dest.join("supervisor"), dest.join("shim")]);
        assert_eq!(names(&dest), ["shim", "supervisor"]);
        for path in installed {
            assert_eq!(path.metadata().expect("there").permissions().mode() & 0o7777, 0o555);
        }
    }

    #[test]
    fn an_older_copy_and_the_rest_of_a_cut_off_one_are_replaced() {
        let scratch = Scratch::new(GOOD);
        let dest = scratch.path("dest");
        scratch.install(&dest).expect("installs");
        std::fs::write(dest.join(".supervisor.new"), "half").expect("written");
        std::fs::write(scratch.path("shim"), "newer shim").expect("written");
        let held = File::open(dest.join("shim")).expect("there");
        scratch.install(&dest).expect("installs again");
        assert_eq!(std::fs::read(dest.join("shim")).expect("there"), b"newer shim");
        assert_eq!(io::read_to_string(held).expect("reads"), "shim", "who has the old one open keeps it");
        assert_eq!(names(&dest), ["shim", "supervisor"]);
    }

    #[test]
    fn a_mount_without_exec_is_named() {
        let scratch = Scratch::new(GOOD);
        crate::mounts::tests::on_small_disk(64 * 1024, |disk| {
            use nix::mount::{MsFlags, mount};
            let nothing = None::<&str>;
            mount(nothing, disk, nothing, MsFlags::MS_REMOUNT | MsFlags::MS_NOEXEC, nothing).expect("remounts");
            let error = scratch.install(&disk.join("bin")).expect_err("cannot run there");
            assert!(matches!(&error, InstallError::Noexec { mount, .. } if mount == disk), "{error}");
        });
    }

    #[test]
    fn a_noexec_mount_is_told_from_other_refusals() {
        let refused = || io::Error::from(io::ErrorKind::PermissionDenied);
        assert!(matches!(explain(Path::new("/proc/self/exe"), refused()), InstallError::Run { .. }));
        let table = mounts::read(Path::new("/proc")).expect("linux");
        if let Some(mount) = table.iter().find(|mount| mount.has("noexec") && mount.point.is_dir()) {
            let found = explain(&mount.point.join("x"), refused());
            assert!(matches!(found, InstallError::Noexec { .. }), "{found}");
        }
    }

    #[test]
    fn a_copy_that_cannot_run_is_reported_with_its_own_words() {
        let scratch = Scratch::new("#!/bin/sh\necho no such luck >&2\nexit 3\n");
        let error = scratch.install(&scratch.path("dest")).expect_err("fails").to_string();
        assert!(error.contains("no such luck") && error.contains('3'), "{error}");
        let scratch = Scratch::new("\u{7f}ELF of another machine");
        assert!(matches!(scratch.install(&scratch.path("dest")), Err(InstallError::Run { .. })));
    }

    #[test]
    fn a_missing_shim_and_an_unwritable_place_are_named() {
        let scratch = Scratch::new(GOOD);
        std::fs::remove_file(scratch.path("shim")).expect("ours");
        assert!(matches!(scratch.install(&scratch.path("dest")), Err(InstallError::Source { .. })));
        let scratch = Scratch::new(GOOD);
        let file = scratch.path("supervisor");
        assert!(matches!(scratch.install(&file), Err(InstallError::Directory { .. })));
        assert!(matches!(scratch.install(Path::new("/proc")), Err(InstallError::Write { .. })));
    }

    #[test]
    fn a_full_disk_leaves_no_part_of_a_program() {
        let scratch = Scratch::new(GOOD);
        std::fs::write(scratch.path("shim"), vec![b'x'; 1 << 20]).expect("written");
        crate::mounts::tests::on_small_disk(64 * 1024, |disk| {
            let dest = disk.join("bin");
            assert!(matches!(scratch.install(&dest), Err(InstallError::Write { .. })));
            assert!(names(&dest).is_empty());
        });
    }

    #[test]
    fn the_running_program_is_found_by_the_kernel_s_reference() {
        // The test's own binary has no shim beside it, which is the first thing that an operator would see.
        let error = Programs::running(Path::new("/proc")).expect_err("no shim here").to_string();
        assert!(error.contains("/shim") && error.contains("side by side"), "{error}");
    }
}
