//! What every child is started with.

use std::path::PathBuf;
use std::time::Duration;

use protocol::guarantee::Guarantee;
use protocol::policy::{Enforcement, ExecutionClass, Limit};

use crate::config::{Reader, parse};

/// Writable beside what is configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scratch {
    /// HOME and the machine's scratch directories: the agent.
    Shared,
    /// HOME and shared memory: a dev-task, which has a scratch directory of its own.
    Home,
    /// Nothing.
    None,
}

/// What every child is started with.
#[derive(Clone, Debug)]
pub struct Config {
    /// Further names let through, beside [`super::environment::BASE`].
    pub env_allow: Vec<String>,
    /// The supervisor's own environment.
    pub environment: Vec<(std::ffi::OsString, std::ffi::OsString)>,
    /// Set, whatever the environment says.
    pub env: Vec<(String, String)>,
    /// Ids to change to, profile baseline.
    pub user: Option<(u32, u32)>,
    /// File mode mask.
    pub umask: u32,
    /// Network and workspace class.
    pub class: ExecutionClass,
    /// TCP ports to connect to; empty for any.
    pub connect_ports: Vec<u16>,
    /// The working tree.
    pub workspace: PathBuf,
    /// Further writable paths.
    pub write: Vec<PathBuf>,
    /// What else is writable.
    pub scratch: Scratch,
    /// Paths that cannot be opened: the operator's and the supervisor's own.
    pub hide: Vec<PathBuf>,
    /// Readable although it lies beneath a hidden path.
    pub read: Vec<PathBuf>,
    /// Nothing else is readable but `read`, the program and its libraries: our own workers.
    pub read_nothing_else: bool,
    /// Resource limits.
    pub limits: Vec<Limit>,
    /// Nice value.
    pub nice: Option<i8>,
    /// OOM score adjustment.
    pub oom_score_adj: i16,
    /// TERM to KILL when the supervisor is gone.
    pub grace: Duration,
    /// TERM to KILL for what the main program left behind.
    pub leftover_grace: Duration,
    /// Refuse or say so.
    pub enforcement: Enforcement,
    /// What must hold.
    pub guarantees: Vec<Guarantee>,
    /// Shims that are kept ready for dev-tasks.
    pub ready: usize,
}

impl Config {
    /// From the settings of the agent and of enforcement. `secrets` are the supervisor's own paths.
    pub fn read(reader: &mut Reader<'_>, secrets: &[PathBuf]) -> Config {
        let mut hide = reader.list("agent_hide", parse::path);
        hide.extend_from_slice(secrets);
        let mut env_allow = reader.list("agent_env_allow", allow);
        // The provider's key travels by the name that the provider's configuration gives.
        env_allow.extend(reader.optional("provider_env_key", parse::text));
        let guarantees = reader.list("guarantees", |name| {
            Guarantee::from_name(name).ok_or_else(|| {
                let all: Vec<_> = Guarantee::ALL.iter().map(|g| g.name()).collect();
                format!("`{name}` is no guarantee; there are {}", all.join(", "))
            })
        });
        Config {
            env_allow,
            environment: reader.variables().to_vec(),
            env: reader.list("agent_env", parse::assignment),
            user: reader.optional("agent_user", parse::user),
            umask: reader.value("agent_umask", parse::umask),
            class: reader.value("agent_class", class),
            connect_ports: reader.list("agent_connect_ports", parse::port),
            workspace: reader.value("workspace", parse::any_path),
            write: reader.list("agent_write", parse::path),
            scratch: Scratch::Shared,
            hide,
            read: Vec::new(),
            read_nothing_else: false,
            limits: reader.list("agent_limits", parse::limit),
            nice: reader.optional("agent_nice", |t| parse::number(-20, 19)(t).map(|n| n as i8)),
            oom_score_adj: reader.value("agent_oom_score_adj", |t| parse::number(-1000, 1000)(t).map(|n| n as i16)),
            grace: reader.value("grace", parse::duration),
            leftover_grace: reader.value("agent_leftover_grace", parse::duration),
            enforcement: reader.value("enforcement", enforcement),
            guarantees: if guarantees.is_empty() { Guarantee::DEFAULT.to_vec() } else { guarantees },
            ready: reader.value("task_ready", |t| parse::number(1, 1000)(t).map(|n| n as usize)),
        }
    }
}

fn allow(name: &str) -> Result<String, String> {
    let stem = name.strip_suffix('*').unwrap_or(name);
    if stem.is_empty() || stem.contains(['*', '=']) {
        return Err(format!("`{name}` is not a variable name; a * may only end one"));
    }
    Ok(name.to_string())
}

fn class(text: &str) -> Result<ExecutionClass, String> {
    ExecutionClass::from_name(text).ok_or_else(|| format!("`{text}` is none of local, readonly, networked"))
}

fn enforcement(text: &str) -> Result<Enforcement, String> {
    match text {
        "required" => Ok(Enforcement::Required),
        "best-effort" => Ok(Enforcement::BestEffort),
        _ => Err(format!("`{text}` is neither required nor best-effort")),
    }
}
