//! What the program may use: rlimits, nice value. Its oom score comes with the fork ([`crate::oom`]).
//!
//! Applied while the supervisor's privileges are still there, since raising needs them.

use nix::sys::resource::{Resource as Kind, getrlimit, setrlimit};
use protocol::control::{Failure, Step};
use protocol::policy::{Limit, Policy, Resource};

use crate::failure::{because, failed};
use crate::kernel;

/// All of them.
pub fn apply(policy: &Policy) -> Result<(), Failure> {
    for limit in &policy.limits {
        set(limit)?;
    }
    if let Some(nice) = policy.nice {
        let why = format!("setting the nice value {nice} (a lower one than the supervisor's own needs CAP_SYS_NICE)");
        kernel::set_nice(nice.into()).map_err(because(Step::Nice, why))?;
    }
    Ok(())
}

fn set(limit: &Limit) -> Result<(), Failure> {
    let (kind, name) = kind(limit.resource);
    setrlimit(kind, limit.soft, limit.hard).map_err(|errno| {
        let own = getrlimit(kind).map_or_else(|_| "unknown".to_owned(), |(_, hard)| hard.to_string());
        failed(
            Step::Limits,
            errno as i32,
            format!(
                "limit {name} cannot be set to {}:{}: {} (soft may not be above hard, and hard above the \
                 supervisor's own, {own}, needs CAP_SYS_RESOURCE)",
                limit.soft,
                limit.hard,
                errno.desc()
            ),
        )
    })
}

fn kind(resource: Resource) -> (Kind, &'static str) {
    match resource {
        Resource::Core => (Kind::RLIMIT_CORE, "core"),
        Resource::Cpu => (Kind::RLIMIT_CPU, "cpu"),
        Resource::Data => (Kind::RLIMIT_DATA, "data"),
        Resource::Fsize => (Kind::RLIMIT_FSIZE, "fsize"),
        Resource::Nofile => (Kind::RLIMIT_NOFILE, "nofile"),
        Resource::Nproc => (Kind::RLIMIT_NPROC, "nproc"),
        Resource::As => (Kind::RLIMIT_AS, "as"),
        Resource::Stack => (Kind::RLIMIT_STACK, "stack"),
        Resource::Memlock => (Kind::RLIMIT_MEMLOCK, "memlock"),
    }
}
