//! `/etc/hosts` (hosts(5)) and `/etc/resolv.conf` (resolv.conf(5)).

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// What is more is not asked, as in the C library.
const SERVERS: usize = 3;
/// Kubernetes gives up to 32.
const SEARCH: usize = 32;

/// How to ask.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) servers: Vec<IpAddr>,
    search: Vec<String>,
    ndots: usize,
    pub(crate) timeout: Duration,
    pub(crate) attempts: usize,
}

impl Settings {
    pub(crate) fn parse(text: &str) -> Settings {
        let mut settings = Settings {
            servers: Vec::new(),
            search: Vec::new(),
            ndots: 1,
            timeout: Duration::from_secs(5),
            attempts: 2,
        };
        for line in text.lines() {
            let mut words = line.split(['#', ';']).next().unwrap_or_default().split_whitespace();
            match words.next() {
                Some("nameserver") => settings.servers.extend(words.next().and_then(server)),
                Some("search" | "domain") => {
                    settings.search = words.map(|word| word.trim_matches('.').to_owned()).collect();
                }
                Some("options") => words.for_each(|word| settings.option(word)),
                _ => {}
            }
        }
        settings.servers.truncate(SERVERS);
        settings.search.truncate(SEARCH);
        settings.search.retain(|domain| !domain.is_empty());
        if settings.servers.is_empty() {
            settings.servers.push(Ipv4Addr::LOCALHOST.into());
        }
        settings
    }

    fn option(&mut self, word: &str) {
        let Some((name, value)) = word.split_once(':') else { return };
        let Ok(value) = value.parse::<u8>() else { return };
        match name {
            "ndots" => self.ndots = value.min(15).into(),
            "timeout" => self.timeout = Duration::from_secs(value.clamp(1, 30).into()),
            "attempts" => self.attempts = value.clamp(1, 5).into(),
            _ => {}
        }
    }

    /// The full names to ask for, in order: a name with enough dots as it is first, any other with the search list first.
    pub(crate) fn candidates(&self, host: &str) -> Vec<String> {
        let mut names: Vec<String> = self.search.iter().map(|domain| format!("{host}.{domain}")).collect();
        let dots = host.bytes().filter(|byte| *byte == b'.').count();
        names.insert(if dots >= self.ndots { 0 } else { names.len() }, host.to_owned());
        names
    }
}

/// A zone (`fe80::1%eth0`) is left out: there are no link-local name servers in a Pod.
fn server(text: &str) -> Option<IpAddr> {
    text.parse().ok()
}

/// The addresses that a hosts file has for a name.
pub(crate) fn hosts(text: &str, host: &str) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for line in text.lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let Some(address) = words.next().and_then(|word| word.parse().ok()) else { continue };
        if words.any(|name| name.trim_end_matches('.').eq_ignore_ascii_case(host)) {
            found.push(address);
        }
    }
    found
}
