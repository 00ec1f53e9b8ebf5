//! Every setting: one table from which the command line, the environment, the file and the docs are read.
//!
//! Precedence is flag > environment > file > default. A value is looked up once, in `main`; each part reads its own
//! piece through a [`Reader`], which collects the mistakes, so that they are reported together (exit 78).

use std::ffi::{OsStr, OsString};

pub(crate) mod file;
mod nearest;
pub mod parse;
mod sources;

pub use nearest::nearest;
pub use protocol::setting::{Mistake, Setting};
pub use sources::Sources;

const fn setting(name: &'static str, default: &'static str, value: &'static str, help: &'static str) -> Setting {
    Setting::new("SUPERVISOR", name, default, value, help)
}

/// All settings, in the order in which help and docs show them.
pub const SETTINGS: &[Setting] = &[
    setting("config", "", "FILE", "settings file (TOML)"),
    setting("listen", "[::]:8091", "ADDRESS", "address of health, metrics and the API; port 0 picks a free one"),
    setting("state_dir", "/var/lib/supervisor", "DIR", "what survives a restart; never writable by the agent"),
    setting("workspace", "/workspace", "DIR", "the agent's working tree, writable for it"),
    setting("api_token_file", "", "FILE", "bearer token of the API; without it the API is closed"),
    setting("api_signed", "false", "BOOL", "open the API to calls that the gateway has signed for this Pod"),
    setting("grace", "25s", "DURATION", "from a stop signal to KILL; one deadline for everything"),
    setting("termination_log", "", "FILE", "termination message; /dev/termination-log where the kubelet made one"),
    setting("log_format", "json", "json|plain", "our own log lines on stderr"),
    setting("log_level", "info", "error|warn|info|debug", "least severity that is logged"),
    setting("signals_from_inside", "false", "BOOL", "as PID 1, obey stop signals sent from inside the Pod"),
    setting(
        "enforcement",
        "required",
        "required|best-effort",
        "refuse to start where a guarantee does not hold, or say so",
    ),
    setting("guarantees", "", "LIST", "the guarantees that must hold; default: docs/security.md"),
    setting("agent_id", "", "TEXT", "shown in health and in the termination message")
        .alias(&["HIVE_AGENT_ID", "OPENHIVE_AGENT_ID"]),
    setting("project_id", "", "TEXT", "shown in health").alias(&["HIVE_PROJECT_ID", "OPENHIVE_PROJECT_ID"]),
    setting("controller_id", "", "TEXT", "shown in health").alias(&["HIVE_CONTROLLER_ID", "OPENHIVE_CONTROLLER_ID"]),
    setting("deployment_backend", "", "TEXT", "shown in health; `kubernetes` inside a Pod, else `local`")
        .alias(&["HIVE_DEPLOYMENT_BACKEND"]),
    setting("gateway_url", "", "URL", "control plane: wss or https, and a path before that of the session")
        .alias(&["HIVE_GATEWAY_URL"]),
    setting("link_token_file", "", "FILE", "bearer token for the gateway, read anew for each dial; turns the link on"),
    setting("link_ca_file", "", "FILE", "CA certificates for the gateway's; default: the machine's bundle"),
    setting("link_cert_file", "", "FILE", "our own certificate for the gateway, with its chain; turns the link on too"),
    setting("link_key_file", "", "FILE", "key of that certificate"),
    setting(
        "link_window",
        "",
        "DURATION",
        "reconnect window until the gateway has told one: 1.25 × fleet / admission rate",
    ),
    setting(
        "link_offline_after",
        "24h",
        "DURATION",
        "a time without the gateway after which link_offline_action is taken",
    ),
    setting(
        "link_offline_action",
        "keep",
        "keep|stop|stop-after-tasks",
        "what a sandbox does then: go on, end as a stop signal ends it, or end once the running dev-tasks have ended",
    ),
    setting("link_plain", "false", "BOOL", "allow ws and http to another machine; the token then travels in the open"),
    setting(
        "link_samples",
        "60s",
        "DURATION",
        "between two measurements of the sandbox that go to the gateway; at least 100ms",
    ),
    setting("link_logs", "true", "BOOL", "send what the agent and tasks write, line by line"),
    setting("link_logs_rate", "64KiB", "SIZE", "of all these lines, so much in a second; each counts 128 bytes more"),
    setting("link_logs_burst", "256KiB", "SIZE", "so much at once, after some quiet"),
    setting(
        "link_proxy",
        "",
        "URL|none",
        "HTTP proxy on the way to the gateway, or `none`; default: HTTPS_PROXY and NO_PROXY; environment only",
    )
    .secret(),
    setting("pod_name", "", "TEXT", "name of the Pod, from the downward API").alias(&["POD_NAME"]),
    setting("pod_namespace", "", "TEXT", "its namespace").alias(&["POD_NAMESPACE"]),
    setting("pod_uid", "", "TEXT", "its uid").alias(&["POD_UID"]),
    setting("internal_secret", "", "TEXT", "shared secret of the OpenHive gateway; environment only")
        .alias(&["HIVE_INTERNAL_SECRET"])
        .secret(),
    setting(
        "agent_config_json",
        "",
        "JSON",
        "the agent where the command line names none: {\"argv\": [...], \"env\": {...}, \"cwd\": ...}",
    )
    .alias(&["HIVE_AGENT_CONFIG_JSON"]),
    setting("agent_restart", "never", "never|on-failure|always", "start the agent again when it ended"),
    setting("agent_restart_min", "1s", "DURATION", "first back-off; doubles, and half of each is jitter"),
    setting("agent_restart_max", "60s", "DURATION", "longest back-off"),
    setting("agent_env_allow", "", "LIST", "further variables that the agent gets; a trailing * matches a prefix")
        .alias(&["HIVE_SANDBOX_CODEX_ENV_ALLOWLIST"]),
    setting(
        "agent_env",
        "",
        "KEY=VALUE",
        "variables set for the agent; the flag can be repeated, the variable has commas between",
    )
    .verbatim(),
    setting("agent_user", "", "UID[:GID]", "ids of the agent; needs SETUID and SETGID (profile baseline)"),
    setting("agent_cwd", "", "DIR", "the agent's working directory; default: the image's"),
    setting("agent_umask", "0002", "OCTAL", "file mode mask; 0002 shares files with the fsGroup"),
    setting("agent_class", "networked", "networked|local|readonly", "network and workspace class of the agent"),
    setting("agent_connect_ports", "", "LIST", "TCP ports the agent may connect to; a guard rail, not a boundary"),
    setting(
        "agent_write",
        "",
        "LIST",
        "further paths the agent may write, beside workspace, HOME, /tmp, /var/tmp, /dev/shm and /dev/mqueue",
    ),
    setting("agent_hide", "/var/run/secrets", "LIST", "paths the agent cannot open"),
    setting("agent_limits", "", "LIST", "resource limits, NAME=SOFT[:HARD], for instance nofile=1024:4096"),
    setting("agent_nice", "", "NUMBER", "nice value of the agent"),
    setting("agent_oom_score_adj", "500", "NUMBER", "the kernel's OOM killer takes the agent before the supervisor"),
    setting("agent_leftover_grace", "1s", "DURATION", "TERM to KILL for what the agent left behind when it ended"),
    setting("agent_ready", "started", "CHECK", "ready when: started, tcp:PORT, http:PORT/PATH, exec:COMMAND or notify"),
    setting("agent_ready_interval", "1s", "DURATION", "between readiness checks"),
    setting(
        "agent_hung",
        "never",
        "CHECK",
        "hung when this fails: never, tcp:PORT, http:PORT/PATH, exec:COMMAND or notify",
    ),
    setting("agent_hung_interval", "10s", "DURATION", "between checks; with notify, the watchdog time"),
    setting("agent_hung_failures", "3", "NUMBER", "failed checks in a row until the agent counts as hung and is ended"),
    setting("agent_check_timeout", "2s", "DURATION", "one readiness or hung check"),
    setting("task_concurrency", "", "NUMBER", "dev-tasks that run at once; default: twice the cores"),
    setting("task_ready", "2", "NUMBER", "shims that are kept waiting for dev-tasks, from the first dev-task on"),
    setting("task_queue", "256", "NUMBER", "dev-tasks that wait; one more is refused with 429"),
    setting("task_timeout", "1h", "DURATION", "wall time of a dev-task: default and longest"),
    setting("task_output", "64MiB", "SIZE", "kept bytes of each output stream, head and tail: default and most"),
    setting("task_grace", "5s", "DURATION", "TERM to KILL when a dev-task is cancelled or out of time"),
    setting(
        "task_dir",
        "",
        "DIR",
        "scratch, artifacts and workspaces of dev-tasks; default: inside the state directory",
    ),
    setting("task_keep_count", "1000", "NUMBER", "ended dev-tasks that are remembered"),
    setting("task_keep_age", "168h", "DURATION", "how long ended dev-tasks are remembered"),
    setting("task_keep_bytes", "1GiB", "SIZE", "kept output of all dev-tasks together"),
    setting("task_sync", "group", "group|always", "an answer waits for the disk, or the disk follows within 50 ms"),
    setting("task_requeue", "true", "BOOL", "run what was queued when the supervisor ended, or report it as failed"),
    setting("attach_silence", "45s", "DURATION", "an attached client that gives no sign of life for so long is let go"),
    setting("buffer_size", "64MiB", "SIZE", "what waits on disk for the gateway, all of it"),
    setting("buffer_reserve", "4MiB", "SIZE", "of that, for what became of supervisor, agent and tasks alone"),
    setting(
        "buffer_sync",
        "group",
        "group|always",
        "lifecycle records and results wait for the disk, or it follows within 50 and 200 ms",
    ),
    setting("archive_upload", "64MiB", "SIZE", "largest archive or file that a client may send"),
    setting("archive_unpacked", "1GiB", "SIZE", "most that may come out of an archive"),
    setting("relay_url", "", "URL", "applies approved patches: https, or http on this machine")
        .alias(&["HIVE_SANDBOX_WORKSPACE_APPLY_RELAY_URL"]),
    setting("relay_token_file", "", "FILE", "bearer token for the relay"),
    setting("relay_ca_file", "", "FILE", "who may sign the relay's certificate; default: the image's own CA bundle"),
    setting("relay_token", "", "TEXT", "the same token itself; environment only")
        .alias(&["HIVE_SANDBOX_WORKSPACE_APPLY_RELAY_TOKEN"])
        .secret(),
    setting(
        "bootstrap_source",
        "",
        "DIR",
        "defaults that are copied once; `supervisor bootstrap` takes /app/defaults/agent",
    ),
    setting("bootstrap_target", "/data/config", "DIR", "where the defaults go"),
    setting("bootstrap_version", "", "TEXT", "written to .version; default: digest of the source"),
    setting("provider_model", "", "TEXT", "model in ~/.codex/config.toml, written once")
        .alias(&["HIVE_SANDBOX_CODEX_MODEL"]),
    setting("provider_id", "", "TEXT", "provider id").alias(&["HIVE_SANDBOX_CODEX_PROVIDER_ID"]),
    setting("provider_name", "", "TEXT", "provider name").alias(&["HIVE_SANDBOX_CODEX_PROVIDER_NAME"]),
    setting("provider_base_url", "", "URL", "provider endpoint").alias(&["HIVE_SANDBOX_CODEX_BASE_URL"]),
    setting("provider_wire_api", "", "TEXT", "provider wire API").alias(&["HIVE_SANDBOX_CODEX_WIRE_API"]),
    setting("provider_env_key", "", "NAME", "variable that holds the provider's key; it is passed to the agent")
        .alias(&["HIVE_SANDBOX_CODEX_ENV_KEY"]),
    setting("provider_requires_openai_auth", "", "BOOL", "provider needs OpenAI sign-in")
        .alias(&["HIVE_SANDBOX_CODEX_REQUIRES_OPENAI_AUTH"]),
    setting(
        "provider_sandbox_mode",
        "",
        "read-only|workspace-write|danger-full-access",
        "the agent's own inner sandbox; in a Pod, which is the boundary, danger-full-access",
    )
    .alias(&["HIVE_SANDBOX_CODEX_SANDBOX_MODE"]),
    setting("provider_auth_mode", "env", "env", "how the agent gets its keys: from its environment")
        .alias(&["HIVE_SANDBOX_CODEX_AUTH_MODE"]),
];

/// The row of that name.
pub fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|s| s.name == name)
}

/// Where a part reads its settings; keeps the mistakes.
pub struct Reader<'a> {
    sources: &'a Sources,
    mistakes: Vec<Mistake>,
}

impl<'a> Reader<'a> {
    /// A reader over what was found; mistakes found so far are kept.
    pub fn new(sources: &'a Sources) -> Reader<'a> {
        Reader { sources, mistakes: sources.mistakes.clone() }
    }

    /// The value, or the default; a value that does not parse is a mistake and yields the default.
    pub fn value<T>(&mut self, name: &'static str, parse: impl Fn(&str) -> Result<T, String>) -> T {
        let default = find(name).map_or("", |s| s.default);
        self.optional(name, &parse)
            .unwrap_or_else(|| parse(default).expect("defaults parse: `every_default_parses` reads them all"))
    }

    /// The value where one was given and is not empty.
    pub fn optional<T>(&mut self, name: &'static str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let (origin, raw) = self.sources.get(name)?;
        match raw.to_str().ok_or_else(|| "is not UTF-8".to_string()).and_then(&parse) {
            Ok(value) => Some(value),
            Err(problem) => {
                self.mistake(origin, problem);
                None
            }
        }
    }

    /// Every item of a list, split at commas wherever it was given; empty for none.
    pub fn list<T>(&mut self, name: &'static str, parse: impl Fn(&str) -> Result<T, String>) -> Vec<T> {
        let default = find(name).map_or("", |s| s.default);
        let items = self.sources.items(name).unwrap_or_else(|| {
            default.split(',').filter(|i| !i.is_empty()).map(|i| (name.to_string(), i.to_string())).collect()
        });
        let mut parsed = Vec::new();
        for (origin, item) in items {
            match parse(&item) {
                Ok(value) => parsed.push(value),
                Err(problem) => self.mistake(origin, problem),
            }
        }
        parsed
    }

    /// Whether the operator set it anywhere.
    pub fn is_set(&self, name: &str) -> bool {
        self.sources.get(name).is_some()
    }

    /// A variable of the environment, settings or not.
    pub fn environment(&self, name: &str) -> Option<&'a OsStr> {
        self.sources.variable(name)
    }

    /// The whole environment.
    pub fn variables(&self) -> &'a [(OsString, OsString)] {
        self.sources.variables()
    }

    /// What to call this setting in a message: the flag, variable or key that was used.
    pub fn origin(&self, name: &'static str) -> String {
        self.sources.get(name).map_or_else(|| find(name).map_or_else(|| name.into(), Setting::variable), |(o, _)| o)
    }

    /// Note a mistake.
    pub fn mistake(&mut self, setting: impl Into<String>, problem: impl Into<String>) {
        self.mistakes.push(Mistake { setting: setting.into(), problem: problem.into() });
    }

    /// All mistakes, in the order found.
    pub fn finish(self) -> Vec<Mistake> {
        self.mistakes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn environment(pairs: &[(&str, &str)]) -> Sources {
        Sources::gather(BTreeMap::new(), pairs.iter().map(|(k, v)| (k.into(), v.into())).collect())
    }

    #[test]
    fn names_are_unique_and_no_alias_hides_a_setting() {
        let mut names: Vec<String> = SETTINGS.iter().map(Setting::variable).collect();
        names.extend(SETTINGS.iter().flat_map(|s| s.aliases).map(|a| a.to_string()));
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn every_default_parses() {
        let sources = environment(&[]);
        let config = crate::app::Config::read_for(&sources, Vec::new(), None).expect("defaults are right");
        assert_eq!(config.grace, std::time::Duration::from_secs(25));
        assert_eq!(config.listen, "[::]:8091".parse().expect("address"));
    }

    #[test]
    fn a_flag_wins_over_the_environment_and_that_over_the_file() {
        let file = tempfile::NamedTempFile::new().expect("tempfile");
        std::fs::write(&file, "grace = \"1s\"\n[agent]\nrestart = \"always\"\nnice = 3\n").expect("write");
        let env = [("SUPERVISOR_CONFIG", file.path().to_str().expect("utf-8")), ("SUPERVISOR_GRACE", "2s")];
        let read = |flags| {
            let sources = Sources::gather(flags, env.iter().map(|(k, v)| (k.into(), v.into())).collect());
            let mut reader = Reader::new(&sources);
            let values = (reader.value("grace", parse::text), reader.value("agent_restart", parse::text));
            assert_eq!(reader.finish(), []);
            values
        };
        assert_eq!(read(BTreeMap::new()), ("2s".into(), "always".into()));
        assert_eq!(read(BTreeMap::from([("grace", vec!["3s".into()])])).0, "3s");
    }

    #[test]
    fn every_mistake_is_reported_and_each_names_what_the_operator_wrote() {
        let sources = environment(&[
            ("SUPERVISOR_GRACE", "soon"),
            ("SUPERVISOR_GRACEFUL", "1s"),
            ("HIVE_AGENT_CONFIG_JSON", "{"),
        ]);
        let mistakes = crate::app::Config::read_for(&sources, Vec::new(), None).expect_err("three mistakes");
        let named: Vec<&str> = mistakes.iter().map(|m| m.setting.as_str()).collect();
        assert_eq!(named, ["SUPERVISOR_GRACEFUL", "SUPERVISOR_GRACE", "HIVE_AGENT_CONFIG_JSON"]);
    }

    #[test]
    fn variables_that_kubernetes_makes_for_a_service_are_not_settings() {
        let sources = environment(&[("SUPERVISOR_PORT", "tcp://10.0.0.1:80"), ("SUPERVISOR_SERVICE_HOST", "10.0.0.1")]);
        assert_eq!(Reader::new(&sources).finish(), []);
    }

    #[test]
    fn a_list_is_split_at_commas_wherever_it_is_given_unless_its_items_may_hold_them() {
        let flags = BTreeMap::from([
            ("agent_env_allow", vec!["A,B".to_string(), "C".into()]),
            ("agent_env", vec!["X=1,2".to_string()]),
        ]);
        let sources = Sources::gather(flags, Vec::new());
        let mut reader = Reader::new(&sources);
        assert_eq!(reader.list("agent_env_allow", parse::text), ["A", "B", "C"]);
        assert_eq!(reader.list("agent_env", parse::text), ["X=1,2"]);
        let sources = environment(&[("SUPERVISOR_AGENT_ENV", "X=1, Y=2")]);
        assert_eq!(Reader::new(&sources).list("agent_env", parse::text), ["X=1", "Y=2"]);
    }

    #[test]
    fn an_alias_is_read_and_an_empty_value_is_none() {
        let sources = environment(&[("SUPERVISOR_AGENT_ID", ""), ("HIVE_AGENT_ID", "a-1")]);
        assert_eq!(Reader::new(&sources).optional("agent_id", parse::text), Some("a-1".into()));
    }
}
