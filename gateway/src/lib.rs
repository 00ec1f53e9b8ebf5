//! The reference control plane.
//!
//! Supervisors dial in ([`sessions`]) and are told apart by their tokens ([`tokens`], [`identity`]); how many at once is decided by
//! [`admission`]. What they send is stored before it is acknowledged ([`store`]); who is alive now is in [`registry`],
//! and how long somebody has been away is measured by [`awake`]. Where several
//! gateways work with one store, each has a [`lease`]. People and programs ask by HTTP ([`api`]), also for the
//! dev-tasks of a sandbox, which answers through its own session, or on its own port to a call that [`signing`] has signed.
//! Sandboxes that this gateway makes are kept by [`sandboxes`], which has them made by a [`backend`]. [`app`] joins the
//! parts and stops them. [`untrusted`] names the parsers of what others write, for those who try them with any bytes.

pub mod admission;
pub mod advertise;
pub mod api;
pub mod app;
pub mod awake;
pub mod backend;
pub mod client;
pub mod cluster;
pub mod config;
pub mod dev;
pub mod identity;
pub mod lease;
pub mod listener;
pub mod logs;
pub mod metrics;
pub mod registry;
pub mod replaced;
pub mod sandboxes;
pub mod sessions;
pub mod signing;
pub mod store;
pub mod tls;
pub mod tokens;
pub mod untrusted;

pub use protocol::exit;
