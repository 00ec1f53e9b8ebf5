//! Every counter by name. Gauges are derived when asked, from the parts' states (`http/metrics.rs`).

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter as Generic;
use prometheus_client::metrics::family::Family;

mod tasks;

pub use tasks::Tasks;

/// Counts events since the supervisor started.
pub type Counter = Generic<u64, AtomicU64>;

/// What is so now, told by the one who knows: the buffer's owner is busy with the disk when it could be asked.
pub type Level = prometheus_client::metrics::gauge::Gauge<u64, AtomicU64>;

/// The counters. A part gets the whole set and touches its own.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Processes that nobody of ours started and that PID 1 inherited, plus those that shims reaped.
    pub orphans_reaped: Counter,
    /// Stop signals from inside the Pod that were not obeyed.
    pub signals_ignored: Counter,
    /// Ends of the agent by exit code, 128 + signal where it was killed.
    pub exits: Family<Vec<(&'static str, String)>, Counter>,
    /// Agent restarts.
    pub restarts: Counter,
    /// Runs of the agent that ended because it hung.
    pub hangs: Counter,
    /// Bytes of the agent's stdout passed on.
    pub stdout_bytes: Counter,
    /// Bytes of the agent's stderr passed on.
    pub stderr_bytes: Counter,
    /// Bytes of the agent's that could not be written, for instance because the disk behind stdout is full.
    pub output_lost_bytes: Counter,
    /// Log lines dropped because stderr was blocked.
    pub log_lines_dropped: Counter,
    /// Dev-tasks.
    pub tasks: Tasks,
    /// Clients that are attached to dev-tasks now.
    pub attached: Level,
    /// Lines of the task journal that could not be read.
    pub journal_damaged: Counter,
    /// Syncs of the task journal that the disk refused.
    pub journal_sync_failures: Counter,
    /// 1 while the disk refuses to sync the task journal.
    pub journal_degraded: Level,
    /// Records written to the buffer, by class.
    pub buffer_records: Family<Vec<(&'static str, String)>, Counter>,
    /// Numbers of the buffer that became gaps, by reason.
    pub buffer_gaps: Family<Vec<(&'static str, String)>, Counter>,
    /// Files of the buffer that could not be read and were put aside.
    pub buffer_quarantined: Counter,
    /// fsync and fdatasync of the buffer.
    pub buffer_syncs: Counter,
    /// Those that failed.
    pub buffer_sync_failures: Counter,
    /// Bytes of the buffer on disk.
    pub buffer_bytes: Level,
    /// 1 while the disk refuses what is written to the buffer.
    pub buffer_degraded: Level,
    /// Panics caught in a connection or task.
    pub panics: Counter,
    /// Modes of the state directory that somebody changed and we mended.
    pub state_tampered: Counter,
    /// Datagrams on NOTIFY_SOCKET from somebody outside the agent's tree.
    pub notify_refused: Counter,
    /// Dials of the gateway, by what became of them.
    pub link_dials: Family<Vec<(&'static str, String)>, Counter>,
    /// Ends of sessions and of handshakes, by reason.
    pub link_ends: Family<Vec<(&'static str, String)>, Counter>,
    /// Beats sent.
    pub link_beats: Counter,
    /// States sent.
    pub link_states: Counter,
    /// Frames of a later protocol that were skipped.
    pub link_skipped: Counter,
    /// Commands of the gateway, by what was to be done and what became of it.
    pub link_commands: Family<Vec<(&'static str, String)>, Counter>,
    /// Times without a gateway that were longer than allowed, by what was done then.
    pub link_offline: Family<Vec<(&'static str, String)>, Counter>,
    /// Connections closed because too many were open.
    pub connections_refused: Counter,
}
