//! Whether a proxy stands between us and the gateway, and the way through it.
//!
//! Promises: a proxy that was named for the link alone is always taken; the usual variables mean much what curl takes them
//! for (but `HTTP_PROXY` counts too, and a proxy without a port is at 80), and a gateway on this machine is never looked for
//! at their proxy. The gateway's name goes to the proxy unresolved. Name and password of the proxy stand in one header and
//! nowhere else; the gateway's token only ever goes through the tunnel.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, Request, StatusCode, Uri, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use peer::{Address, PeerError, Stream, address};
use tokio::time::timeout;

use super::dial::Driver;
use crate::config::Reader;

/// Its dial of the gateway is in it.
const PATIENCE: Duration = Duration::from_secs(10);

/// An HTTP proxy.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    /// A name or an address without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    credentials: Option<HeaderValue>,
}

/// Without name and password.
impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Why there is no tunnel. Nothing that the proxy said is in it but its status.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub(crate) enum ProxyError {
    #[error("the proxy cannot be reached")]
    Unreachable(#[source] PeerError),
    #[error("the proxy wants another name and password: 407")]
    Denied,
    #[error("the proxy answers {0}")]
    Refused(StatusCode),
    #[error("the proxy does not speak HTTP")]
    Answer(#[from] hyper::Error),
    #[error("the proxy has not answered within {}s", PATIENCE.as_secs())]
    Timeout,
}

impl Proxy {
    /// The one for this gateway: of the setting `link_proxy`, where `none` means none, else of the usual variables.
    pub(super) fn read(reader: &mut Reader<'_>, gateway: &Address) -> Option<Proxy> {
        if reader.is_set("link_proxy") {
            return reader
                .optional("link_proxy", |text| if text == "none" { Ok(None) } else { parse(text).map(Some) })?;
        }
        let variables = if gateway.tls { ["https_proxy", "HTTPS_PROXY"] } else { ["http_proxy", "HTTP_PROXY"] };
        let found = |names: &[&'static str]| {
            let set =
                |name: &&'static str| Some((*name, reader.environment(name)?.to_str()?)).filter(|v| !v.1.is_empty());
            names.iter().find_map(set)
        };
        let (name, text) = found(&variables).or_else(|| found(&["all_proxy", "ALL_PROXY"]))?;
        let spared = found(&["no_proxy", "NO_PROXY"]).is_some_and(|(_, list)| spares(list, &gateway.host));
        if spared || gateway.is_loopback() {
            return None;
        }
        match parse(text) {
            Ok(proxy) => Some(proxy),
            Err(problem) => {
                reader.mistake(name, format!("{problem}, or set SUPERVISOR_LINK_PROXY"));
                None
            }
        }
    }

    /// A tunnel through the proxy, to which `stream` leads, to the gateway.
    pub(crate) async fn tunnel(
        &self,
        stream: impl Stream + 'static,
        gateway: &Address,
    ) -> Result<Box<dyn Stream>, ProxyError> {
        timeout(PATIENCE, self.connect(stream, gateway)).await.unwrap_or(Err(ProxyError::Timeout))
    }

    async fn connect(&self, stream: impl Stream + 'static, gateway: &Address) -> Result<Box<dyn Stream>, ProxyError> {
        let (mut sender, connection) =
            http1::Builder::new().max_buf_size(16 * 1024).handshake::<_, Body>(TokioIo::new(stream)).await?;
        let driver = Driver::of(connection);
        let response = sender.send_request(self.request(gateway)).await?;
        match response.status() {
            status if status.is_success() => {}
            StatusCode::PROXY_AUTHENTICATION_REQUIRED => return Err(ProxyError::Denied),
            status => return Err(ProxyError::Refused(status)),
        }
        let upgraded = hyper::upgrade::on(response).await?;
        drop(driver);
        Ok(Box::new(TokioIo::new(upgraded)))
    }

    fn request(&self, gateway: &Address) -> Request<Body> {
        let host = if gateway.host.contains(':') { format!("[{}]", gateway.host) } else { gateway.host.clone() };
        let target = format!("{host}:{}", gateway.port);
        let mut request = Request::connect(&target).header(header::HOST, &target);
        if let Some(credentials) = &self.credentials {
            request = request.header(header::PROXY_AUTHORIZATION, credentials);
        }
        request.body(Body::empty()).expect("the host was part of a URL that was read")
    }
}

/// `http://[NAME:PASSWORD@]HOST[:PORT]`, the scheme may be missing. Nothing of it is repeated: it may have a password in it.
pub(crate) fn parse(text: &str) -> Result<Proxy, String> {
    let wrong = || "is not an HTTP proxy; write for instance http://proxy.example:3128".to_string();
    let full = if text.contains("://") { text.to_string() } else { format!("http://{text}") };
    let uri: Uri = full.parse().map_err(|_| wrong())?;
    if uri.scheme_str() != Some("http") {
        return Err(wrong());
    }
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
    if host.is_empty() {
        return Err(wrong());
    }
    let user = uri.authority().and_then(|authority| authority.as_str().rsplit_once('@')).map(|(user, _)| user);
    let credentials = user.map(credentials).transpose()?;
    let port = address::port(&uri).map_err(|_| wrong())?.unwrap_or(80);
    Ok(Proxy { host, port, credentials })
}

/// As RFC 7617 has them.
fn credentials(user: &str) -> Result<HeaderValue, String> {
    let (name, password) = user.split_once(':').unwrap_or((user, ""));
    let decode = |text| protocol::percent::decode(text).ok_or("has a % that is not %XX in its name or password");
    let plain = [decode(name)?, vec![b':'], decode(password)?].concat();
    let mut value = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(plain))).expect("base64 is ASCII");
    value.set_sensitive(true);
    Ok(value)
}

/// Whether this list keeps `host` from the proxy: `*`, a domain with everything below it, an address, or a network
/// (`10.0.0.0/8`). Items stand between commas or blanks.
pub(crate) fn spares(list: &str, host: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let address: Option<IpAddr> = host.parse().ok();
    list.split([',', ' ', '\t']).filter(|item| !item.is_empty()).any(|item| match address {
        _ if item == "*" => true,
        Some(address) => in_network(item.trim_start_matches('[').trim_end_matches(']'), address),
        None => {
            let domain = item.trim_matches('.').to_ascii_lowercase();
            let above = host.strip_suffix(&domain).filter(|_| !domain.is_empty());
            above.is_some_and(|above| above.is_empty() || above.ends_with('.'))
        }
    })
}

fn in_network(network: &str, address: IpAddr) -> bool {
    let (base, length) = match network.split_once('/') {
        Some((base, length)) => (base, length.parse::<u32>().ok()),
        None => (network, Some(u32::MAX)),
    };
    // The bits at the front that may differ in nothing, both as 128-bit numbers.
    let (base, address, bits) = match (base.parse(), address) {
        (Ok(IpAddr::V4(base)), IpAddr::V4(address)) => (u32::from(base).into(), u32::from(address).into(), 32),
        (Ok(IpAddr::V6(base)), IpAddr::V6(address)) => (u128::from(base), u128::from(address), 128),
        _ => return false,
    };
    let Some(length) = length.map(|length| if length == u32::MAX { bits } else { length }) else { return false };
    length <= bits && (base ^ address).checked_shr(bits - length).unwrap_or(0) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_a_url_of_http() {
        let of = |text| parse(text).expect(text);
        assert_eq!(format!("{:?}", of("http://name:secret@proxy.example:3128/")), "proxy.example:3128");
        assert_eq!((of("proxy.example").port, of("[::1]:3128").host), (80, "::1".into()));
        let header = |text| of(text).credentials.and_then(|v| v.to_str().map(str::to_owned).ok()).expect(text);
        assert_eq!(header("http://name:s%3Aecret%40@x"), format!("Basic {}", STANDARD.encode("name:s:ecret@")));
        assert_eq!(header("name@x"), format!("Basic {}", STANDARD.encode("name:")));
        for bad in [
            "https://secret@x",
            "socks5://secret@x",
            "http://",
            "http://n:sec%ret@x",
            "http://secret@",
            "x y",
            "x:99999",
        ] {
            let problem = parse(bad).expect_err(bad);
            assert!(!problem.contains("secret"), "{problem}");
        }
    }

    #[test]
    fn no_proxy_means_what_curl_takes_it_for() {
        for (list, host) in [
            ("*", "anything.example"),
            ("other, example.com", "example.com"),
            ("example.com", "deep.below.Example.COM."),
            (".example.com", "example.com"),
            ("a b,c", "b"),
            ("10.1.2.3", "10.1.2.3"),
            ("10.0.0.0/8", "10.9.8.7"),
            ("[fd00::1]", "fd00::1"),
            ("fd00::/8", "fdff::1"),
            ("0.0.0.0/0", "192.0.2.1"),
        ] {
            assert!(spares(list, host), "{list} spares {host}");
        }
        for (list, host) in [
            ("", "example.com"),
            (",.", "example.com"),
            ("example.com", "notexample.com"),
            ("*.example.com", "a.example.com"),
            ("10.0.0.0/8", "11.0.0.1"),
            ("10.0.0.0/33", "10.0.0.1"),
            ("10.0.0.0/x", "10.0.0.0"),
            ("10.0.0.0/8", "10.example"),
            ("0.0.0.0/0", "fd00::1"),
            ("2.3", "10.1.2.3"),
        ] {
            assert!(!spares(list, host), "{list} does not spare {host}");
        }
    }
}
