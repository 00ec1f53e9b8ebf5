//! How other gateways on the same store reach this one, and how it reaches them.

use std::net::Ipv6Addr;
use std::time::Duration;

use peer::Address;
use peer::address::AddressError;
use peer::tls;

use crate::config::{Reader, parse};

/// What is configured of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where this one is for the others.
    pub url: String,
    /// The certificates of the others.
    pub tls: Tls,
    /// So long after another one has joined it gets its share of the sessions.
    pub balance_after: Duration,
}

/// How the certificates of other gateways are checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// Who signed them.
    pub config: tls::Config,
    /// The name that they have; `None` for the one in their URL.
    pub name: Option<String>,
}

impl Config {
    /// `None` where this gateway has its store alone.
    pub fn read(reader: &mut Reader, database_url: &str) -> Option<Config> {
        let url = reader.optional("advertise_url", url);
        let ca_file = reader.optional("advertise_ca_file", parse::path);
        let name = reader.optional("advertise_name", parse::visible);
        let balance_after = reader.value("balance_after", parse::duration);
        if url.is_none() {
            for (setting, given) in [("advertise_ca_file", ca_file.is_some()), ("advertise_name", name.is_some())] {
                if given {
                    reader.mistake(setting, "is of no use without GATEWAY_ADVERTISE_URL");
                }
            }
        }
        let url = url?;
        if database_url.starts_with("sqlite:") {
            let problem =
                "is for several gateways on one store, and an SQLite file is one gateway's at a time: use PostgreSQL";
            reader.mistake("advertise_url", problem);
        }
        let tls = Tls { config: tls::Config { ca_file, identity: None }, name };
        Some(Config { url, tls, balance_after })
    }
}

/// A base URL. A Pod's address stands in it as the cluster writes it, so that of IPv6 gets its brackets here.
fn url(text: &str) -> Result<String, String> {
    let parts = text.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.rsplit_once(':')?)));
    let text = match parts {
        Some((scheme, (host, port))) if host.parse::<Ipv6Addr>().is_ok() => format!("{scheme}://[{host}]:{port}"),
        _ => text.to_owned(),
    };
    let address: Address = text.parse().map_err(|error: AddressError| error.to_string())?;
    // `::1` without a port is read as a host of colons.
    if address.host.contains(':') && address.host.parse::<Ipv6Addr>().is_err() {
        return Err("has a host that is neither a name nor an address".into());
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_as_a_cluster_writes_it() {
        for (given, taken) in [
            ("http://10.1.2.3:8080", "http://10.1.2.3:8080"),
            ("http://fd00::5:8080", "http://[fd00::5]:8080"),
            ("https://[fd00::5]:8080", "https://[fd00::5]:8080"),
        ] {
            assert_eq!(url(given).as_deref(), Ok(taken));
        }
        for bad in ["10.1.2.3:8080", "http://", "http://a@b:1", "http://::1", "ftp://fd00::5:80"] {
            assert!(url(bad).is_err(), "{bad}");
        }
    }
}
