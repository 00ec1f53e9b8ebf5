//! Every counter by name. Gauges are derived when asked (`api/health.rs`).

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter as Generic;
use prometheus_client::metrics::family::Family;

/// Counts events since the gateway started.
pub type Counter = Generic<u64, AtomicU64>;
/// Counters by the value of one label.
pub type Labelled = Family<Vec<(&'static str, String)>, Counter>;

/// The counters. A part gets the whole set and touches its own.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Ends of sessions: a close code, `bye` or `lost`.
    pub session_ends: Labelled,
    /// Dials that were not let in, by reason.
    pub refused: Labelled,
    /// Records handed to the store, by class.
    pub records: Labelled,
    /// Sequences that gaps have declared lost, by class.
    pub lost: Labelled,
    /// Sandboxes that this gateway was asked to make, by what came of it.
    pub sandboxes_asked_for: Labelled,
    /// What was wanted and what there was did not agree, and now do, by what was done.
    pub sandboxes_mended: Labelled,
    /// Requests that were passed on to another gateway, by what came of it.
    pub passed_on: Labelled,
    /// Times that this gateway's lease could not be renewed.
    pub lease_failures: Counter,
    /// Times that it was over while this gateway ran.
    pub leases_lost: Counter,
    /// Sessions that were asked to dial again because another gateway has joined.
    pub moves: Counter,
    /// Transactions that the database refused.
    pub store_failures: Counter,
    /// Events that are kept no more, by age or by count.
    pub events_removed: Counter,
    /// Panics caught in a connection or session.
    pub panics: Counter,
    /// Connections closed because too many were open.
    pub connections_refused: Counter,
}
