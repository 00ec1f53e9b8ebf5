//! Cluster tests: see docs/features.
