//! Dev-tasks: what a client asks for, and what it is told.
//!
//! A task's state only moves forward: `queued → starting → running →` one of the five ends. What is told was written
//! to the journal before.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::control::Usage;
use crate::object;
use crate::policy::ExecutionClass;

/// The body of `POST /dev-tasks`. Exactly one of `argv` and `script` is given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Create {
    /// Client-chosen id: 1 to 128 of `A-Z a-z 0-9 . _ -`, not beginning with a dot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_id: Option<String>,
    /// Program and arguments.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub argv: Vec<String>,
    /// A script for `/bin/sh -c`, where the image has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub script: Option<String>,
    /// A `tar.gz` in base64: the task gets a workspace of its own with what is in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workspace_archive_b64: Option<String>,
    /// The same by the name of an upload (`PUT /workspace-archives/{name}`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workspace_archive: Option<String>,
    /// Run before, under the same confinement; a failure ends the task as `failed`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub setup: Vec<String>,
    /// Run after, whatever became of the task; its failure is told in `reason` and changes nothing else.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub teardown: Vec<String>,
    /// Working directory; default: the workspace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Variables, over those that the operator lets through.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Text for standard input, which is closed after it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdin: Option<String>,
    /// The same as base64, for bytes that are not text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdin_b64: Option<String>,
    /// Keep standard input open for `POST …/stdin`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub stdin_open: bool,
    /// Standard input, output and error are one terminal of this size, open for input while the task runs.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "object::optional")]
    pub terminal: Option<Terminal>,
    /// Wall time, for instance `30s`; default and maximum are the operator's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
    /// Network and workspace class; default `local`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub execution_class: Option<ExecutionClass>,
    /// For `networked`: the TCP ports that may be connected to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub connect_ports: Vec<u16>,
    /// Bounds.
    #[serde(skip_serializing_if = "Limits::is_empty", deserialize_with = "object::only")]
    pub limits: Limits,
    /// The client's own words; at most 32 of at most 256 bytes.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Higher goes first, -100 to 100.
    #[serde(skip_serializing_if = "is_zero")]
    pub priority: i32,
}

/// Size of a terminal in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Terminal {
    /// Lines, 1 to 10,000.
    pub rows: u16,
    /// Characters of a line, 1 to 10,000.
    pub cols: u16,
}

impl Terminal {
    /// The longest side. Programs allocate what the size says.
    pub const MOST: u16 = 10_000;

    /// Whether both sides are within their bounds.
    pub fn is_valid(self) -> bool {
        [self.rows, self.cols].iter().all(|side| (1..=Terminal::MOST).contains(side))
    }
}

fn is_zero(number: &i32) -> bool {
    *number == 0
}

/// Bounds of one task; what is absent is the operator's default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Bytes of each output stream that are kept: the head and the tail of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_bytes: Option<u64>,
    /// CPU time of one process, s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_seconds: Option<u64>,
    /// Processes of the task's uid, in the whole Pod (`RLIMIT_NPROC`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processes: Option<u64>,
    /// Open files of one process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open_files: Option<u64>,
    /// Address space of one process, bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
}

impl Limits {
    fn is_empty(&self) -> bool {
        *self == Limits::default()
    }
}

/// A task, as every answer has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Its name in every path.
    pub task_id: String,
    /// Where it is.
    pub state: State,
    /// Exit code of the program, where it ended by itself.
    pub exit_code: Option<i32>,
    /// Signal that ended it.
    pub signal: Option<i32>,
    /// Why, in words, where state and code do not say it all.
    pub reason: Option<String>,
    /// Whether memory ran out; null where that is not known.
    pub oom_killed: Option<bool>,
    /// When it was accepted, RFC 3339.
    pub created_at: String,
    /// When its program ran.
    pub started_at: Option<String>,
    /// When nobody of it was left.
    pub finished_at: Option<String>,
    /// The client's own words.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Where it ran (000-73..76).
    pub runtime: Runtime,
    /// The terminal that it was given, as large as it was at first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal: Option<Terminal>,
    /// The patch that was shown last (`GET …/diff`); only this one can be approved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diff: Option<Shown>,
    /// What became of the patch that was approved last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apply: Option<Apply>,
    /// How much it wrote.
    pub output: Output,
    /// What its tree used.
    pub usage: Usage,
}

/// Where a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Accepted, waiting for its turn.
    Queued,
    /// Being launched.
    Starting,
    /// Its program runs.
    Running,
    /// Ended with exit code 0.
    Succeeded,
    /// Ended otherwise, or could not be started.
    Failed,
    /// Ended because a client asked for it.
    Cancelled,
    /// Ended because its time was over.
    TimedOut,
    /// The supervisor was gone while it ran; nothing more can be known.
    Lost,
}

impl State {
    /// All, for metrics.
    pub const ALL: [State; 8] = [
        State::Queued,
        State::Starting,
        State::Running,
        State::Succeeded,
        State::Failed,
        State::Cancelled,
        State::TimedOut,
        State::Lost,
    ];

    /// Whether nothing will change any more.
    pub const fn is_final(self) -> bool {
        !matches!(self, State::Queued | State::Starting | State::Running)
    }

    /// The word in JSON, metrics and queries.
    pub const fn name(self) -> &'static str {
        match self {
            State::Queued => "queued",
            State::Starting => "starting",
            State::Running => "running",
            State::Succeeded => "succeeded",
            State::Failed => "failed",
            State::Cancelled => "cancelled",
            State::TimedOut => "timed_out",
            State::Lost => "lost",
        }
    }
}

/// Where a task ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Runtime {
    /// One run of one task: links it to what the backend knows.
    pub backend_run_id: String,
    /// Its class.
    pub execution_class: ExecutionClass,
    /// What the task leaves here can be fetched.
    pub artifact_root: String,
    /// Where its output is kept.
    pub log_root: String,
    /// Its own workspace, where it was given an archive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace_root: Option<String>,
}

/// A patch as it was when somebody looked at it. It does not change when the workspace does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// Of its bytes, in hex.
    pub sha256: String,
    /// Its length.
    pub bytes: u64,
    /// When, RFC 3339.
    pub at: String,
}

/// An approved patch on its way to where the workspace came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Apply {
    /// Of the patch.
    pub sha256: String,
    /// How far it is.
    pub state: ApplyState,
    /// Sent with every try, so that the relay applies it once.
    pub idempotency_key: String,
    /// What the relay said, or what kept it from answering.
    pub detail: Option<String>,
    /// Since when it is in this state, RFC 3339.
    pub at: String,
}

/// How far an approved patch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApplyState {
    /// Written down before the relay is called.
    Applying,
    /// The relay said so.
    Applied,
    /// The relay said no, or was never reached.
    Refused,
    /// The relay was called and nobody knows its answer. Approving the same patch again asks with the same key.
    Unknown,
}

/// How much a task wrote; what is kept may be less.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// Bytes on standard output.
    pub stdout_bytes: u64,
    /// Bytes on standard error.
    pub stderr_bytes: u64,
    /// Bytes of both that are no longer kept.
    pub cut_bytes: u64,
}
