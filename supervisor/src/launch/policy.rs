//! From configuration and request to the policy that the shim obeys.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use protocol::policy::{Identity, Policy, Program, Session};

use super::program::{self, ProgramError};
use super::readable::Remembered;
use super::{Config, Request, environment, files};

/// The kernel's limits for one argument or variable (`MAX_ARG_STRLEN`) and for all together with a stack of 8 MiB
/// (`execve(2)`).
const MAX_STRING: usize = 128 * 1024;
const MAX_STRINGS: usize = 2 * 1024 * 1024;

/// The policy for one program, and for a shim whose zygote holds open what was found with the number `held`.
pub fn build(
    config: &Config,
    request: &Request,
    session: Session,
    remembered: &Remembered,
    held: Option<u64>,
) -> Result<Policy, ProgramError> {
    let env = environment::build(&config.environment, &config.env_allow, &config.env, &request.env);
    refuse_what_exec_refuses(&request.argv, &env)?;
    let path = variable(&env, "PATH");
    let name = request.argv.first().ok_or(ProgramError::Arguments("are empty"))?;
    let file = program::resolve(name, request.cwd.as_deref(), path)?;
    let home = variable(&operators_environment(config, request), "HOME").map(PathBuf::from);
    let files = files::files(config, home.as_deref(), remembered, held).map_err(ProgramError::Paths)?;
    Ok(Policy {
        program: Program {
            path: file.into(),
            argv: request.argv.clone(),
            env,
            cwd: request.cwd.clone().map(Into::into),
            umask: config.umask,
        },
        session,
        identity: config.user.map(|(uid, gid)| Identity { uid, gid, groups: Vec::new() }),
        limits: config.limits.clone(),
        oom_score_adj: Some(config.oom_score_adj),
        nice: config.nice,
        files: files.rules,
        held: files.held,
        class: config.class,
        connect_ports: (!config.connect_ports.is_empty()).then(|| config.connect_ports.clone()),
        supervisor_pid: std::process::id() as i32,
        enforcement: config.enforcement,
        required: config.guarantees.clone(),
        lifeline_grace: config.grace,
        leftover_grace: config.leftover_grace,
    })
}

/// HOME is writable, and a dev-task's variables come from a client, who must not choose what is.
fn operators_environment(config: &Config, request: &Request) -> Vec<OsString> {
    let from_client = matches!(request.streams, super::Streams::Task { .. } | super::Streams::Terminal(_));
    let own = if from_client { &[] } else { request.env.as_slice() };
    environment::build(&config.environment, &config.env_allow, &config.env, own)
}

/// The value of a variable among `KEY=VALUE`.
pub fn variable<'a>(env: &'a [OsString], name: &str) -> Option<&'a OsStr> {
    env.iter().find_map(|pair| {
        let rest = pair.as_bytes().strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
        Some(OsStr::from_bytes(rest))
    })
}

fn refuse_what_exec_refuses(argv: &[OsString], env: &[OsString]) -> Result<(), ProgramError> {
    let mut total = 0;
    for string in argv.iter().chain(env) {
        if string.as_bytes().contains(&0) {
            return Err(ProgramError::Arguments("contain a NUL byte"));
        }
        if string.len() >= MAX_STRING {
            return Err(ProgramError::Arguments(
                "or environment have one string of 128 KiB or more, which the kernel refuses; pass it in a file",
            ));
        }
        // Each string costs its bytes, its NUL and a pointer.
        total += string.len() + 1 + size_of::<usize>();
    }
    if total > MAX_STRINGS {
        return Err(ProgramError::Arguments(
            "and environment have more than 2 MiB together, which the kernel refuses; pass them in a file",
        ));
    }
    Ok(())
}
