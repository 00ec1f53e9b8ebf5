//! Where a gateway is: an URL in its parts.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use axum::http::Uri;

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
    /// What goes before every path; without a slash at its end.
    pub base: String,
}

impl Address {
    /// Whether it is on this machine.
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
    }
}

impl FromStr for Address {
    type Err = String;

    /// `http` or `https`, and a base path or none. A problem never repeats the text: it may have a password in it.
    fn from_str(text: &str) -> Result<Address, String> {
        let uri: Uri =
            text.parse().map_err(|_| "is not a URL; write for instance https://gateway.example".to_string())?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err("is neither https nor http; write for instance https://gateway.example".into()),
        };
        let authority = uri.authority().map(|authority| authority.as_str().to_owned()).unwrap_or_default();
        if authority.contains('@') {
            return Err("has a name or password in it; use GATEWAY_TOKEN_FILE".into());
        }
        if uri.query().is_some() {
            return Err("has a query; it ends with a host, a port or a path".into());
        }
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err("has no host".into());
        }
        let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        Ok(Address { tls, host, port, authority, base: uri.path().trim_end_matches('/').to_owned() })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", if self.tls { "https" } else { "http" }, self.authority, self.base)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_base_url() {
        let address: Address = "https://gateway.example/base/".parse().expect("good");
        assert_eq!((address.port, address.base.as_str(), address.tls), (443, "/base", true));
        let address: Address = "http://[::1]:8080".parse().expect("good");
        assert_eq!((address.host.as_str(), address.port), ("::1", 8080));
        assert!(address.is_loopback());
        assert_eq!(address.to_string(), "http://[::1]:8080");
    }

    #[test]
    fn an_address_that_is_wrong_is_not_repeated() {
        for bad in ["gateway", "ftp://x", "https://name:secret@x", "https://x/?token=secret", "https://", ""] {
            let problem = bad.parse::<Address>().expect_err(bad);
            assert!(!problem.contains("secret"), "{problem}");
        }
    }
}
