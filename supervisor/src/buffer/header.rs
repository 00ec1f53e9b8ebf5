//! The first block of a segment: what it is, and where its numbers begin.
//!
//! It stands twice, at 0 and at [`COPY`], in different sectors, so that one damaged byte or one torn sector leaves the
//! segment readable. It is written once, before the first frame.
//!
//! | offset | bytes | header |
//! |---|---|---|
//! | 0 | 8 | `CHAPBUF` and a newline |
//! | 8 | 4 | version of the format, 1 |
//! | 12 | 1 | class: 1 lifecycle, 2 results, 3 metrics, 4 logs |
//! | 13 | 1 | reason of the gap before `base`: 0 none, 1 evicted, 2 budget, 3 damaged, 4 disk, 5 crash |
//! | 14 | 2 | zero |
//! | 16 | 16 | log epoch |
//! | 32 | 16 | boot id of the kernel that ran when it was written |
//! | 48 | 8 | salt |
//! | 56 | 8 | ordinal: which segment of this buffer, over all classes |
//! | 64 | 8 | `from`: the first number that this segment tells of |
//! | 72 | 8 | `base`: the first that it can hold; `from` to `base - 1` is a gap |
//! | 80 | 8 | bytes of that gap |
//! | 88 | 4 | CRC32C of everything above |

use protocol::session::Class;

use super::Reason;
use super::record::BLOCK;

/// What this program writes, and the newest that it reads.
pub(super) const VERSION: u32 = 1;
/// Where the second copy stands.
const COPY: usize = 2048;
const MAGIC: &[u8; 8] = b"CHAPBUF\n";
const SUM: usize = 88;
const LENGTH: usize = SUM + 4;
/// Numbers beyond this are damage: so many cannot be given out.
const MOST: i64 = i64::MAX / 4;

/// A header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) class: Class,
    pub(super) reason: Option<Reason>,
    pub(super) epoch: [u8; 16],
    pub(super) boot: [u8; 16],
    pub(super) salt: u64,
    pub(super) ordinal: u64,
    pub(super) from: i64,
    pub(super) base: i64,
    pub(super) bytes: u64,
}

/// Why a first block is not a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotAHeader {
    /// A later program wrote it.
    Newer(u32),
    /// Neither copy is whole.
    Damaged,
}

impl Header {
    /// The first block of the file.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(BLOCK as usize);
        bytes.extend(MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend([class_code(self.class), self.reason.map_or(0, Reason::code), 0, 0]);
        bytes.extend(self.epoch);
        bytes.extend(self.boot);
        for number in [self.salt, self.ordinal, self.from as u64, self.base as u64, self.bytes] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
        let copy = bytes.clone();
        bytes.resize(COPY, 0);
        bytes.extend(copy);
        bytes.resize(BLOCK as usize, 0);
        bytes
    }

    /// From a first block, by whichever copy is whole.
    pub(super) fn decode(block: &[u8]) -> Result<Header, NotAHeader> {
        let copies = [block, block.get(COPY..).unwrap_or_default()];
        let read = copies.map(decode_copy);
        let whole = read.iter().find_map(|copy| copy.clone().ok());
        whole.ok_or_else(|| read.into_iter().find_map(newer).unwrap_or(NotAHeader::Damaged))
    }

    /// The name of its file. The base is in it too, so that numbers are safe where the header is lost.
    pub(super) fn name(&self) -> String {
        format!("{}-{:016x}-{:016x}.seg", self.class.name(), self.ordinal, self.base)
    }
}

/// What the name of a file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) class: Class,
    pub(super) ordinal: u64,
    pub(super) base: i64,
    /// It was put aside.
    pub(super) bad: bool,
}

impl Name {
    /// The name of a segment, or of one that was put aside.
    pub(super) fn parse(name: &str) -> Option<Name> {
        let (stem, bad) = match name.strip_suffix(".seg") {
            Some(stem) => (stem, false),
            None => (name.strip_suffix(".bad")?, true),
        };
        let mut parts = stem.split('-');
        let class = Class::from_name(parts.next()?)?;
        let mut number = || parts.next().filter(|p| p.len() == 16).and_then(|p| u64::from_str_radix(p, 16).ok());
        let (ordinal, base) = (number()?, number()?);
        let base = i64::try_from(base).ok().filter(|base| (1..=MOST).contains(base))?;
        (ordinal < u64::MAX / 4 && parts.next().is_none()).then_some(Name { class, ordinal, base, bad })
    }
}

/// The name under which a damaged segment is kept.
pub(super) fn aside(name: &str) -> String {
    format!("{}.bad", name.trim_end_matches(".seg"))
}

fn newer(copy: Result<Header, NotAHeader>) -> Option<NotAHeader> {
    copy.err().filter(|reason| matches!(reason, NotAHeader::Newer(_)))
}

fn decode_copy(bytes: &[u8]) -> Result<Header, NotAHeader> {
    let (bytes, sum) = bytes
        .get(..LENGTH)
        .filter(|bytes| bytes.starts_with(MAGIC))
        .map(|bytes| bytes.split_at(SUM))
        .ok_or(NotAHeader::Damaged)?;
    if crc32c::crc32c(bytes).to_le_bytes() != sum {
        return Err(NotAHeader::Damaged);
    }
    let version = u32::from_le_bytes(chunk(bytes, 8));
    if version != VERSION {
        return Err(NotAHeader::Newer(version));
    }
    let number = |at| u64::from_le_bytes(chunk(bytes, at));
    let header = Header {
        class: class_of(bytes[12]).ok_or(NotAHeader::Damaged)?,
        reason: Reason::from_code(bytes[13]),
        epoch: chunk(bytes, 16),
        boot: chunk(bytes, 32),
        salt: number(48),
        ordinal: number(56),
        from: number(64) as i64,
        base: number(72) as i64,
        bytes: number(80),
    };
    let sane = header.from >= 1 && header.from <= header.base && header.base <= MOST;
    sane.then_some(header).ok_or(NotAHeader::Damaged)
}

fn chunk<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

/// The class's number in files.
const fn class_code(class: Class) -> u8 {
    match class {
        Class::Lifecycle => 1,
        Class::Results => 2,
        Class::Metrics => 3,
        Class::Logs => 4,
    }
}

fn class_of(code: u8) -> Option<Class> {
    Class::ALL.into_iter().find(|class| class_code(*class) == code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            class: Class::Logs,
            reason: Some(Reason::Crash),
            epoch: [7; 16],
            boot: [8; 16],
            salt: 9,
            ordinal: 10,
            from: 11,
            base: 65_547,
            bytes: 12,
        }
    }

    #[test]
    fn either_copy_is_enough_and_no_flipped_bit_changes_what_is_read() {
        let whole = header().encode();
        assert_eq!(whole.len() as u64, BLOCK);
        for bit in 0..whole.len() * 8 {
            let mut block = whole.clone();
            block[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::decode(&block), Ok(header()), "bit {bit}");
            block[COPY..COPY + LENGTH].fill(0);
            match Header::decode(&block) {
                Ok(read) => assert_eq!(read, header(), "bit {bit}"),
                Err(reason) => assert_eq!(reason, NotAHeader::Damaged),
            }
        }
        for length in 0..whole.len() {
            assert!(matches!(Header::decode(&whole[..length]), Ok(_) | Err(NotAHeader::Damaged)));
        }
    }

    #[test]
    fn a_later_version_is_told_apart_from_damage() {
        let mut block = header().encode();
        for copy in [0, COPY] {
            block[copy + 8] = 2;
            let sum = crc32c::crc32c(&block[copy..copy + SUM]);
            block[copy + SUM..copy + LENGTH].copy_from_slice(&sum.to_le_bytes());
        }
        assert_eq!(Header::decode(&block), Err(NotAHeader::Newer(2)));
    }

    #[test]
    fn a_name_says_class_ordinal_and_base() {
        let name = header().name();
        let read = Name { class: Class::Logs, ordinal: 10, base: 65_547, bad: false };
        assert_eq!(Name::parse(&name), Some(read.clone()));
        assert_eq!(Name::parse(&aside(&name)), Some(Name { bad: true, ..read }));
        for other in ["cursor", "logs-1-1.seg", "beat-000000000000000a-000000000000000b.seg", "x.seg", ""] {
            assert_eq!(Name::parse(other), None, "{other}");
        }
    }
}
