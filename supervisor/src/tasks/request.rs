//! From a client's request to what is run: every field is checked before anything is accepted.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use protocol::policy::{ExecutionClass, Limit, Resource};
use protocol::task::{Create, Terminal};

use super::Config;
use crate::config::parse;

/// A request that cannot be accepted: the field, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} {problem}")]
pub struct Invalid {
    /// As the client wrote it.
    pub field: &'static str,
    /// What is wrong, and what would be right.
    pub problem: String,
}

/// A checked request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// What is run.
    pub argv: Vec<OsString>,
    /// Before it.
    pub setup: Option<Vec<OsString>>,
    /// After it.
    pub teardown: Option<Vec<OsString>>,
    /// Where.
    pub cwd: Option<PathBuf>,
    /// With what.
    pub env: BTreeMap<String, String>,
    /// All of standard input, as far as the request has it.
    pub stdin: Option<Vec<u8>>,
    /// More may come.
    pub stdin_open: bool,
    /// All three streams are a terminal, at first of this size.
    pub terminal: Option<Terminal>,
    /// Wall time.
    pub timeout: Duration,
    /// Class.
    pub class: ExecutionClass,
    /// TCP ports, empty for any.
    pub connect_ports: Vec<u16>,
    /// Resource limits.
    pub limits: Vec<Limit>,
    /// Kept bytes of each stream.
    pub output_bytes: u64,
    /// Higher goes first.
    pub priority: i32,
}

impl Spec {
    /// Check everything.
    pub fn new(create: &Create, config: &Config) -> Result<Spec, Invalid> {
        check_id(create.task_id.as_deref())?;
        check_labels(&create.labels)?;
        check_environment(&create.env)?;
        let class = create.execution_class.unwrap_or(ExecutionClass::Local);
        if class != ExecutionClass::Networked && !create.connect_ports.is_empty() {
            return invalid("connect_ports", "has a meaning only with execution_class networked");
        }
        if create.connect_ports.contains(&0) {
            return invalid("connect_ports", "has port 0; ports go from 1 to 65535");
        }
        if !(-100..=100).contains(&create.priority) {
            return invalid("priority", "goes from -100 to 100");
        }
        Ok(Spec {
            argv: program(create)?,
            setup: command("setup", &create.setup)?,
            teardown: command("teardown", &create.teardown)?,
            cwd: create.cwd.as_deref().map(directory).transpose()?,
            env: create.env.clone(),
            stdin: stdin(create)?,
            stdin_open: create.stdin_open,
            terminal: terminal(create)?,
            timeout: timeout(create, config)?,
            class,
            connect_ports: create.connect_ports.clone(),
            limits: limits(create)?,
            output_bytes: output_bytes(create, config)?,
            priority: create.priority,
        })
    }
}

fn invalid<T>(field: &'static str, problem: impl Into<String>) -> Result<T, Invalid> {
    Err(Invalid { field, problem: problem.into() })
}

/// It becomes a path's last part and a part of URLs.
pub(crate) fn check_id(id: Option<&str>) -> Result<(), Invalid> {
    let Some(id) = id else { return Ok(()) };
    let allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-');
    if id.is_empty() || id.len() > 128 || id.starts_with('.') || !id.bytes().all(allowed) {
        return invalid("task_id", "is 1 to 128 of A-Z a-z 0-9 . _ - and does not begin with a dot");
    }
    // The journal lies among the tasks' folders.
    if id == "journal" || id == "journal.new" {
        return invalid("task_id", "is a name of the supervisor's own; choose another");
    }
    Ok(())
}

fn check_labels(labels: &BTreeMap<String, String>) -> Result<(), Invalid> {
    if labels.len() > 32 || labels.iter().any(|(k, v)| k.is_empty() || k.len() > 256 || v.len() > 256) {
        return invalid("labels", "has at most 32 entries of at most 256 bytes each, and no empty key");
    }
    Ok(())
}

fn check_environment(env: &BTreeMap<String, String>) -> Result<(), Invalid> {
    let bad = |(key, value): (&String, &String)| key.is_empty() || key.contains(['=', '\0']) || value.contains('\0');
    if env.iter().any(bad) {
        return invalid("env", "has an empty name, a name with =, or a NUL byte");
    }
    Ok(())
}

fn program(create: &Create) -> Result<Vec<OsString>, Invalid> {
    match (&create.script, create.argv.is_empty()) {
        (Some(_), false) => invalid("script", "and argv exclude each other"),
        (None, true) => invalid("argv", "or script is needed"),
        (Some(script), true) if script.contains('\0') => invalid("script", "has a NUL byte"),
        (Some(script), true) => Ok(vec!["/bin/sh".into(), "-c".into(), script.into()]),
        (None, false) => Ok(command("argv", &create.argv)?.unwrap_or_default()),
    }
}

fn command(field: &'static str, argv: &[String]) -> Result<Option<Vec<OsString>>, Invalid> {
    if argv.first().is_some_and(String::is_empty) {
        return invalid(field, "begins with an empty program name");
    }
    if argv.iter().any(|a| a.contains('\0')) {
        return invalid(field, "has a NUL byte");
    }
    Ok((!argv.is_empty()).then(|| argv.iter().map(OsString::from).collect()))
}

fn directory(path: &str) -> Result<PathBuf, Invalid> {
    if path.contains('\0') || !path.starts_with('/') {
        return invalid("cwd", "is not an absolute path");
    }
    Ok(path.into())
}

fn stdin(create: &Create) -> Result<Option<Vec<u8>>, Invalid> {
    match (&create.stdin, &create.stdin_b64) {
        (Some(_), Some(_)) => invalid("stdin_b64", "and stdin exclude each other"),
        (Some(text), None) => Ok(Some(text.clone().into_bytes())),
        (None, Some(text)) => match base64::engine::general_purpose::STANDARD.decode(text) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(_) => invalid("stdin_b64", "is not base64"),
        },
        (None, None) => Ok(None),
    }
}

fn terminal(create: &Create) -> Result<Option<Terminal>, Invalid> {
    let Some(size) = create.terminal else { return Ok(None) };
    if !size.is_valid() {
        return invalid("terminal", format!("has rows and cols from 1 to {}", Terminal::MOST));
    }
    if create.stdin.is_some() || create.stdin_b64.is_some() || create.stdin_open {
        return invalid("terminal", "is standard input, so stdin, stdin_b64 and stdin_open have no meaning beside it");
    }
    Ok(Some(size))
}

fn timeout(create: &Create, config: &Config) -> Result<Duration, Invalid> {
    let Some(text) = &create.timeout else { return Ok(config.timeout) };
    let asked = parse::positive_duration(text).map_err(|problem| Invalid { field: "timeout", problem })?;
    if asked > config.timeout {
        return invalid("timeout", format!("is longer than the {:?} that the operator allows", config.timeout));
    }
    Ok(asked)
}

fn output_bytes(create: &Create, config: &Config) -> Result<u64, Invalid> {
    match create.limits.output_bytes {
        None => Ok(config.output_bytes),
        Some(0) => invalid("limits.output_bytes", "is at least 1"),
        Some(asked) if asked > config.output_bytes => {
            invalid("limits.output_bytes", format!("is more than the {} that the operator allows", config.output_bytes))
        }
        Some(asked) => Ok(asked),
    }
}

fn limits(create: &Create) -> Result<Vec<Limit>, Invalid> {
    let asked = [
        ("limits.cpu_seconds", Resource::Cpu, create.limits.cpu_seconds),
        ("limits.processes", Resource::Nproc, create.limits.processes),
        ("limits.open_files", Resource::Nofile, create.limits.open_files),
        ("limits.memory_bytes", Resource::As, create.limits.memory_bytes),
    ];
    let mut limits = Vec::new();
    for (field, resource, value) in asked {
        match value {
            None => {}
            Some(0) => return invalid(field, "is at least 1"),
            Some(value) => limits.push(Limit { resource, soft: value, hard: value }),
        }
    }
    Ok(limits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        let sources = crate::config::Sources::gather(BTreeMap::new(), Vec::new());
        Config::read(&mut crate::config::Reader::new(&sources))
    }

    fn field_of(json: &str) -> &'static str {
        let create: Create = serde_json::from_str(json).expect("well-formed");
        Spec::new(&create, &config()).expect_err("invalid").field
    }

    #[test]
    fn every_bad_field_is_named() {
        for (json, field) in [
            (r#"{}"#, "argv"),
            (r#"{"argv":["true"],"script":"true"}"#, "script"),
            (r#"{"argv":[""]}"#, "argv"),
            (r#"{"argv":["a\u0000b"]}"#, "argv"),
            (r#"{"script":"a\u0000b"}"#, "script"),
            (r#"{"argv":["true"],"task_id":"../x"}"#, "task_id"),
            (r#"{"argv":["true"],"task_id":""}"#, "task_id"),
            (r#"{"argv":["true"],"task_id":"journal"}"#, "task_id"),
            (r#"{"argv":["true"],"cwd":"here"}"#, "cwd"),
            (r#"{"argv":["true"],"env":{"A=B":"1"}}"#, "env"),
            (r#"{"argv":["true"],"stdin":"a","stdin_b64":"YQ=="}"#, "stdin_b64"),
            (r#"{"argv":["true"],"stdin_b64":"?"}"#, "stdin_b64"),
            (r#"{"argv":["true"],"terminal":{"rows":0,"cols":80}}"#, "terminal"),
            (r#"{"argv":["true"],"terminal":{"rows":24,"cols":80},"stdin":"a"}"#, "terminal"),
            (r#"{"argv":["true"],"timeout":"10"}"#, "timeout"),
            (r#"{"argv":["true"],"timeout":"10000h"}"#, "timeout"),
            (r#"{"argv":["true"],"connect_ports":[80]}"#, "connect_ports"),
            (r#"{"argv":["true"],"priority":101}"#, "priority"),
            (r#"{"argv":["true"],"limits":{"output_bytes":0}}"#, "limits.output_bytes"),
            (r#"{"argv":["true"],"limits":{"open_files":0}}"#, "limits.open_files"),
            (r#"{"argv":["true"],"setup":[""]}"#, "setup"),
        ] {
            assert_eq!(field_of(json), field, "{json}");
        }
    }

    #[test]
    fn a_script_is_given_to_the_shell_as_one_argument() {
        let create = Create { script: Some("echo 'a b'".into()), ..Create::default() };
        assert_eq!(Spec::new(&create, &config()).expect("valid").argv, ["/bin/sh", "-c", "echo 'a b'"]);
    }
}
