//! What the agent is handed: descriptors, directories and environment.

use std::fs;

use protocol::guarantee::Guarantee::{SupervisorNotTraced, TokenUnreadable};

use super::{Outcome, Probe, effect, probe};
use crate::scene::{CANARY, SECRET_VARIABLE, STATE};

pub(super) const PROBES: &[Probe] = &[
    probe("descriptor-beyond-2", SupervisorNotTraced, |_| {
        // reading the directory opens one itself, which is gone afterwards
        let open = |fd: &i32| fs::read_link(format!("/proc/self/fd/{fd}")).is_ok();
        let found: Vec<i32> = (3..1024).filter(open).collect();
        effect(!found.is_empty(), &format!("inherited descriptors {found:?}"))
    }),
    probe("descriptor-of-state-directory", TokenUnreadable, |_| {
        let leaked =
            (0..1024).any(|fd| fs::read_link(format!("/proc/self/fd/{fd}")).is_ok_and(|path| path.starts_with(STATE)));
        effect(leaked, "a descriptor of the state directory")
    }),
    probe("descriptor-of-token", TokenUnreadable, |_| {
        let leaked =
            (3..1024).any(|fd| fs::read(format!("/proc/self/fd/{fd}")).is_ok_and(|b| b.starts_with(CANARY.as_bytes())));
        effect(leaked, "a descriptor of the token")
    }),
    probe("environment-secret", TokenUnreadable, |_| match std::env::var(SECRET_VARIABLE) {
        Ok(_) => Outcome::Escaped("the supervisor's secret is in the environment".into()),
        Err(error) => Outcome::Denied(error.to_string()),
    }),
    probe("environment-canary", TokenUnreadable, |_| {
        let found = std::env::vars_os().any(|(_, value)| value.to_string_lossy().contains(CANARY));
        effect(found, "a secret under any name in the environment")
    }),
];
