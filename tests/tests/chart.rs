//! The chart without a cluster: what it refuses, what it renders, and that it means something to Kubernetes. On a cluster:
//! `tests/e2e/chart.rs`.

#[path = "chart/monitoring.rs"]
mod monitoring;
#[path = "chart/objects.rs"]
mod objects;
#[path = "chart/package.rs"]
mod package;
#[path = "chart/types.rs"]
mod types;
#[path = "chart/values.rs"]
mod values;
