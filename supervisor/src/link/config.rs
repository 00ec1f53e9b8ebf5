//! The settings of the link, and where the gateway is.

use std::path::PathBuf;
use std::time::Duration;

use peer::address::{Address, AddressError};
use peer::tls;
use protocol::call;
use protocol::session::{Offline, OfflineAction, Pod};

use super::lines::Budget;
use super::offline;
use super::proxy::Proxy;
use crate::config::{Reader, parse};

/// A link that is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where to.
    pub gateway: Address,
    /// Whose supervisor this is.
    pub agent_id: String,
    /// On the way there.
    pub proxy: Option<Proxy>,
    /// Read anew for each dial; `None` where the certificate says who we are.
    pub token_file: Option<PathBuf>,
    /// Whom to trust, and our own certificate.
    pub tls: tls::Config,
    /// P until the gateway has told a newer one.
    pub window: Option<Duration>,
    /// How long the sandbox goes on without a gateway, and what it does then.
    pub offline: Offline,
    /// Between two measurements of the sandbox.
    pub samples: Duration,
    /// The Pod, where there is one.
    pub pod: Option<Pod>,
    /// Of the log lines that go to the gateway; `None` where none is to go.
    pub logs: Option<Budget>,
}

impl Config {
    /// From the settings `gateway_url`, `link_*` and `pod_*`. `None` where no gateway is set, or nothing that it could know
    /// us by: a gateway's address alone has other uses.
    /// `file` has the files that were found to be readable and closed to the agent.
    pub fn read(
        reader: &mut Reader<'_>,
        agent_id: &str,
        file: impl Fn(&'static str) -> Option<PathBuf>,
    ) -> Option<Config> {
        let gateway = reader.optional("gateway_url", address);
        let token_file = file("link_token_file");
        let (certificate, key) = (file("link_cert_file"), file("link_key_file"));
        if certificate.is_some() != key.is_some() {
            reader.mistake(reader.origin("link_cert_file"), "and link_key_file need each other");
        }
        let tls = tls::Config { ca_file: file("link_ca_file"), identity: certificate.zip(key) };
        let window = reader.optional("link_window", parse::duration);
        let offline = Offline {
            after_ms: reader.value("link_offline_after", parse::positive_duration).as_millis() as i64,
            action: reader.value("link_offline_action", offline_action),
        };
        let samples = reader.value("link_samples", samples);
        let plain = reader.value("link_plain", parse::boolean);
        let pod = pod(reader);
        let logs = reader.value("link_logs", parse::boolean);
        let (rate, burst) = (reader.value("link_logs_rate", parse::size), reader.value("link_logs_burst", parse::size));
        if token_file.is_none() && tls.identity.is_none() {
            return None;
        }
        let Some(gateway) = gateway else {
            if !reader.is_set("gateway_url") {
                reader
                    .mistake(reader.origin("gateway_url"), "is needed beside a token or a certificate for the gateway");
            }
            return None;
        };
        if agent_id.is_empty() {
            reader.mistake(
                reader.origin("agent_id"),
                "is needed, because the gateway must know whose supervisor this is",
            );
        }
        if !gateway.tls && !plain && !gateway.is_loopback() {
            let problem = "would send the token in the open; use wss, or say SUPERVISOR_LINK_PLAIN=true where the network \
                           is trusted";
            reader.mistake(reader.origin("gateway_url"), problem);
        }
        let logs = logs.then_some(Budget { rate, burst });
        let proxy = Proxy::read(reader, &gateway);
        Some(Config { gateway, proxy, agent_id: agent_id.into(), token_file, tls, window, offline, samples, pod, logs })
    }

    /// Whom a signed call must be for.
    pub fn audience(&self) -> &str {
        call::audience(self.pod.as_ref(), &self.agent_id)
    }
}

/// More often, the measuring itself would be what is measured.
fn samples(text: &str) -> Result<Duration, String> {
    let asked = parse::duration(text)?;
    if asked < Duration::from_millis(100) { Err("must be at least 100ms".into()) } else { Ok(asked) }
}

fn offline_action(text: &str) -> Result<OfflineAction, String> {
    let actions = [OfflineAction::Keep, OfflineAction::Stop, OfflineAction::StopAfterTasks];
    let named = actions.into_iter().find(|action| offline::name(*action) == text);
    named.ok_or_else(|| "is neither keep, stop nor stop-after-tasks".into())
}

fn pod(reader: &mut Reader<'_>) -> Option<Pod> {
    let mut text = |name| reader.optional(name, parse::text);
    let (name, namespace, uid) = (text("pod_name"), text("pod_namespace"), text("pod_uid"));
    Some(Pod { name: name?, namespace: namespace.unwrap_or_default(), uid: uid.unwrap_or_default() })
}

fn address(text: &str) -> Result<Address, String> {
    text.parse().map_err(|error| match error {
        AddressError::Credentials => format!("{error}; use SUPERVISOR_LINK_TOKEN_FILE"),
        other => other.to_string(),
    })
}
