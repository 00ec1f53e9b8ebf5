//! The shim: starts one program under a policy and stays as the init of its tree.
//!
//! Two processes, one story each:
//!
//! - the resident one ([`tree`]) enters a Landlock domain of its own, forks, keeps nothing but the right to end its
//!   tree, reaps, obeys the supervisor and reports to it ([`control`]);
//! - the child ([`confine`]) gives up everything step by step and becomes the program: [`descriptors`], [`session`],
//!   [`limits`], [`identity`], [`capabilities`], [`filesystem`], [`readback`], [`syscalls`], [`execute`].
//!
//! Where many shims are needed, one is the [`zygote`] and forks the others. The child is born with its [`oom`] score.
//! [`guarantees`] says beforehand which promises this kernel can hold. [`kernel`] is the only place with `unsafe`.
//! [`untrusted`] names the parsers of what others write, for `fuzz/`, which tries them with any bytes.

pub mod capabilities;
pub mod confine;
pub mod control;
pub mod descriptors;
pub mod execute;
pub mod failure;
pub mod filesystem;
pub mod guarantees;
pub mod identity;
pub mod kernel;
pub mod limits;
pub mod oom;
pub mod readback;
pub mod session;
pub mod syscalls;
pub mod tree;
pub mod untrusted;
pub mod zygote;
