//! The harness: real binaries, real kernel.

pub mod scripted_model;
