//! The agent's environment: an allow-list, so that nothing passes because nobody thought of it (000-63).

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// What any program may expect and no secret is kept in.
pub const BASE: &[&str] = &[
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LANGUAGE",
    "LC_*",
    "TZ",
    "TERM",
    "COLORTERM",
    "NO_COLOR",
    "TMPDIR",
    "HOSTNAME",
    "PWD",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];

/// Provider keys that pass without being named (000-63); an absent one is simply not there (000-68).
pub const PROVIDER_KEYS: &[&str] = &["OPENAI_API_KEY", "ANTHROPIC_API_KEY", "DEEPSEEK_API_KEY", "QWEN_API_KEY"];

/// Ours. They never pass, whatever a pattern says: the token's path and the gateway's secret are among them.
const OWN: &[&str] = &["SUPERVISOR_*", "HIVE_*", "OPENHIVE_*", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

/// `KEY=VALUE` of what passes, with `set` and then `extra` over it; sorted, each key once.
pub fn build(
    inherited: &[(OsString, OsString)],
    allow: &[String],
    set: &[(String, String)],
    extra: &[(OsString, OsString)],
) -> Vec<OsString> {
    let mut env = std::collections::BTreeMap::new();
    for (key, value) in inherited {
        let allowed = matches_any(key, BASE) || matches_any(key, PROVIDER_KEYS) || matches_any(key, allow);
        if allowed && !matches_any(key, OWN) {
            env.insert(key.clone(), value.clone());
        }
    }
    env.extend(set.iter().map(|(k, v)| (OsString::from(k), OsString::from(v))));
    env.extend(extra.iter().cloned());
    env.into_iter()
        .map(|(mut key, value)| {
            key.push("=");
            key.push(value);
            key
        })
        .collect()
}

fn matches_any(key: &OsStr, patterns: &[impl AsRef<str>]) -> bool {
    patterns.iter().any(|pattern| match pattern.as_ref().strip_suffix('*') {
        Some(prefix) => key.as_bytes().starts_with(prefix.as_bytes()),
        None => key == pattern.as_ref(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(list: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
        list.iter().map(|(k, v)| (k.into(), v.into())).collect()
    }

    #[test]
    fn what_nobody_allowed_does_not_pass() {
        let inherited = pairs(&[("PATH", "/bin"), ("AWS_SECRET_ACCESS_KEY", "x"), ("LC_ALL", "C"), ("MY_A", "1")]);
        let env = build(&inherited, &["MY_*".into()], &[], &[]);
        assert_eq!(env, ["LC_ALL=C", "MY_A=1", "PATH=/bin"]);
    }

    #[test]
    fn our_own_settings_and_secrets_never_pass_by_a_pattern() {
        let inherited = pairs(&[("SUPERVISOR_API_TOKEN_FILE", "/t"), ("HIVE_INTERNAL_SECRET", "s"), ("HX", "1")]);
        assert_eq!(build(&inherited, &["H*".into(), "S*".into()], &[], &[]), ["HX=1"]);
    }

    #[test]
    fn what_is_set_wins_over_what_is_inherited() {
        let set = [("HOME".to_string(), "/home/codex".to_string())];
        assert_eq!(build(&pairs(&[("HOME", "/")]), &[], &set, &[]), ["HOME=/home/codex"]);
    }
}
