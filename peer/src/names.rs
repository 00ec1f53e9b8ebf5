//! Names to addresses, because a static program has no name service of the C library's.
//!
//! Promises: a literal address is itself; `/etc/hosts` goes first; then the servers of `/etc/resolv.conf` are asked, with
//! its search list, `ndots`, `timeout` and `attempts`, as a Pod's resolver would. Both files are read anew each time.
//! Only A and AAAA are asked for. What a server says beyond that is not believed and not kept.
//! See `docs/decisions/0017-our-own-resolver.md`.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

pub(crate) mod message;
pub(crate) mod settings;

use crate::random;
use message::{Answer, Kind};
use settings::Settings;

/// Longer is a wrong file.
const MAX_FILE: u64 = 256 * 1024;
/// Without EDNS no answer by datagram is longer than 512 bytes (RFC 1035); some servers do not care.
const MAX_ANSWER: usize = 4096;

/// Why a name has no address.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum NameError {
    #[error("`{0}` is not a name")]
    Invalid(String),
    #[error("there is no address for `{0}`")]
    Unknown(String),
    #[error("no name server has answered for `{name}`")]
    Silent { name: String, source: io::Error },
}

/// Where names are looked up.
#[derive(Clone, Debug)]
pub struct Names {
    hosts: PathBuf,
    settings: PathBuf,
    port: u16,
}

impl Default for Names {
    fn default() -> Names {
        Names::new("/etc/hosts", "/etc/resolv.conf")
    }
}

impl Names {
    /// By these files.
    pub fn new(hosts: impl Into<PathBuf>, settings: impl Into<PathBuf>) -> Names {
        Names { hosts: hosts.into(), settings: settings.into(), port: 53 }
    }

    /// All addresses of `host`, at least one; IPv6 first where both exist, as RFC 6724 has it.
    pub async fn resolve(&self, host: &str) -> Result<Vec<IpAddr>, NameError> {
        if let Ok(address) = host.trim_start_matches('[').trim_end_matches(']').parse() {
            return Ok(vec![address]);
        }
        let host = host.trim_end_matches('.');
        if !message::is_name(host) {
            return Err(NameError::Invalid(host.into()));
        }
        let found = settings::hosts(&read(&self.hosts), host);
        if !found.is_empty() {
            return Ok(found);
        }
        if host.eq_ignore_ascii_case("localhost") {
            return Ok(vec![Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()]);
        }
        self.ask(host).await
    }

    async fn ask(&self, host: &str) -> Result<Vec<IpAddr>, NameError> {
        let settings = Settings::parse(&read(&self.settings));
        let mut silent = None;
        for name in settings.candidates(host) {
            match self.ask_for(&name, &settings).await {
                Ok(addresses) if addresses.is_empty() => {}
                Ok(addresses) => return Ok(addresses),
                Err(error) => {
                    let dead = error.kind() == io::ErrorKind::TimedOut;
                    silent = Some(error);
                    if dead {
                        // Another name would wait as long.
                        break;
                    }
                }
            }
        }
        Err(match silent {
            Some(source) => NameError::Silent { name: host.into(), source },
            None => NameError::Unknown(host.into()),
        })
    }

    /// One full name at each server in turn; no addresses where a server says that there are none.
    async fn ask_for(&self, name: &str, settings: &Settings) -> io::Result<Vec<IpAddr>> {
        let mut last = io::Error::from(io::ErrorKind::TimedOut);
        for server in settings.servers.iter().cycle().take(settings.servers.len() * settings.attempts) {
            match exchange(SocketAddr::new(*server, self.port), name, settings.timeout).await {
                Ok(addresses) => return Ok(addresses),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

/// Ask one server for both kinds at once, over a port of the kernel's choice and with numbers that nobody can guess.
async fn exchange(server: SocketAddr, name: &str, patience: Duration) -> io::Result<Vec<IpAddr>> {
    let local: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((local, 0)).await?;
    // From here on the kernel passes on only what comes from that server.
    socket.connect(server).await?;
    let id = random::bits() as u16;
    let mut waiting = vec![(id, Kind::Aaaa), (id.wrapping_add(1), Kind::A)];
    for (id, kind) in &waiting {
        socket.send(&message::question(*id, name, *kind)).await?;
    }
    let deadline = Instant::now() + patience;
    let mut found = Vec::new();
    let mut bytes = [0; MAX_ANSWER];
    while !waiting.is_empty() {
        let received = timeout_at(deadline, socket.recv(&mut bytes)).await;
        let count = match received {
            Ok(count) => count?,
            // Some servers never answer for AAAA.
            Err(_) if !found.is_empty() => break,
            Err(_) => return Err(io::ErrorKind::TimedOut.into()),
        };
        let message = &bytes[..count];
        let Some(place) = waiting.iter().position(|(id, kind)| message::answers(message, *id, name, *kind)) else {
            continue;
        };
        waiting.swap_remove(place);
        match message::addresses(message) {
            Some(Answer::Addresses(addresses)) => found.extend(addresses),
            Some(Answer::None) => {}
            Some(Answer::Failed) | None if waiting.is_empty() && found.is_empty() => {
                return Err(io::Error::other("the name server failed"));
            }
            Some(Answer::Failed) | None => {}
        }
    }
    found.sort_by_key(|address: &IpAddr| address.is_ipv4());
    Ok(found)
}

/// What cannot be read holds nothing.
fn read(path: &Path) -> String {
    let mut bytes = Vec::new();
    let _ = std::fs::File::open(path)
        .and_then(|file| io::Read::read_to_end(&mut io::Read::take(file, MAX_FILE), &mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests;
