//! `supervisor netcheck`: what can be reached from here and what cannot, for `helm test` and for people who debug a
//! network policy in an image without tools.
//!
//! Promises: an address is open when a TCP connection to it stands, and closed when it is refused or does not come about in
//! time. A name that cannot be resolved is neither: that is a failure, whatever was expected. Closed proves nothing where
//! nothing is open, so it is only asked for beside something that must be open.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::net::TcpStream;
use tokio::time::timeout;

use peer::names::Names;

/// How long one address may take; a dropped packet is only told by time.
pub const PATIENCE: Duration = Duration::from_secs(3);
/// What must be open may still be starting, and a policy may still be on its way to the node.
pub const SETTLE: Duration = Duration::from_secs(30);
/// Between two looks at what is not yet as it should be.
const AGAIN: Duration = Duration::from_millis(500);

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    host: String,
    port: u16,
}

impl Target {
    /// From `HOST:PORT`; an IPv6 address stands in brackets.
    pub fn parse(text: &str) -> Result<Target, String> {
        let shape = || format!("`{text}` is not HOST:PORT");
        let (host, port) = text.rsplit_once(':').ok_or_else(shape)?;
        let port = port.parse().ok().filter(|port| *port > 0).ok_or_else(shape)?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        if bare.unwrap_or(host).is_empty() || (bare.is_none() && host.contains(':')) {
            return Err(shape());
        }
        Ok(Target { host: bare.unwrap_or(host).to_owned(), port })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let brackets = self.host.contains(':');
        if brackets { write!(f, "[{}]:{}", self.host, self.port) } else { write!(f, "{}:{}", self.host, self.port) }
    }
}

/// What was found of one target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Found {
    Open,
    Refused,
    Silent,
    /// The name has no address.
    Unknown,
}

/// One assertion and what became of it.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// As it was given.
    pub target: String,
    /// `open` or `closed`.
    pub expected: &'static str,
    /// What it is.
    pub found: Found,
    /// Whether that is as it should be.
    pub ok: bool,
}

/// Ask for all of them until each is as it should be, or `settle` has passed; the last finding of each, in this order.
pub fn check(open: &[Target], closed: &[Target], patience: Duration, settle: Duration) -> io::Result<Vec<Finding>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let deadline = Instant::now() + settle;
    let assertions: Vec<(&Target, bool)> =
        open.iter().map(|target| (target, true)).chain(closed.iter().map(|target| (target, false))).collect();
    runtime.block_on(async {
        loop {
            let mut findings = Vec::new();
            // One after the other: what must be open is a control of what must be closed only at the same time.
            for (target, expected) in &assertions {
                findings.push(judge(target, *expected, patience).await);
            }
            if findings.iter().all(|finding| finding.ok) || Instant::now() >= deadline {
                return Ok(findings);
            }
            tokio::time::sleep(AGAIN).await;
        }
    })
}

async fn judge(target: &Target, open: bool, patience: Duration) -> Finding {
    let found = look(target, patience).await;
    let ok = match found {
        Found::Open => open,
        Found::Refused | Found::Silent => !open,
        Found::Unknown => false,
    };
    Finding { target: target.to_string(), expected: if open { "open" } else { "closed" }, found, ok }
}

/// Open where any of its addresses is.
async fn look(target: &Target, patience: Duration) -> Found {
    let Ok(Ok(addresses)) = timeout(patience, Names::default().resolve(&target.host)).await else {
        return Found::Unknown;
    };
    let mut found = Found::Silent;
    for address in addresses {
        match timeout(patience, TcpStream::connect(SocketAddr::new(address, target.port))).await {
            Ok(Ok(_)) => return Found::Open,
            Ok(Err(_)) => found = Found::Refused,
            Err(_) => {}
        }
    }
    found
}

/// For people: a line each.
pub fn table(findings: &[Finding]) -> String {
    let word = |found| match found {
        Found::Open => "open",
        Found::Refused => "refused",
        Found::Silent => "no answer",
        Found::Unknown => "no such name, or no name server",
    };
    let line = |finding: &Finding| {
        let mark = if finding.ok { "ok  " } else { "FAIL" };
        format!("{mark}  {} should be {}: {}\n", finding.target, finding.expected, word(finding.found))
    };
    findings.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_host_and_a_port() {
        for good in ["gateway:8080", "10.0.0.1:53", "[::1]:8091"] {
            assert_eq!(Target::parse(good).expect(good).to_string(), good);
        }
        for bad in
            ["gateway", "gateway:", ":80", "gateway:0", "gateway:65536", "::1:80", "[]:80", "http://gateway:80x", ""]
        {
            assert!(Target::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn open_refused_and_unknown_are_told_apart_and_only_what_was_expected_is_ok() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
        let open = Target::parse(&listener.local_addr().expect("bound").to_string()).expect("an address");
        let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
        let refused = Target::parse(&taken.local_addr().expect("bound").to_string()).expect("an address");
        drop(taken);
        let unknown = Target::parse("nobody.invalid:1").expect("a name");
        let short = Duration::from_millis(300);
        let of = |open: &[Target], closed: &[Target]| {
            let findings = check(open, closed, short, Duration::ZERO).expect("a runtime");
            findings.iter().map(|finding| (finding.found, finding.ok)).collect::<Vec<_>>()
        };
        let (open, refused, unknown) = ([open], [refused], [unknown]);
        assert_eq!(of(&open, &refused), [(Found::Open, true), (Found::Refused, true)]);
        assert_eq!(of(&refused, &open), [(Found::Refused, false), (Found::Open, false)]);
        assert_eq!(of(&open, &unknown), [(Found::Open, true), (Found::Unknown, false)]);
    }
}
