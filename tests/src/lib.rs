//! The harness: real binaries, real kernel.
