//! What kind of program a file is, from its first bytes: for messages only.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A kind of program.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Image {
    /// `#!` and this interpreter.
    Script(PathBuf),
    /// ELF for this machine number, with its loader if it is dynamic.
    Elf { machine: u16, loader: Option<PathBuf> },
    /// Nothing that Linux starts.
    Other,
}

impl Image {
    /// From the beginning of a file; little-endian, 64 or 32 bits (elf(5)).
    pub(super) fn of(head: &[u8]) -> Image {
        if let Some(line) = head.strip_prefix(b"#!") {
            let line = line.split(|&byte| byte == b'\n').next().unwrap_or_default().trim_ascii();
            let word = line.split(u8::is_ascii_whitespace).next().unwrap_or_default();
            return Image::Script(PathBuf::from(OsStr::from_bytes(word)));
        }
        match number(head, 18, 2) {
            Some(machine) if head.starts_with(b"\x7fELF") => {
                Image::Elf { machine: machine as u16, loader: loader(head) }
            }
            _ => Image::Other,
        }
    }
}

/// The file in words.
pub(super) fn describe(path: &Path) -> String {
    let mut head = [0u8; 64];
    let length = File::open(path).and_then(|mut file| file.read(&mut head)).unwrap_or(0);
    match Image::of(&head[..length]) {
        Image::Elf { machine, .. } if Some(machine) != machine_here() => {
            format!("it is built for {}; use an image of this node's architecture", machine_name(machine))
        }
        Image::Elf { .. } => "it is damaged".to_owned(),
        Image::Script(_) => "its first line names no usable interpreter".to_owned(),
        Image::Other if length == 0 => "it is empty or cannot be read".to_owned(),
        Image::Other => "it is neither ELF nor does it begin with #!".to_owned(),
    }
}

const fn machine_here() -> Option<u16> {
    if cfg!(target_arch = "x86_64") {
        Some(62)
    } else if cfg!(target_arch = "aarch64") {
        Some(183)
    } else {
        None
    }
}

fn machine_name(machine: u16) -> String {
    match machine {
        3 => "i386".to_owned(),
        40 => "arm".to_owned(),
        62 => "x86_64".to_owned(),
        183 => "aarch64".to_owned(),
        243 => "riscv64".to_owned(),
        other => format!("machine {other}"),
    }
}

fn number(bytes: &[u8], at: usize, length: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(length)?)?;
    Some(bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
}

/// `PT_INTERP` of a 64-bit file.
fn loader(head: &[u8]) -> Option<PathBuf> {
    const PT_INTERP: u64 = 3;
    let table = number(head, 32, 8)? as usize;
    let size = number(head, 54, 2)? as usize;
    let count = number(head, 56, 2)? as usize;
    let header = (0..count)
        .map(|index| table.saturating_add(index * size))
        .find(|&header| number(head, header, 4) == Some(PT_INTERP))?;
    let start = number(head, header + 8, 8)? as usize;
    let path = head.get(start..)?.split(|&byte| byte == 0).next()?;
    Some(PathBuf::from(OsStr::from_bytes(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_names_its_interpreter_without_its_argument() {
        let image = Image::of(b"#! /usr/bin/env python3\nprint()\n");
        assert_eq!(image, Image::Script(PathBuf::from("/usr/bin/env")));
    }

    #[test]
    fn truncated_and_hostile_heads_are_no_reason_to_panic() {
        let mut head = [0xff; 80];
        head[..4].copy_from_slice(b"\x7fELF");
        for length in 0..head.len() {
            Image::of(&head[..length]);
        }
    }
}
