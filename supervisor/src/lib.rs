//! Chaperone's supervisor: PID 1 in the sandbox.
//!
//! The map, in start order. [`config`] holds every setting; [`app`] builds the parts, joins them and stops them.
//! [`init`] takes signals in and zombies out; [`launch`] starts any child through the shim; [`agent`] is the one
//! program that this is all about; [`http`] answers the kubelet; [`state`] and [`termination`] are what is left for
//! those who come later; [`buffer`] keeps what the gateway does not have yet. [`machine`] is what link and buffer stand on.
//!
//! [`untrusted`] names the parsers of bytes that others write, for `fuzz/`, which tries them with any.
//!
//! One start: block signals → settings → listener → state directory → defaults → agent.
//! One stop: not ready → the agent is told → grace → its tree is killed → everything is reaped → last word → exit as
//! the agent did.

pub mod agent;
pub mod app;
pub mod backoff;
pub(crate) mod bearer;
pub mod bootstrap;
pub mod buffer;
pub mod cgroup;
pub mod config;
pub mod http;
pub mod init;
pub mod install;
pub mod launch;
pub mod link;
pub mod logs;
pub mod machine;
pub mod metrics;
pub mod mounts;
pub mod netcheck;
pub mod preflight;
pub mod probe;
pub mod provider;
pub mod state;
pub(crate) mod streaming;
pub mod tasks;
pub mod termination;
pub mod untrusted;
pub mod worker;
pub mod workspace;

pub use protocol::exit;
