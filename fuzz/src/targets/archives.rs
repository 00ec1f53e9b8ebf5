//! A client's `tar.gz`. Inputs are the tar alone or, where they begin as gzip does, the whole.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use supervisor::untrusted;

use crate::Target;

/// Out of the decompressor.
const MOST: u64 = 256 * 1024;

pub(crate) const TARGET: Target = Target { name: "archives", longest: 8192, run, seeds };

fn run(data: &[u8]) {
    // The engine does not find checksums of compressed bytes by itself.
    let gzip = if data.starts_with(&[0x1f, 0x8b]) { data.to_vec() } else { packed(data) };
    let Some(entries) = untrusted::archive(&gzip, MOST) else { return };
    let bytes: u64 = entries.iter().map(|entry| entry.bytes).sum();
    assert!(bytes <= MOST, "{bytes} bytes came out of an archive that may have {MOST}");
    for (index, entry) in entries.iter().enumerate() {
        assert!(inside(entry.path.bytes(), 0), "{:?} is outside", entry.path);
        if let Some(target) = &entry.target {
            let depth = entry.path.names().count() as i64 - 1;
            assert!(inside(target, depth), "the link {:?} points out", entry.path);
        }
        assert!(entries[..index].iter().all(|other| other.target.is_none() || !is_beneath(&other.path, entry)));
    }
}

fn packed(tar: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::none());
    gzip.write_all(tar).expect("it goes into memory");
    gzip.finish().expect("it goes into memory")
}

/// Whether a path from a folder so deep never leaves the root.
fn inside(path: &[u8], mut depth: i64) -> bool {
    !path.starts_with(b"/")
        && path.split(|byte| *byte == b'/').all(|name| {
            depth += match name {
                b"" | b"." => 0,
                b".." => -1,
                _ => 1,
            };
            depth >= 0
        })
}

fn is_beneath(link: &untrusted::Relative, entry: &untrusted::Entry) -> bool {
    entry.path.bytes().strip_prefix(link.bytes()).is_some_and(|rest| rest.starts_with(b"/"))
}

fn seeds() -> Vec<Vec<u8>> {
    let mut tar = Vec::new();
    for (name, kind, link, content) in [
        ("folder/", b'5', "", &b""[..]),
        ("folder/file", b'0', "", b"text"),
        ("folder/link", b'2', "file", b""),
        ("././@LongLink", b'L', "", b"folder/a-long-name\0"),
        ("folder/a-long", b'0', "", b""),
        ("pax", b'x', "", b"18 path=folder/pax\n"),
        ("pax", b'0', "", b"x"),
    ] {
        tar.extend(header(name, kind, link, content.len()));
        tar.extend(content);
        tar.resize(tar.len().next_multiple_of(512), 0);
    }
    tar.resize(tar.len() + 1024, 0);
    vec![packed(&tar), tar]
}

/// As `ustar` has it (pax(1)).
fn header(name: &str, kind: u8, link: &str, size: usize) -> [u8; 512] {
    let mut block = [0; 512];
    let mut put = |at: usize, text: &str| block[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, "0000644");
    put(124, &format!("{size:011o}"));
    put(136, "00000000000");
    put(148, "        ");
    put(157, link);
    put(257, "ustar\x0000");
    block[156] = kind;
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}
