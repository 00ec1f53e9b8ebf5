//! TLS to the gateway: its certificate and its name are checked; nothing turns that off.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Where distributions keep their bundle: Debian and Alpine, Fedora, its older place, SUSE, Alpine without a bundle package.
const BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Why there is no TLS session.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum TlsError {
    #[error("{path} cannot be read")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} is not a PEM file")]
    Pem { path: PathBuf, source: pem::Error },
    #[error("{path} has no certificate that can be used")]
    Empty { path: PathBuf },
    #[error("this machine has no bundle of CA certificates; name a file by GATEWAY_CA_FILE")]
    NoBundle,
    #[error("`{0}` is neither a name nor an address that a certificate can have")]
    Name(String),
    #[error("the handshake failed")]
    Handshake(#[source] io::Error),
}

/// A session over `stream` with `host`; whoever signed its certificate is in `ca_file`, or in the machine's bundle.
pub(super) async fn connect(
    host: &str,
    ca_file: Option<&Path>,
    stream: TcpStream,
) -> Result<TlsStream<TcpStream>, TlsError> {
    let name = ServerName::try_from(host.to_string()).map_err(|_| TlsError::Name(host.into()))?;
    let (path, bytes) = roots(ca_file)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let mut store = RootCertStore::empty();
    // A bundle may hold one that is too old for us; the others still count.
    store.add_parsable_certificates(certificates.map_err(|source| TlsError::Pem { path: path.clone(), source })?);
    if store.is_empty() {
        return Err(TlsError::Empty { path });
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has TLS 1.2 and 1.3")
        .with_root_certificates(store)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(TlsError::Handshake)
}

fn roots(ca_file: Option<&Path>) -> Result<(PathBuf, Vec<u8>), TlsError> {
    let read = |path: &Path| std::fs::read(path).map(|bytes| (path.to_owned(), bytes));
    match ca_file {
        Some(path) => read(path).map_err(|source| TlsError::Read { path: path.into(), source }),
        None => BUNDLES.iter().find_map(|path| read(Path::new(path)).ok()).ok_or(TlsError::NoBundle),
    }
}
