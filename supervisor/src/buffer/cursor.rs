//! How far the gateway has everything: two slots in one small file, written in turn and never synced.
//!
//! Losing it costs records that are sent once more, which their numbers make harmless.
//!
//! | offset | bytes | slot, at 0 and at 512 |
//! |---|---|---|
//! | 0 | 8 | generation; the greater one counts |
//! | 8 | 16 | log epoch |
//! | 24 | 32 | the newest acknowledged number of lifecycle, results, metrics and logs |
//! | 56 | 4 | CRC32C of everything above |

use super::disk::{Blocks, Disk};

/// The file.
pub(super) const NAME: &str = "cursor";
const SLOT: u64 = 512;
const SUM: usize = 56;

/// The open file, where there is one.
pub(super) struct Cursor<F> {
    file: Option<F>,
    generation: u64,
}

impl<F: Blocks> Cursor<F> {
    /// Read it. Without a file, or with one that cannot be read, nothing is acknowledged.
    pub(super) fn open<D: Disk<File = F>>(disk: &D, epoch: &[u8; 16]) -> (Cursor<F>, [i64; 4]) {
        let Ok(file) = disk.open(NAME).or_else(|_| disk.create(NAME)) else {
            return (Cursor { file: None, generation: 0 }, [0; 4]);
        };
        let slots = [0, SLOT].map(|at| read(&file, at, epoch));
        let newest = slots.into_iter().flatten().max_by_key(|(generation, _)| *generation);
        let (generation, acked) = newest.unwrap_or_default();
        (Cursor { file: Some(file), generation }, acked)
    }

    /// Note it. What cannot be noted is sent again by the next life.
    pub(super) fn note(&mut self, epoch: &[u8; 16], acked: [i64; 4]) {
        let Some(file) = &mut self.file else { return };
        self.generation = self.generation.wrapping_add(1);
        let mut bytes = self.generation.to_le_bytes().to_vec();
        bytes.extend(epoch);
        acked.iter().for_each(|seq| bytes.extend(seq.to_le_bytes()));
        bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
        let _ = file.write_at(&bytes, self.generation % 2 * SLOT);
    }
}

fn read(file: &impl Blocks, at: u64, epoch: &[u8; 16]) -> Option<(u64, [i64; 4])> {
    let mut bytes = [0; SUM + 4];
    if file.read_at(&mut bytes, at).ok()? < bytes.len() {
        return None;
    }
    let (body, sum) = bytes.split_at(SUM);
    if crc32c::crc32c(body).to_le_bytes() != sum || &body[8..24] != epoch {
        return None;
    }
    let number = |at: usize| body[at..at + 8].try_into().map(u64::from_le_bytes).unwrap_or_default();
    let acked = [24, 32, 40, 48].map(|at| number(at) as i64);
    acked.iter().all(|seq| (0..=i64::MAX / 4).contains(seq)).then_some((number(0), acked))
}
