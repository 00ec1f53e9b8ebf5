//! The body of `/healthz` and its aliases. No path, environment or token is ever in it.

use serde::{Deserialize, Serialize};

use crate::guarantee::Standing;
use crate::policy::Enforcement;

/// What a health endpoint answers (000-77..79).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// In one word.
    pub status: Status,
    /// Why it is not ready and what to do; empty when it is.
    pub readiness_reason: String,
    /// Who this sandbox is, as configured.
    #[serde(flatten)]
    pub identity: SandboxIdentity,
    /// Version of the supervisor.
    pub version: String,
    /// The agent.
    pub agent: AgentHealth,
    /// What holds for the running agent.
    pub confinement: Confinement,
    /// The link to the gateway. Nothing above depends on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<LinkHealth>,
}

/// Who this sandbox is; empty where the operator set nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxIdentity {
    /// Agent id (000-79).
    pub agent_id: String,
    /// Project id.
    pub project_id: String,
    /// Controller id.
    pub controller_id: String,
    /// `kubernetes`, `local`, …
    pub deployment_backend: String,
}

/// In one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Not finished initialising.
    Starting,
    /// Ready for work.
    Ready,
    /// Something failed; the reason says what.
    Error,
    /// Stopping: no new work.
    Draining,
}

/// The agent, as far as health tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentHealth {
    /// `absent`, `starting`, `running`, `hung`, `stopping`, `waiting` (for a restart) or `ended`.
    pub state: String,
    /// Restarts since the supervisor started.
    pub restarts: u64,
    /// How the last run ended: exit code or 128 + signal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_exit_code: Option<i32>,
    /// The last run's signal, where it had one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_signal: Option<i32>,
    /// What the agent said last by `STATUS=` (`sd_notify(3)`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_text: Option<String>,
    /// How the run before this supervisor ended, where it left no word: `lost` with the container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous: Option<String>,
}

/// What holds for the running agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// `required` or `best-effort`.
    pub enforcement: Enforcement,
    /// Landlock ABI in force, 0 for none or before the first start.
    pub landlock_abi: u32,
    /// Each guarantee.
    pub guarantees: Vec<Standing>,
}

/// The link to the gateway, without address and token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkHealth {
    /// `off`, `connecting`, `connected`, `waiting` (for the next dial) or `closed`.
    pub state: String,
}
