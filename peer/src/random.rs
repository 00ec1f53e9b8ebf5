//! Random numbers for jitter, names and the numbers of questions. Keys and tokens are made of others.

use std::hash::{BuildHasher, Hasher, RandomState};

/// 64 bits that differ between processes started at one instant and cannot be guessed from outside: the standard library
/// hashes with keys that come from the kernel's random numbers.
pub fn bits() -> u64 {
    RandomState::new().build_hasher().finish()
}
