//! Work on files that an agent can change: seeding, the file API, artifacts, archives and diffs.
//!
//! PID 1 opens none of these paths. Each piece of work ([`work`]) is done by `supervisor worker` ([`crate::worker`]),
//! with the agent's ids, confined to the one directory that it is about. There, [`root`] and [`path`] keep every step
//! beneath that directory, [`archive`] reads what clients send, [`unpack`] and [`pack`] turn archives into directories
//! and back, [`diff`] tells what became of a seed. [`workers`] starts them, [`seeds`]
//! keeps what clients send, [`relay`] applies what they approve.

pub(crate) mod archive;
pub(crate) mod diff;
pub mod failure;
pub mod files;
pub(crate) mod pack;
pub mod path;
pub mod relay;
pub mod root;
pub mod seeds;
pub(crate) mod unpack;
mod walk;
pub mod work;
pub mod workers;
