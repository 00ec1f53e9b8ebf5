//! The first bytes of a program that the kernel refuses: which interpreter or loader it names, for the words of the refusal.

use std::os::unix::ffi::OsStrExt;

use super::contains;
use crate::Target;

pub(crate) const TARGET: Target = Target { name: "programs", longest: 4096, run, seeds };

fn run(data: &[u8]) {
    let Some(path) = shim::untrusted::interpreter(data) else { return };
    let path = path.as_os_str().as_bytes();
    assert!(contains(data, path), "a path that does not stand there");
    assert!(!path.contains(&if data.starts_with(b"#!") { b'\n' } else { 0 }), "it goes on behind its end");
}

fn seeds() -> Vec<Vec<u8>> {
    // elf(5): a header with one segment, which names a loader.
    let mut program = vec![0; 64 + 56];
    let mut put = |at: usize, bytes: &[u8]| program[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"\x7fELF\x02\x01\x01");
    put(18, &62_u16.to_le_bytes());
    put(32, &64_u64.to_le_bytes());
    put(54, &56_u16.to_le_bytes());
    put(56, &1_u16.to_le_bytes());
    put(64, &3_u32.to_le_bytes());
    put(72, &120_u64.to_le_bytes());
    program.extend(b"/lib64/ld-linux-x86-64.so.2\0");
    vec![b"#! /usr/bin/env python3\nprint()\n".to_vec(), b"#!\n".to_vec(), program]
}
