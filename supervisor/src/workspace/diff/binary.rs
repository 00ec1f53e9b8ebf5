//! Contents that are no text: git's binary patch, forward and back (`git help diff`, `--binary`).
//!
//! Each side is deflated and written in base 85, 52 bytes a line, the line's length as its first letter.

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::ZlibEncoder;

const DIGITS: &[u8; 85] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~";

pub(super) fn write(before: &[u8], after: &[u8], out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "GIT binary patch")?;
    literal(after, out)?;
    literal(before, out)
}

fn literal(content: &[u8], out: &mut impl Write) -> io::Result<()> {
    let mut zip = ZlibEncoder::new(Vec::new(), Compression::default());
    zip.write_all(content)?;
    writeln!(out, "literal {}", content.len())?;
    for line in zip.finish()?.chunks(52) {
        out.write_all(&base85(line))?;
    }
    writeln!(out)
}

fn base85(line: &[u8]) -> Vec<u8> {
    // 1 to 26 bytes are A to Z, 27 to 52 are a to z.
    let length = line.len() as u8;
    let mut text = vec![if length <= 26 { b'A' + length - 1 } else { b'a' + length - 27 }];
    for group in line.chunks(4) {
        let mut bytes = [0; 4];
        bytes[..group.len()].copy_from_slice(group);
        let number = u32::from_be_bytes(bytes);
        text.extend([85u32.pow(4), 85u32.pow(3), 85 * 85, 85, 1].map(|place| DIGITS[(number / place % 85) as usize]));
    }
    text.push(b'\n');
    text
}
