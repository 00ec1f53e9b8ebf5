//! The session between a supervisor and a gateway: one WebSocket, dialled by the supervisor.
//!
//! Control frames are text messages, each one JSON object whose `t` says what it is ([`FromSupervisor`],
//! [`FromGateway`]); bulk bytes are binary messages ([`stream`]). `docs/protocol.md` tells the whole exchange.
//!
//! Rules that keep old and new together: a field that is not known is ignored, a frame whose `t` is not known is
//! read as `Unknown` and skipped, a field that came later has a default. What would change the meaning of a frame
//! needs a new number in [`Range`].
//!
//! Sequences are signed 64-bit, begin with 1 in each class, and go on across restarts of the supervisor as long as
//! `log_epoch` stays the same. Times are Unix milliseconds; spans end in `_ms`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::call::Key;

pub mod close;
pub mod mux;
pub mod stream;
mod sum;

pub use sum::{Sum, Sums};

/// The path of the session on the gateway.
pub const PATH: &str = "/v1/session";
/// `Sec-WebSocket-Protocol` of the session.
pub const SUBPROTOCOL: &str = "chaperone.v1";
/// The largest text message, bytes; a longer one closes the session with [`close::TOO_LARGE`].
pub const MAX_TEXT: usize = 256 * 1024;
/// Commands that may be under way and not applied; a gateway sends no more, and one that does ends the session.
pub const COMMANDS: usize = 16;
/// The protocol that this crate speaks.
pub const PROTOCOL: u32 = 1;

/// A range of protocol numbers, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// Oldest.
    pub min: u32,
    /// Newest.
    pub max: u32,
}

impl Range {
    /// What this crate speaks.
    pub const OURS: Range = Range { min: PROTOCOL, max: PROTOCOL };

    /// The newest that both sides speak.
    pub fn agree(self, other: Range) -> Option<u32> {
        let newest = self.max.min(other.max);
        (newest >= self.min.max(other.min)).then_some(newest)
    }
}

/// A class of records. Each has its own sequence, and its place in the order of sacrifice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// What became of supervisor, agent and tasks. Sacrificed last.
    Lifecycle,
    /// Results of tasks.
    Results,
    /// Measurements.
    Metrics,
    /// Log lines. Sacrificed first.
    Logs,
}

impl Class {
    /// All, in the order in which they are sent.
    pub const ALL: [Class; 4] = [Class::Lifecycle, Class::Results, Class::Metrics, Class::Logs];

    /// The word in frames, metrics and file names.
    pub const fn name(self) -> &'static str {
        match self {
            Class::Lifecycle => "lifecycle",
            Class::Results => "results",
            Class::Metrics => "metrics",
            Class::Logs => "logs",
        }
    }

    /// The class of that name.
    pub fn from_name(name: &str) -> Option<Class> {
        Self::ALL.into_iter().find(|class| class.name() == name)
    }
}

/// Supervisor to gateway.
#[derive(Debug, Deserialize, Serialize)]
#[serde(tag = "t", rename_all = "snake_case")]
pub enum FromSupervisor {
    /// The first frame, within 5 s of the upgrade.
    Hello(Box<Hello>),
    /// Still alive. At most 48 bytes for the first 10^10 of a session.
    Beat {
        /// Counts from 1 in each session.
        n: u64,
        /// [`digest`](State) of the current state.
        d: String,
    },
    /// The current state; the newest one counts, and it is never queued.
    State(Box<State>),
    /// Records of one class, in order, without a hole.
    // Raw JSON cannot pass through the tag's own reader: see `decode`.
    #[serde(skip_deserializing)]
    Data(Data),
    /// Records that will never come.
    Gap(Gap),
    /// Commands up to this sequence have been applied, or refused for good. Told again in the next session, until the gateway
    /// has acknowledged it.
    Applied {
        /// The newest one; never one that was not sent in this session or covered by its hello.
        n: i64,
        /// The newest one of which this session was told before, 0 for none: whoever was not has missed it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<i64>,
        /// What became of those that are not acknowledged.
        outcomes: Vec<Outcome>,
    },
    /// The supervisor ends the session on purpose and says whether it will come back.
    Bye {
        /// For people.
        reason: String,
        /// No further session of this boot will come.
        last: bool,
    },
    /// A frame of a later protocol.
    #[serde(other)]
    Unknown,
}

/// Who dials, and what it has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// What it speaks.
    pub protocol: Range,
    /// Of the supervisor.
    pub version: String,
    /// Optional parts of the protocol that it has, for instance `stream`.
    #[serde(default)]
    pub capabilities: Vec<String>,
    /// Whose supervisor this is. The gateway compares it with what the token is for.
    pub agent_id: String,
    /// Project and controller, as configured; empty where unknown.
    #[serde(default)]
    pub project_id: String,
    /// See `project_id`.
    #[serde(default)]
    pub controller_id: String,
    /// The Pod, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Pod>,
    /// Random for each start of a supervisor.
    pub boot_id: String,
    /// Random for each buffer: another one means that the buffer was lost and sequences begin anew.
    pub log_epoch: String,
    /// For each class that has records.
    #[serde(default)]
    pub classes: BTreeMap<Class, Extent>,
    /// The newest command that was applied, 0 for none.
    #[serde(default)]
    pub applied: i64,
    /// How long the sandbox goes on alone, and what it does then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offline: Option<Offline>,
    /// Since the machine started, suspended time included (`CLOCK_BOOTTIME`), ms.
    pub boot_ms: i64,
    /// What the wall clock says.
    pub wall_ms: i64,
}

/// Name, namespace and uid of the Pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Pod {
    pub name: String,
    pub namespace: String,
    pub uid: String,
}

/// What a buffer holds of one class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// The oldest sequence that is not acknowledged, or `last + 1`.
    pub first_unacked: i64,
    /// The newest that was given out.
    pub last: i64,
}

/// How long the sandbox goes on without a gateway, and what it does then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offline {
    /// Y.
    pub after_ms: i64,
    /// After it.
    pub action: OfflineAction,
}

/// What happens when the gateway was away for Y.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OfflineAction {
    /// Go on.
    Keep,
    /// Stop the sandbox.
    Stop,
    /// Take no new task, and stop when the running ones have ended.
    StopAfterTasks,
}

/// What a sandbox is doing now. Last writer wins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// 12 hex digits, the first of the SHA-256 of `state` as it stands in the frame.
    pub d: String,
    /// An object; its fields are in `docs/protocol.md`.
    pub state: serde_json::Value,
}

/// Records of one class, in order, without a hole.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Data {
    /// Of all of them.
    pub class: Class,
    /// At least one.
    pub records: Vec<Entry>,
}

/// One record with its sequence.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// Within its class.
    pub seq: i64,
    /// A [`Record`], as the bytes that were buffered.
    pub record: Box<RawValue>,
}

/// What happened, and when.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// What the wall clock said.
    pub wall_ms: i64,
    /// `CLOCK_BOOTTIME`, so that a wrong wall clock can be told and mended.
    pub boot_ms: i64,
    /// For instance `agent.started`; `docs/protocol.md` has all.
    pub kind: String,
    /// An object.
    pub body: serde_json::Value,
}

/// Sequences `from` to `to`, both included, that will never come: loss is data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// Of all of them.
    pub class: Class,
    /// First.
    pub from: i64,
    /// Last.
    pub to: i64,
    /// Bytes of the records, where that is still known.
    #[serde(default)]
    pub bytes: u64,
    /// Why, in a word: `evicted`, `budget`, `damaged`, `disk`, `crash`.
    pub reason: String,
}

/// What became of a command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The command.
    pub n: i64,
    /// Whether it was done.
    pub ok: bool,
    /// For people where it was not: `unsupported`, or why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// What it answered, for instance the task that was made.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub body: serde_json::Value,
}

/// Gateway to supervisor.
#[derive(Debug, Deserialize, Serialize)]
#[serde(tag = "t", rename_all = "snake_case")]
pub enum FromGateway {
    /// Answers the hello.
    Welcome(Box<Welcome>),
    /// Answers a beat.
    Beat {
        /// The beat's number.
        n: u64,
        /// The digest is new here: send the state.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        state: bool,
        /// Of this session: a message that is lost, doubled, turned round or changed on the way is noticed at the next beat.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sums: Option<Sums>,
    },
    /// All records up to these sequences are stored for good.
    Ack {
        /// Cumulative, for each class that moved.
        acks: BTreeMap<Class, i64>,
        /// What became of commands up to this one is stored too.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        applied: Option<i64>,
    },
    /// Something to do, once. Sequences are the agent's and go on across sessions.
    Command(Box<Command>),
    /// Other times from now on; what is absent stays.
    Pace(Pace),
    /// This gateway goes away: close, and dial again after so long.
    Goaway {
        /// For people.
        reason: String,
        /// The reserved time.
        reconnect_in_ms: u64,
    },
    /// A frame of a later protocol.
    #[serde(other)]
    Unknown,
}

/// What the gateway knows and wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The number that both speak.
    pub protocol: u32,
    /// Of the gateway.
    pub version: String,
    /// Optional parts of the protocol that it has.
    #[serde(default)]
    pub capabilities: Vec<String>,
    /// Names this session in both logs.
    pub session: String,
    /// Grows with every session of this agent; a newer one closes the older with [`close::FENCED`].
    pub fence: i64,
    /// The next sequence that it expects of each class; 1 where it has nothing of this epoch.
    #[serde(default)]
    pub next: BTreeMap<Class, i64>,
    /// The digest of the state that it has, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub d: Option<String>,
    /// Times.
    pub pace: Pace,
    /// Unacknowledged bytes of records that may be under way.
    #[serde(default = "in_flight")]
    pub in_flight: u64,
    /// What the gateway's wall clock says.
    pub now_ms: i64,
    /// What calls past the session are signed with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<Key>,
}

const fn in_flight() -> u64 {
    256 * 1024
}

/// Times that the gateway decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pace {
    /// T: between two beats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beat_ms: Option<u64>,
    /// Until the first beat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase_ms: Option<u64>,
    /// P: the reconnect window, 1.25 × fleet / admission rate. Kept on disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_ms: Option<u64>,
}

/// Something to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Command {
    /// Its sequence.
    pub n: i64,
    /// The newest before it that the supervisor has, by its hello or by this session: whoever has not that one has missed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<i64>,
    /// What; a command that is not known is answered with `ok: false, reason: "unsupported"`.
    #[serde(rename = "do")]
    pub verb: String,
    /// Its arguments.
    #[serde(default)]
    pub body: serde_json::Value,
}

/// The body with which a gateway refuses a dial (status 503, with `Retry-After`): the place in the queue is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// For people.
    pub reason: String,
    /// Dial again after so long, and be admitted.
    pub reconnect_in_ms: u64,
    /// The reconnect window, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_ms: Option<u64>,
}

/// The deadline after which a silent peer counts as gone, on both sides: 1.5 T + 5 s.
pub const fn silence_ms(beat_ms: u64) -> u64 {
    beat_ms + beat_ms / 2 + 5_000
}

/// One frame as the text of a message.
pub fn encode<T: Serialize>(frame: &T) -> String {
    serde_json::to_string(frame).expect("frames have only keys that are text")
}

/// A text message that is not a frame.
#[derive(Debug, thiserror::Error)]
#[error("the message is not a frame: {0}")]
pub struct Malformed(#[from] serde_json::Error);

impl FromSupervisor {
    /// One message as a frame.
    pub fn decode(text: &str) -> Result<FromSupervisor, Malformed> {
        #[derive(Deserialize)]
        struct Kind<'a> {
            #[serde(borrow)]
            t: std::borrow::Cow<'a, str>,
        }
        match serde_json::from_str::<Kind>(text)?.t.as_ref() {
            "data" => Ok(FromSupervisor::Data(serde_json::from_str(text)?)),
            _ => Ok(serde_json::from_str(text)?),
        }
    }
}

impl FromGateway {
    /// One message as a frame.
    pub fn decode(text: &str) -> Result<FromGateway, Malformed> {
        Ok(serde_json::from_str(text)?)
    }
}

#[cfg(test)]
mod tests;
