//! The buffer's format, as `docs/features/buffer.md` has it, for whoever writes files whose checksums are right.

use protocol::session::Class;

/// The one file that is no segment.
pub(super) const CURSOR: &str = "cursor";
const BLOCK: usize = 4096;
/// A header stands twice. Its length is without its sum.
const COPIES: [usize; 2] = [0, 2048];
const HEADER: usize = 88;
/// So does what the cursor tells.
const SLOTS: [usize; 2] = [0, 512];
const SLOT: usize = 56;
const SUM: usize = 4;
/// What precedes the payload of a fragment.
const HEAD: usize = 16;
/// No log has so many files. A name has no room for those behind the last number.
const FILES: u64 = 1 << 40;

/// Right checksums for the bytes that are there.
pub(super) fn mend(name: &str, file: &mut [u8]) {
    if name == CURSOR {
        SLOTS.into_iter().for_each(|slot| seal(file.get_mut(slot..slot + SLOT + SUM)));
        return;
    }
    COPIES.into_iter().for_each(|copy| seal(file.get_mut(copy..copy + HEADER + SUM)));
    let Some(salt) = file.get(48..).and_then(|rest| rest.first_chunk::<8>()).copied() else { return };
    for (index, block) in file.chunks_mut(BLOCK).enumerate().skip(1) {
        mend_block(block, index * BLOCK, salt);
    }
}

/// The sum of a header or of a slot stands at its end.
fn seal(part: Option<&mut [u8]>) {
    if let Some((covered, sum)) = part.and_then(|part| part.split_last_chunk_mut::<SUM>()) {
        *sum = crc32c::crc32c(covered).to_le_bytes();
    }
}

/// As far as fragments follow each other. The block begins at `start` in its file.
fn mend_block(block: &mut [u8], start: usize, salt: [u8; 8]) {
    let mut at = 0;
    while at + HEAD < BLOCK
        && let Some(length) = block.get(at + 4..).and_then(|rest| rest.first_chunk::<2>()).copied()
    {
        let end = at + HEAD + usize::from(u16::from_le_bytes(length));
        let fragment = block.get_mut(at..end).and_then(|fragment| fragment.split_first_chunk_mut::<SUM>());
        let Some((sum, covered)) = fragment else { return };
        let place = crc32c::crc32c_append(crc32c::crc32c(&salt), &((start + at) as u64).to_le_bytes());
        *sum = crc32c::crc32c_append(place, covered).to_le_bytes();
        at = end;
    }
}

/// The name of the segment that has this header.
pub(super) fn name(file: &[u8]) -> Option<String> {
    let number = |at: usize| Some(u64::from_le_bytes(*file.get(at..)?.first_chunk()?));
    let class = *Class::ALL.get(usize::from(*file.get(12)?).checked_sub(1)?)?;
    let (ordinal, base) = (number(56)?, number(72)?);
    (ordinal < FILES).then(|| format!("{}-{ordinal:016x}-{base:016x}.seg", class.name()))
}

/// Give a file of our own this epoch and this salt, where it had random ones.
pub(super) fn settle(name: &str, file: &mut [u8], epoch: [u8; 16], salt: u64) {
    let (heads, at) = if name == CURSOR { (SLOTS, 8) } else { (COPIES, 16) };
    for head in heads {
        file[head + at..][..16].copy_from_slice(&epoch);
        if name != CURSOR {
            file[head + 48..][..8].copy_from_slice(&salt.to_le_bytes());
        }
    }
    mend(name, file);
}

/// A segment without its sums, zeros and copies: its first block is 88 bytes then.
pub(super) fn packed(segment: &[u8]) -> Vec<u8> {
    [&segment[..HEADER], &segment[BLOCK..]].concat()
}

/// That segment again; its sums are still to be mended.
pub(super) fn unpacked(packed: &[u8]) -> Vec<u8> {
    let (header, frames) = packed.split_at(packed.len().min(HEADER));
    let mut file = vec![0; BLOCK];
    for copy in COPIES {
        file[copy..][..header.len()].copy_from_slice(header);
    }
    file.extend(frames);
    file
}
