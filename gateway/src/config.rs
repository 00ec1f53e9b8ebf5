//! Every setting: one table from which the command line, the environment and the docs are read.
//!
//! Precedence is flag > environment > default. All mistakes are reported together (exit 78).

use std::collections::BTreeMap;
use std::ffi::OsString;

use protocol::setting::{self, is_service_link};
pub use protocol::setting::{Mistake, Setting};

pub mod parse;

const fn setting(name: &'static str, default: &'static str, value: &'static str, help: &'static str) -> Setting {
    Setting::new("GATEWAY", name, default, value, help)
}

/// All settings, in the order in which help and docs show them.
pub const SETTINGS: &[Setting] = &[
    setting("listen", "[::]:8080", "ADDRESS", "address of sessions, API, health and metrics; port 0 picks a free one"),
    setting("tls_cert_file", "", "FILE", "certificate of the listener with its chain (PEM); without it, plain HTTP"),
    setting("tls_key_file", "", "FILE", "its key (PEM); both are read anew when they change"),
    setting(
        "database_url",
        "sqlite:/var/lib/gateway/gateway.db",
        "URL",
        "the store, sqlite:PATH or postgres://…; `gateway migrate up` makes its schema; environment only",
    )
    .alias(&["DATABASE_URL"])
    .secret(),
    setting(
        "advertise_url",
        "",
        "URL",
        "how other gateways on the same PostgreSQL reach this one; without it, it works with its store alone",
    ),
    setting(
        "advertise_ca_file",
        "",
        "FILE",
        "who signed the certificates of the other gateways; else the machine's bundle",
    ),
    setting("advertise_name", "", "NAME", "the name in their certificates, where it is not the one in their URLs"),
    setting(
        "balance_after",
        "30s",
        "DURATION",
        "so long after another gateway has joined, sessions above this one's share are asked to dial again",
    ),
    setting("user_tokens_file", "", "FILE", "who may call the API: a line each, NAME TOKEN or NAME sha256:HEX"),
    setting(
        "sandbox_tokens_file",
        "",
        "FILE",
        "who may dial in, beside those that were registered by the API: AGENT_ID TOKEN or AGENT_ID sha256:HEX",
    ),
    setting("admission_rate", "500", "NUMBER", "sessions that may begin in one second; others get a reserved time"),
    setting("beat", "30s", "DURATION", "T: between two beats of a session; silence of 1.5 T + 5 s ends it"),
    setting("events_keep_age", "168h", "DURATION", "events of a sandbox that are older are removed"),
    setting("events_keep_count", "100000", "NUMBER", "so many of the newest events of each sandbox are kept"),
    setting("backend", "none", "none|kubernetes", "who makes sandboxes that are asked for: nobody, or a cluster")
        .alias(&["HIVE_CONTAINER_RUNTIME_BACKEND"]),
    setting("kubernetes_namespace", "", "NAME", "the namespace of its Pods, the only one that is looked at")
        .alias(&["HIVE_K8S_AGENT_NAMESPACE"]),
    setting(
        "kubernetes_controller_id",
        "",
        "TEXT",
        "the exact id of this gateway, which tells its Pods from those of others; it must never change",
    ),
    setting("kubernetes_template", "", "FILE", "the Pod that every sandbox is made from (YAML or JSON), read at start"),
    setting(
        "kubernetes_delivery",
        "template",
        "template|auto",
        "how the supervisor comes into a sandbox: as the template has it; or by its image volume where a Pod has run so, else by an init container",
    ),
    setting("kubernetes_kubeconfig", "", "FILE", "the way to the cluster; without it, as a Pod of it"),
    setting("kubernetes_context", "", "NAME", "a context of that file; without it, its current one"),
    setting("kubernetes_ready_limit", "300s", "DURATION", "a Pod that is not ready after so long has failed"),
    setting("kubernetes_unschedulable_limit", "120s", "DURATION", "a Pod that no node takes for so long has failed"),
    setting(
        "kubernetes_preflight_image",
        "",
        "IMAGE",
        "what `gateway preflight` runs in, instead of the template's image",
    ),
    setting(
        "identity_audience",
        "",
        "AUDIENCE",
        "who dials may show the token of its Pod's service account, made for this audience; turns that on",
    ),
    setting("identity_namespaces", "", "LIST", "the namespaces whose Pods may dial so"),
    setting(
        "identity_check",
        "keys",
        "keys|tokenreview",
        "who checks these tokens: we, by the keys that the cluster publishes, or the API server each time",
    ),
    setting("grace", "25s", "DURATION", "from a stop signal to the end; one deadline for everything"),
    setting("log_format", "json", "json|plain", "log lines on stderr"),
    setting("log_level", "info", "error|warn|info|debug", "least severity that is logged"),
];

/// Settings of the commands that speak to a gateway: `gateway sandbox`, `gateway task`.
pub const CLIENT: &[Setting] = &[
    setting("url", "", "URL", "the gateway; without it, the one that `gateway dev` runs here"),
    setting("token_file", "", "FILE", "your token, which the gateway's file of users has"),
    setting("ca_file", "", "FILE", "who signed the gateway's certificate; else the machine's bundle"),
    setting("plain", "false", "true|false", "send the token without TLS to another machine: the network is trusted"),
];

/// The row of that name.
pub fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().chain(CLIENT).find(|s| s.name == name)
}

/// Where parts read their settings; keeps the mistakes.
pub struct Reader {
    flags: BTreeMap<&'static str, String>,
    variables: Vec<(OsString, OsString)>,
    mistakes: Vec<Mistake>,
}

impl Reader {
    /// Flags as parsed, and the environment as it is.
    pub fn new(flags: BTreeMap<&'static str, String>, variables: Vec<(OsString, OsString)>) -> Reader {
        let mut reader = Reader { flags, variables, mistakes: Vec::new() };
        reader.refuse_unknown_variables();
        reader
    }

    /// The value, or the default; a value that does not parse is a mistake and yields the default.
    pub fn value<T>(&mut self, name: &'static str, parse: impl Fn(&str) -> Result<T, String>) -> T {
        let default = find(name).map_or("", |s| s.default);
        self.optional(name, &parse)
            .unwrap_or_else(|| parse(default).expect("defaults parse: `every_default_parses` reads them all"))
    }

    /// The value where one was given and is not empty.
    pub fn optional<T>(&mut self, name: &'static str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let (setting, raw) = self.raw(name)?;
        match raw.to_str().ok_or_else(|| "is not UTF-8".to_string()).and_then(parse) {
            Ok(value) => Some(value),
            Err(problem) => {
                self.mistakes.push(Mistake { setting, problem });
                None
            }
        }
    }

    /// Note a mistake.
    pub fn mistake(&mut self, name: &str, problem: &str) {
        let setting = find(name).map_or_else(|| name.into(), Setting::variable);
        self.mistakes.push(Mistake { setting, problem: problem.into() });
    }

    /// All mistakes, in the order found.
    pub fn finish(self) -> Vec<Mistake> {
        self.mistakes
    }

    /// What was given, and what the operator called it.
    fn raw(&self, name: &str) -> Option<(String, OsString)> {
        let setting = find(name)?;
        if let Some(value) = self.flags.get(name).filter(|value| !value.is_empty()) {
            return Some((format!("--{}", setting.flag()), value.into()));
        }
        setting.variables().find_map(|name| {
            let (_, value) = self.variables.iter().find(|(key, value)| key == name.as_str() && !value.is_empty())?;
            Some((name, value.clone()))
        })
    }

    /// A misspelt setting would be silently without effect.
    fn refuse_unknown_variables(&mut self) {
        for (key, _) in &self.variables {
            let Some(rest) = key.to_str().and_then(|k| k.strip_prefix("GATEWAY_")) else { continue };
            if !is_service_link(rest) && find(&rest.to_lowercase()).is_none() {
                let problem = "no such setting; `gateway settings` lists them".into();
                self.mistakes.push(Mistake { setting: format!("GATEWAY_{rest}"), problem });
            }
        }
    }
}

/// The tables of the gateway's settings and of its clients', as `docs/configuration.md` has them.
pub fn markdown() -> String {
    format!("{}\n{}", setting::markdown(SETTINGS), setting::markdown(CLIENT))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::Config;

    fn read(pairs: &[(&str, &str)]) -> Result<Config, Vec<Mistake>> {
        let mut reader = Reader::new(BTreeMap::new(), pairs.iter().map(|(k, v)| (k.into(), v.into())).collect());
        crate::logs::Config::read(&mut reader);
        Config::read(reader)
    }

    #[test]
    fn every_default_parses() {
        assert!(read(&[]).is_ok());
    }

    #[test]
    fn all_mistakes_are_reported_together() {
        let mistakes = read(&[
            ("GATEWAY_LISTEN", "nowhere"),
            ("GATEWAY_BEAT", "30"),
            ("GATEWAY_LOG_FORMAT", "xml"),
            ("GATEWAY_LISSTEN", ":1"),
            ("DATABASE_URL", "mysql://root:s3cret@db/x"),
        ]);
        let text: Vec<String> = mistakes.err().expect("mistakes").iter().map(ToString::to_string).collect();
        assert_eq!(text.len(), 5, "{text:?}");
        assert!(text.iter().any(|line| line.starts_with("DATABASE_URL: ")) && !text.concat().contains("s3cret"));
    }

    #[test]
    fn what_kubernetes_makes_for_a_service_called_gateway_is_no_mistake() {
        assert!(read(&[("GATEWAY_SERVICE_HOST", "10.0.0.1"), ("GATEWAY_PORT", "tcp://10.0.0.1:8080")]).is_ok());
    }

    #[test]
    fn a_flag_goes_before_the_environment_and_an_own_name_before_an_alias() {
        let variables = [("GATEWAY_BEAT", "10s"), ("DATABASE_URL", "sqlite:/b"), ("GATEWAY_DATABASE_URL", "sqlite:/a")];
        let flags = BTreeMap::from([("beat", "20s".to_string())]);
        let reader = Reader::new(flags, variables.iter().map(|(k, v)| (k.into(), v.into())).collect());
        let config = Config::read(reader).expect("no mistake");
        assert_eq!((config.beat.as_secs(), config.database_url.as_str()), (20, "sqlite:/a"));
    }
}
