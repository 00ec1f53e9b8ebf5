//! The settings of the link, and where the gateway is.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use axum::http::Uri;
use protocol::session::{Offline, OfflineAction, Pod};

use super::lines::Budget;
use super::offline;
use super::proxy::Proxy;
use crate::config::{Reader, parse};
use crate::tls;

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
    /// The Pod, where there is one.
    pub pod: Option<Pod>,
    /// Of the log lines that go to the gateway; `None` where none is to go.
    pub logs: Option<Budget>,
}

/// A gateway's address.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    /// By TLS.
    pub tls: bool,
    /// A name or an address without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Host and port, as the `Host` header has them.
    pub authority: String,
    /// What goes before the path of the session; without a slash at its end.
    pub base: String,
}

/// Without the path, which may be anything.
impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "wss" } else { "ws" }, self.authority)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
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
        if !gateway.tls && !plain && !is_loopback(&gateway.host) {
            let problem = "would send the token in the open; use wss, or say SUPERVISOR_LINK_PLAIN=true where the network \
                           is trusted";
            reader.mistake(reader.origin("gateway_url"), problem);
        }
        let logs = logs.then_some(Budget { rate, burst });
        let proxy = Proxy::read(reader, &gateway);
        Some(Config { gateway, proxy, agent_id: agent_id.into(), token_file, tls, window, offline, pod, logs })
    }
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

/// `ws`, `wss`, `http` or `https`, and a base path or none.
fn address(text: &str) -> Result<Address, String> {
    // Not repeated: it may have a password in it.
    let uri: Uri = text.parse().map_err(|_| "is not a URL; write for instance wss://gateway.example".to_string())?;
    let tls = match uri.scheme_str() {
        Some("wss" | "https") => true,
        Some("ws" | "http") => false,
        _ => return Err("is neither wss, https, ws nor http; write for instance wss://gateway.example".into()),
    };
    let authority = uri.authority().ok_or("has no host")?.as_str().to_owned();
    if authority.contains('@') {
        return Err("has a name or password in it; use SUPERVISOR_LINK_TOKEN_FILE".into());
    }
    if uri.query().is_some() {
        return Err("has a query; the path of the session is added to it, so it must end with a path".into());
    }
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
    if host.is_empty() {
        return Err("has no host".into());
    }
    let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
    Ok(Address { tls, host, port, authority, base: uri.path().trim_end_matches('/').to_owned() })
}

pub(super) fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_base_url() {
        let of = |text| address(text).expect("good");
        assert_eq!(of("wss://gateway.example").port, 443);
        assert_eq!(
            of("http://[::1]:8080/base/"),
            Address {
                tls: false,
                host: "::1".into(),
                port: 8080,
                authority: "[::1]:8080".into(),
                base: "/base".into(),
            }
        );
        assert_eq!(format!("{:?}", of("https://gateway.example:8443/secret")), "wss://gateway.example:8443");
    }

    #[test]
    fn an_address_that_is_wrong_is_not_repeated() {
        for bad in
            ["gateway.example", "ftp://x", "wss://name:secret@x", "wss://x/?token=secret", "wss://", "wss://:1", ""]
        {
            let problem = address(bad).expect_err(bad);
            assert!(!problem.contains("secret"), "{problem}");
        }
    }
}
