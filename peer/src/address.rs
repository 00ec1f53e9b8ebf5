//! Where a gateway is: a URL in its parts.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use hyper::Uri;

/// A gateway's address.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    scheme: &'static str,
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

/// Why a text is none. It is not repeated: it may have a password in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum AddressError {
    #[error("is not a URL; write for instance https://gateway.example")]
    Url,
    #[error("is neither wss, https, ws nor http; write for instance https://gateway.example")]
    Scheme,
    #[error("has a name or password in it")]
    Credentials,
    #[error("has a query; it ends with a host, a port or a path")]
    Query,
    #[error("has no host")]
    Host,
    #[error("has a port that is no number from 1 to 65535")]
    Port,
}

impl Address {
    /// Whether it is on this machine.
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
    }
}

impl FromStr for Address {
    type Err = AddressError;

    /// `ws`, `wss`, `http` or `https`, and a base path or none.
    fn from_str(text: &str) -> Result<Address, AddressError> {
        let uri: Uri = text.parse().map_err(|_| AddressError::Url)?;
        let schemes = [("wss", true), ("https", true), ("ws", false), ("http", false)];
        let known = schemes.into_iter().find(|(scheme, _)| uri.scheme_str() == Some(scheme));
        let (scheme, tls) = known.ok_or(AddressError::Scheme)?;
        let authority = uri.authority().ok_or(AddressError::Host)?.as_str().to_owned();
        if authority.contains('@') {
            return Err(AddressError::Credentials);
        }
        if uri.query().is_some() {
            return Err(AddressError::Query);
        }
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err(AddressError::Host);
        }
        let port = port(&uri)?.unwrap_or(if tls { 443 } else { 80 });
        Ok(Address { scheme, tls, host, port, authority, base: uri.path().trim_end_matches('/').to_owned() })
    }
}

/// The port that is written in a URL. What stands in its place and is none is not taken for the scheme's own, which would be another
/// server.
pub fn port(uri: &Uri) -> Result<Option<u16>, AddressError> {
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let place = authority.rsplit('@').next().and_then(|place| place.strip_prefix(uri.host()?)).unwrap_or_default();
    // A colon and nothing behind it is as good as none (RFC 3986, 3.2.3).
    if matches!(place, "" | ":") {
        return Ok(None);
    }
    let digits = place.strip_prefix(':').filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    let port = digits.and_then(|digits| digits.parse().ok()).filter(|port| *port != 0);
    port.map(Some).ok_or(AddressError::Port)
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}{}", self.base)
    }
}

/// Without the path, which may be anything.
impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.authority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_base_url() {
        let of = |text: &str| text.parse::<Address>().expect("good");
        let address = of("https://gateway.example/base/");
        assert_eq!((address.port, address.base.as_str(), address.tls), (443, "/base", true));
        assert_eq!(address.to_string(), "https://gateway.example/base");
        let address = of("ws://[::1]:8080");
        assert_eq!((address.host.as_str(), address.port, address.tls), ("::1", 8080, false));
        assert_eq!((address.authority.as_str(), address.is_loopback()), ("[::1]:8080", true));
        assert_eq!(format!("{:?}", of("wss://gateway.example:8443/secret")), "wss://gateway.example:8443");
    }

    #[test]
    fn an_address_that_is_wrong_is_told_by_what_is_wrong() {
        for (bad, error) in [
            ("gateway.example", AddressError::Scheme),
            ("ftp://x", AddressError::Scheme),
            ("wss://name:secret@x", AddressError::Credentials),
            ("wss://x/?token=secret", AddressError::Query),
            ("wss://", AddressError::Url),
            ("wss://:1", AddressError::Host),
            ("wss://x:0", AddressError::Port),
            ("wss://x:65536", AddressError::Port),
            ("wss://x:+80", AddressError::Port),
            ("wss://[::1]80", AddressError::Port),
            ("", AddressError::Url),
        ] {
            assert_eq!(bad.parse::<Address>(), Err(error), "{bad}");
        }
    }
}
