//! Random numbers that nothing secret hangs on.

use std::hash::{BuildHasher, Hasher, RandomState};

/// 64 bits that differ between processes started at one instant: the standard library seeds its hash keys from the
/// kernel's random numbers.
pub fn bits() -> u64 {
    RandomState::new().build_hasher().finish()
}
