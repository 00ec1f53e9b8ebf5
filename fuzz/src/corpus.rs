//! The kept inputs of each target: `corpus/NAME`, one a line, in base64, so that they can be reviewed and merged as text.

use std::io;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use crate::Target;

fn file(target: &Target) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name)
}

/// What is kept, and the seeds.
///
/// # Panics
///
/// Where a line is not base64, since somebody has edited it.
pub fn read(target: &Target) -> Vec<Vec<u8>> {
    let kept = std::fs::read_to_string(file(target)).unwrap_or_default();
    let line = |(index, line)| {
        STANDARD_NO_PAD
            .decode::<&str>(line)
            .unwrap_or_else(|error| panic!("corpus/{}, line {}: {error}", target.name, index + 1))
    };
    kept.lines().enumerate().map(line).chain((target.seeds)()).collect()
}

/// Put each input into a file of its own in `directory`, as libFuzzer wants it.
pub fn unpack(target: &Target, directory: &Path) -> io::Result<()> {
    std::fs::create_dir_all(directory)?;
    for (index, input) in read(target).iter().enumerate() {
        std::fs::write(directory.join(format!("kept-{index}")), input)?;
    }
    Ok(())
}

/// Keep of what lies in `directory` up to `most` bytes in all, and none that is a seed.
pub fn pack(target: &Target, directory: &Path, most: usize) -> io::Result<usize> {
    let seeds = (target.seeds)();
    let inputs = std::fs::read_dir(directory)?.map(|entry| std::fs::read(entry?.path()));
    let mut inputs = inputs.collect::<io::Result<Vec<Vec<u8>>>>()?;
    inputs.retain(|input| !seeds.contains(input));
    let lines: Vec<String> = choose(inputs, most).iter().map(|input| STANDARD_NO_PAD.encode(input) + "\n").collect();
    std::fs::write(file(target), lines.concat())?;
    Ok(lines.len())
}

/// The shortest say most for their bytes, but there is what only a long one reaches. So each length, by powers of two, has an equal share
/// of what shorter ones have left.
fn choose(mut inputs: Vec<Vec<u8>>, most: usize) -> Vec<Vec<u8>> {
    inputs.sort_by(|a, b| (a.len(), a).cmp(&(b.len(), b)));
    inputs.dedup();
    let lengths: Vec<&[Vec<u8>]> =
        inputs.chunk_by(|a, b| a.len().next_power_of_two() == b.len().next_power_of_two()).collect();
    let (mut chosen, mut left) = (Vec::new(), most);
    for (index, of_one_length) in lengths.iter().enumerate() {
        let mut share = left / (lengths.len() - index);
        for input in *of_one_length {
            let Some(rest) = share.checked_sub(input.len()) else { break };
            (share, left) = (rest, left - input.len());
            chosen.push(input.clone());
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_inputs_are_kept_beside_short_ones() {
        let inputs = |count: u8, length| (0..count).map(move |number| vec![number; length]);
        let all: Vec<Vec<u8>> = inputs(200, 10).chain(inputs(50, 100)).chain(inputs(9, 1000)).collect();
        let chosen = choose(all, 6000);
        let of = |length| chosen.iter().filter(|input| input.len() == length).count();
        assert_eq!([of(10), of(100), of(1000)], [200, 20, 2]);
    }
}
