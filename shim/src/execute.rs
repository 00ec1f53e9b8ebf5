//! The last step: `execve`, and when the kernel refuses, what is wrong with the file.
//!
//! `execve` has few errors for many mistakes: ENOENT is also a missing interpreter, ENOEXEC also another
//! architecture, EACCES also a path outside the confinement. The file is looked at only after a refusal, by the
//! confined child, which can open nothing that the program could not.

use std::convert::Infallible;
use std::ffi::{CString, OsStr, OsString};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::execve;
use protocol::control::{Failure, Step};
use protocol::policy::Program;

use crate::failure::failed;

mod image;

use image::Image;

/// Path, argv and environment as `execve` takes them.
pub struct Execution {
    path: CString,
    argv: Vec<CString>,
    env: Vec<CString>,
}

impl Execution {
    /// Refuses what no program can be given: no argv at all, a relative path, a byte 0 inside.
    pub fn new(program: &Program) -> Result<Execution, Failure> {
        if program.argv.is_empty() || !Path::new(&program.path).is_absolute() {
            return Err(failed(Step::Policy, 0, "the policy has no argv, or the program's path is not absolute"));
        }
        Ok(Execution {
            path: text(&program.path, "the program's path")?,
            argv: program.argv.iter().map(|argument| text(argument, "an argument")).collect::<Result<_, _>>()?,
            env: program.env.iter().map(|entry| text(entry, "an environment entry")).collect::<Result<_, _>>()?,
        })
    }

    /// Become the program.
    pub fn run(&self) -> Result<Infallible, Failure> {
        match execve(&self.path, &self.argv, &self.env) {
            Ok(never) => match never {},
            Err(errno) => Err(failed(Step::Exec, errno as i32, self.explain(errno))),
        }
    }

    fn explain(&self, errno: Errno) -> String {
        let path = PathBuf::from(OsString::from_vec(self.path.as_bytes().to_vec()));
        let shown = path.display();
        match errno {
            Errno::ENOENT if fs::symlink_metadata(&path).is_err() => {
                format!("{shown}: there is no such file; give a path that exists in this image")
            }
            Errno::ENOENT => match interpreter(&path) {
                Some(loader) => format!(
                    "{shown} exists, but its interpreter or loader {} does not: install it in this image or use a \
                     static program",
                    loader.display()
                ),
                None => format!("{shown}: the file, or the interpreter that it names, does not exist"),
            },
            Errno::EACCES => self.explain_denied(&path),
            Errno::ENOEXEC => format!("{shown} is not a program for this machine: {}", image::describe(&path)),
            Errno::E2BIG => format!(
                "argv and environment together are {} bytes; the kernel takes a quarter of the stack limit, at most 6 \
                 MiB, and 128 KiB for one entry (execve(2)): make them smaller, or pass a file",
                self.size()
            ),
            Errno::ETXTBSY => format!("{shown} is open for writing: it is still being copied"),
            Errno::EAGAIN => format!("{shown}: the limit of processes (nproc) is reached for this user"),
            Errno::ENOMEM => format!("{shown}: not enough memory to load it; raise the memory or address-space limit"),
            Errno::ELOOP => format!("{shown}: too many symbolic links, or interpreters of interpreters"),
            other => format!("{shown}: {}", other.desc()),
        }
    }

    fn explain_denied(&self, path: &Path) -> String {
        let shown = path.display();
        match fs::metadata(path) {
            Err(error) => format!("{shown}: {error} on the way to it"),
            Ok(file) if file.is_dir() => format!("{shown} is a directory"),
            Ok(file) if file.permissions().mode() & 0o111 == 0 => {
                format!("{shown} is not executable: chmod +x it")
            }
            Ok(_) if statvfs(path).is_ok_and(|mount| mount.flags().contains(FsFlags::ST_NOEXEC)) => {
                format!("{shown} lies on a file system that is mounted noexec")
            }
            Ok(_) => format!(
                "{shown} cannot be executed: its mode, or that of its interpreter, does not let this user, or the \
                 confinement's list of paths does not cover it or its interpreter"
            ),
        }
    }

    fn size(&self) -> usize {
        self.argv.iter().chain(&self.env).map(|entry| entry.as_bytes_with_nul().len() + size_of::<usize>()).sum()
    }
}

fn text(bytes: &OsStr, what: &str) -> Result<CString, Failure> {
    CString::new(bytes.as_bytes()).map_err(|_| failed(Step::Policy, 0, format!("{what} contains a byte 0")))
}

/// The interpreter that a file names, if that can be read.
fn interpreter(path: &Path) -> Option<PathBuf> {
    let mut head = Vec::new();
    File::open(path).ok()?.take(64 * 1024).read_to_end(&mut head).ok()?;
    named(&head)
}

/// The one that these first bytes of a file name.
pub(crate) fn named(head: &[u8]) -> Option<PathBuf> {
    match Image::of(head) {
        Image::Script(interpreter) => Some(interpreter),
        Image::Elf { loader, .. } => loader,
        Image::Other => None,
    }
}
