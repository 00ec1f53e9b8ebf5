//! Whether the disk may have refused what is told now: until the buffer has said that no cause left anything behind.

/// Causes for which the disk may refuse anything, counted. While it is in doubt, what is told may be lost.
#[derive(Default)]
pub(super) struct Doubt {
    /// That began.
    pub(super) begun: u32,
    /// That are over.
    pub(super) over: u32,
    /// Of which the buffer said, when they were over, that they left nothing behind.
    pub(super) settled: u32,
}

impl Doubt {
    pub(super) fn is_open(&self) -> bool {
        self.settled < self.begun
    }
}
