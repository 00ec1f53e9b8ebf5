//! The link and both of its ends.

pub mod kills;
