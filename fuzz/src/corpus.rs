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

/// Keep what lies in `directory`: the shortest of it, up to `most` bytes in all, and none that is a seed.
pub fn pack(target: &Target, directory: &Path, most: usize) -> io::Result<usize> {
    let seeds = (target.seeds)();
    let inputs = std::fs::read_dir(directory)?.map(|entry| std::fs::read(entry?.path()));
    let mut inputs = inputs.collect::<io::Result<Vec<Vec<u8>>>>()?;
    inputs.retain(|input| !seeds.contains(input));
    inputs.sort_by(|a, b| (a.len(), a).cmp(&(b.len(), b)));
    inputs.dedup();
    let mut left = most;
    let fits = inputs.iter().take_while(|input| {
        let fits = left >= input.len();
        left = left.saturating_sub(input.len());
        fits
    });
    let lines: Vec<String> = fits.map(|input| STANDARD_NO_PAD.encode(input) + "\n").collect();
    std::fs::write(file(target), lines.concat())?;
    Ok(lines.len())
}
