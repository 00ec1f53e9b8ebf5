//! The harness: real binaries, real kernel.
//!
//! - [`supervisor`]: one supervisor under test, its output, health, signals and end; [`binaries`] finds it.
//! - [`stage`]: where it runs: pid namespace, container, ids and capabilities. [`scene`] is what lies there.
//! - [`control_plane`]: one gateway under test; [`dialler`]: a supervisor's end of a session, by hand.
//! - [`dev`]: `gateway dev` and its command-line client, in a home of its own.
//! - [`balancer`]: one address before several gateways. [`proxy`]: between a supervisor and its gateway.
//! - [`front`]: stands before a supervisor as a gateway would, and goes away when asked to.
//! - [`probes`]: the escapes that an agent might try. [`mutations`]: the confinement with one rule less. [`sweep`]: every number.
//!   [`kernel`] has the raw entries that they need.
//! - [`scripted_model`]: the model that a real agent works against, offline.
//! - [`gateway`]: a gateway that does what a test says.
//! - [`codex`]: a real coding agent. [`relay`]: where approved patches are applied.
//! - [`mod@bench`]: the numbers that are promised.
//! - [`crowd`]: agents that make many processes.
//! - [`fleet`]: thousands of sandboxes on real gateways. [`tally`]: produced = delivered + gaps.
//! - [`torture`]: what is done to real programs while they work.
//! - [`simulation`]: both ends of the session on one thread, in virtual time, with everything going wrong.
//! - [`tasks`]: a client of the dev-task API.
//! - [`attach`]: a client that is attached to a dev-task.
//! - [`issuer`]: as much of a cluster as knows a Pod by its token. [`mod@tls`]: certificates, right and wrong.
//! - [`mod@openapi`]: the pages that describe an API.
//! - [`chart`]: the chart as Helm renders it.
//! - [`postgres`], [`prometheus`], [`registry`]: real servers of others.
//! - [`date`]: the date of one process, changed while it runs. [`mod@cgroup`]: a control group for one sandbox.
//! - [`strace`]: what a program asks of the kernel. [`needs`]: what a machine may lack. [`mod@repository`]: git.
//! - [`wait`], [`table`], [`http`], [`output`], [`processes`]: what tests ask again and again.

pub mod attach;
pub mod balancer;
pub mod bench;
pub mod binaries;
pub mod cgroup;
pub mod chart;
pub mod codex;
pub mod control_plane;
pub mod crowd;
pub mod date;
pub mod dev;
pub mod dialler;
pub mod evidence;
pub mod fleet;
pub mod front;
pub mod gateway;
pub mod http;
pub mod interrupt;
pub mod issuer;
pub mod kernel;
pub mod memory_disk;
pub mod mutations;
pub mod needs;
pub mod openapi;
pub mod output;
pub mod postgres;
pub mod probes;
pub mod processes;
pub mod prometheus;
pub mod proxy;
pub mod registry;
pub mod relay;
pub mod repository;
pub mod scene;
pub mod scripted_model;
pub mod simulation;
pub mod stage;
pub mod strace;
pub mod supervisor;
mod surroundings;
pub mod sweep;
pub mod table;
pub mod tally;
pub mod tasks;
pub mod tls;
pub mod torture;
pub mod wait;
