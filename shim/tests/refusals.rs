//! What cannot be started is refused by name: the step, the thing, and what to do.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command as Process;

use common::{Shim, nobody, policy, root, script};
use nix::errno::Errno;
use protocol::control::{Failure, Step};
use protocol::policy::{Access, FileRule, Limit, Policy, Resource};
use tempfile::TempDir;

fn refused(policy: &Policy) -> Failure {
    Shim::start(policy).failed()
}

fn expect(failure: &Failure, step: Step, errno: Errno, words: &[&str]) {
    assert_eq!((failure.step, failure.errno), (step, errno as i32), "{failure:?}");
    for word in words {
        assert!(failure.message.contains(word), "{word:?} in {:?}", failure.message);
    }
}

/// A file with this content and mode.
fn file(content: &[u8], mode: u32) -> (TempDir, String) {
    let directory = tempfile::tempdir_in("/tmp").expect("a directory");
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("its mode");
    let path = directory.path().join("program");
    fs::write(&path, content).expect("a file");
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("its mode");
    let path = path.to_str().expect("a temporary path is UTF-8").to_owned();
    (directory, path)
}

/// The head of a 64-bit ELF file for `machine`, with a loader if one is given.
fn elf(machine: u16, loader: Option<&str>) -> Vec<u8> {
    let mut head = vec![0u8; 4096];
    head[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    head[16] = 2;
    head[18..20].copy_from_slice(&machine.to_le_bytes());
    head[20] = 1;
    head[32] = 64;
    head[52..58].copy_from_slice(&[64, 0, 56, 0, u8::from(loader.is_some()), 0]);
    if let Some(loader) = loader {
        head[64] = 3;
        head[72..74].copy_from_slice(&200u16.to_le_bytes());
        head[96] = loader.len() as u8 + 1;
        head[200..200 + loader.len()].copy_from_slice(loader.as_bytes());
    }
    head
}

#[test]
fn a_missing_program_is_named() {
    expect(&refused(&policy(&["/tmp/not there"])), Step::Exec, Errno::ENOENT, &["/tmp/not there", "no such file"]);
}

#[test]
fn a_program_without_the_executable_bit_is_named() {
    let (_directory, path) = file(b"#!/bin/sh\n", 0o644);
    expect(&refused(&policy(&[&path])), Step::Exec, Errno::EACCES, &[&path, "chmod +x"]);
}

#[test]
fn a_directory_is_named_as_one() {
    expect(&refused(&policy(&["/usr"])), Step::Exec, Errno::EACCES, &["/usr is a directory"]);
}

#[test]
fn a_program_for_another_machine_is_told_from_no_program_at_all() {
    let (machine, name) = if cfg!(target_arch = "x86_64") { (183, "aarch64") } else { (62, "x86_64") };
    let (_directory, path) = file(&elf(machine, None), 0o755);
    expect(&refused(&policy(&[&path])), Step::Exec, Errno::ENOEXEC, &[&path, name]);
    let (_directory, path) = file(b"hello", 0o755);
    expect(&refused(&policy(&[&path])), Step::Exec, Errno::ENOEXEC, &[&path, "neither ELF nor"]);
    let (_directory, path) = file(b"", 0o755);
    expect(&refused(&policy(&[&path])), Step::Exec, Errno::ENOEXEC, &[&path, "empty"]);
}

#[test]
fn a_missing_interpreter_is_named() {
    let (_directory, path) = file(b"#!/no/such/interpreter -x\n", 0o755);
    expect(&refused(&policy(&[&path])), Step::Exec, Errno::ENOENT, &[&path, "/no/such/interpreter"]);
    let machine = if cfg!(target_arch = "x86_64") { 62 } else { 183 };
    let (_directory, path) = file(&elf(machine, Some("/lib/ld-musl-other.so")), 0o755);
    expect(&refused(&policy(&[&path])), Step::Exec, Errno::ENOENT, &[&path, "/lib/ld-musl-other.so"]);
}

#[test]
fn a_program_outside_the_listed_paths_is_refused_by_the_confinement() {
    let mut policy = policy(&["/bin/sh"]);
    policy.files = vec![FileRule { path: "/tmp".into(), access: Access::Write }];
    expect(&refused(&policy), Step::Exec, Errno::EACCES, &["/bin/sh", "confinement"]);
}

#[test]
fn gigantic_arguments_and_environments_are_refused_with_their_size() {
    let big = "x".repeat(100_000);
    let mut policy = policy(&["/bin/true"]);
    policy.program.env = (0..70).map(|n| format!("V{n}={big}").into()).collect();
    expect(&refused(&policy), Step::Exec, Errno::E2BIG, &["7000918 bytes"]);
}

#[test]
fn a_byte_0_inside_an_argument_is_refused() {
    let failure = refused(&policy(&["/bin/echo", "a\0b"]));
    assert_eq!(failure.step, Step::Policy, "{failure:?}");
}

#[test]
fn a_missing_working_directory_is_named() {
    let mut policy = script("true");
    policy.program.cwd = Some("/tmp/no such directory".into());
    expect(&refused(&policy), Step::WorkingDirectory, Errno::ENOENT, &["/tmp/no such directory"]);
}

#[test]
fn the_working_directory_must_be_open_to_the_programs_own_ids() {
    if !root("a directory that only root may enter") {
        return;
    }
    let directory = tempfile::tempdir_in("/tmp").expect("a directory");
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700)).expect("its mode");
    let mut policy = script("true");
    policy.program.cwd = Some(directory.path().into());
    policy.identity = nobody();
    expect(&refused(&policy), Step::WorkingDirectory, Errno::EACCES, &[]);
}

#[test]
fn a_limit_that_the_kernel_refuses_is_named() {
    let mut policy = script("true");
    policy.limits = vec![Limit { resource: Resource::Nofile, soft: 20, hard: 10 }];
    expect(&refused(&policy), Step::Limits, Errno::EINVAL, &["nofile", "20:10"]);
}

#[test]
fn a_path_of_the_confinement_that_is_not_there_is_no_failure() {
    let mut policy = script("true");
    policy.files.push(FileRule { path: "/no/such/path".into(), access: Access::Write });
    assert_eq!(common::run(&policy).exit.code(), 0);
}

#[test]
fn a_policy_that_is_no_policy_is_refused() {
    let mut policy = script("true");
    policy.program.argv.clear();
    assert_eq!(refused(&policy).step, Step::Policy);
}

#[test]
fn a_wrong_command_line_is_a_usage_error() {
    let shim = Path::new(env!("CARGO_BIN_EXE_shim"));
    for arguments in [&[][..], &["x"], &["2"], &["999"], &["3", "4"], &["--help"]] {
        let output = Process::new(shim).args(arguments).output().expect("the shim starts");
        assert_eq!(output.status.code(), Some(64), "{arguments:?}");
        assert!(String::from_utf8_lossy(&output.stderr).starts_with("usage: shim FD"), "{arguments:?}");
    }
    let output = Process::new(shim).arg("--version").output().expect("the shim starts");
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("shim {}\n", env!("CARGO_PKG_VERSION")));
}
