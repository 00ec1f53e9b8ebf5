//! What the agent is, and how its life goes.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::readiness::{Check, CheckSyntax};
use super::restart::Policy;
use crate::config::{Reader, parse};

/// What is run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program {
    /// argv; not empty.
    pub argv: Vec<OsString>,
    /// Variables that come with the program.
    pub env: Vec<(OsString, OsString)>,
    /// Working directory.
    pub cwd: Option<PathBuf>,
}

/// The agent's settings.
#[derive(Clone, Debug)]
pub struct Config {
    /// `None`: the health-only baseline.
    pub program: Option<Program>,
    /// When it is started again.
    pub restart: Policy,
    /// First back-off.
    pub restart_min: Duration,
    /// Longest back-off.
    pub restart_max: Duration,
    /// When it counts as ready.
    pub ready: Check,
    /// Between readiness checks.
    pub ready_interval: Duration,
    /// What fails when it hangs.
    pub hung: Check,
    /// Between checks; with notify, the watchdog time.
    pub hung_interval: Duration,
    /// Failures in a row.
    pub hung_failures: u32,
    /// One check.
    pub check_timeout: Duration,
}

/// `HIVE_AGENT_CONFIG_JSON` (000-41): the agent where the command line names none. Other members are the agent's own.
#[derive(Debug, Default, Deserialize)]
struct Described {
    #[serde(default, alias = "command")]
    argv: Vec<String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    cwd: Option<PathBuf>,
}

impl Config {
    /// From the settings; `argv` is what stood after `--`.
    pub fn read(reader: &mut Reader<'_>, argv: Vec<OsString>) -> Config {
        let (restart_min, restart_max) = (
            reader.value("agent_restart_min", parse::positive_duration),
            reader.value("agent_restart_max", parse::positive_duration),
        );
        if restart_min > restart_max {
            let (min, max) = (reader.origin("agent_restart_min"), reader.origin("agent_restart_max"));
            reader.mistake(min, format!("is longer than {max}; make it at most as long"));
        }
        let ready = reader.value("agent_ready", |text| match check(text)? {
            Check::Never => Err("`never` would never be ready; the default is started".into()),
            check => Ok(check),
        });
        let hung = reader.value("agent_hung", |text| match check(text)? {
            Check::Started => Err("`started` cannot fail; the default is never".into()),
            check => Ok(check),
        });
        Config {
            program: program(reader, argv),
            restart: reader.value("agent_restart", restart),
            restart_min,
            restart_max,
            ready,
            ready_interval: reader.value("agent_ready_interval", parse::positive_duration),
            hung,
            hung_interval: reader.value("agent_hung_interval", parse::positive_duration),
            hung_failures: reader.value("agent_hung_failures", |t| parse::number(1, 1000)(t).map(|n| n as u32)),
            check_timeout: reader.value("agent_check_timeout", parse::positive_duration),
        }
    }
}

/// The command line wins. Otherwise the agent runtime activates when its configuration, the gateway's URL and the
/// gateway's secret are all given (000-41); else nothing is started and health answers alone.
fn program(reader: &mut Reader<'_>, argv: Vec<OsString>) -> Option<Program> {
    let described = reader.optional("agent_config_json", |text| {
        serde_json::from_str::<Described>(text).map_err(|e| {
            // The text may hold secrets: say where it is wrong, not what it says.
            format!("is not the agent's JSON (line {}, column {}); write {{\"argv\": [...]}}", e.line(), e.column())
        })
    });
    let cwd = reader.optional("agent_cwd", parse::path);
    if argv.is_empty() && !(reader.is_set("gateway_url") && reader.is_set("internal_secret")) {
        return None;
    }
    let described = described.unwrap_or_default();
    let argv = if argv.is_empty() { described.argv.iter().map(OsString::from).collect() } else { argv };
    if argv.is_empty() {
        return None;
    }
    let env = described.env.iter().map(|(k, v)| (k.into(), v.into())).collect();
    Some(Program { argv, env, cwd: cwd.or(described.cwd) })
}

fn check(text: &str) -> Result<Check, String> {
    text.parse().map_err(|e: CheckSyntax| e.to_string())
}

fn restart(text: &str) -> Result<Policy, String> {
    match text {
        "never" => Ok(Policy::Never),
        "on-failure" => Ok(Policy::OnFailure),
        "always" => Ok(Policy::Always),
        _ => Err(format!("`{text}` is none of never, on-failure, always")),
    }
}
