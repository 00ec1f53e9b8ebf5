//! What Chaperone promises in a Pod, shown on a real Kubernetes node: `just e2e`, any cluster by `KUBECONFIG`.
//!
//! Each test has a namespace of its own with the Pod Security level that it speaks of, so that admission is part of
//! the proof. Images: `E2E_SUPERVISOR_IMAGE`, `E2E_GATEWAY_IMAGE`, `E2E_SANDBOX_IMAGE`, `E2E_TESTS_IMAGE`.
//! Where the gateway runs on this machine, `E2E_HOST` is the address by which Pods reach it.

mod cluster;
mod control_plane;
mod maker;
mod pod;
mod sandbox;
mod volume;
mod way;

mod backend;
mod backend_delivery;
mod backend_numbers;
mod bootstrap;
mod chart;
mod codex;
mod delivery;
mod exec;
mod gateway;
mod identity;
mod oom;
mod output;
mod permissions;
mod preflight;
mod probes;
mod profiles;
mod restart;
mod secrets;
mod seeded;
mod signed;
mod stop;
mod terminal;
