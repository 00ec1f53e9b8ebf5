//! TLS to those that the supervisor calls: the gateway, and the relay.
//!
//! Promises: the peer's certificate is checked against the operator's CA file or else the machine's own bundle, and its name
//! against the address that was configured; nothing turns that off. All files are read anew at each dial, so replacing one is
//! enough; what did not change keeps its session tickets, so a whole fleet that dials again needs no full handshakes.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::Resumption;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::spawn_blocking;
use tokio_rustls::TlsConnector;
pub use tokio_rustls::client::TlsStream;

/// Where distributions keep their bundle: Debian and Alpine, Fedora, its older place, SUSE, Alpine without a bundle package.
const BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// A longer file is a wrong one.
const MAX_FILE: u64 = 4 * 1024 * 1024;

/// Files to trust and to show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Certificates of those that may sign the peer's; `None` for the machine's bundle.
    pub ca_file: Option<PathBuf>,
    /// Our own certificate with its chain, and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Why there is no TLS session. The peer's words are in none of them.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum TlsError {
    #[error("{path} cannot be read")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} is not a PEM file")]
    Pem { path: PathBuf, source: pem::Error },
    #[error("{path} has no certificate that can be used")]
    Empty { path: PathBuf },
    #[error("this machine has no bundle of CA certificates; name a file of your own")]
    NoBundle,
    #[error("the certificate {certificate} and the key {key} do not belong together")]
    Identity { certificate: PathBuf, key: PathBuf, source: rustls::Error },
    #[error("`{0}` is neither a name nor an address that a certificate can have")]
    Name(String),
    #[error("the TLS handshake failed")]
    Handshake(#[source] io::Error),
}

/// Dials TLS.
#[derive(Debug)]
pub struct Tls {
    config: Config,
    /// Made of the files with this digest.
    kept: Mutex<Option<([u8; 32], Arc<ClientConfig>)>>,
}

impl Tls {
    /// Nothing is read yet.
    pub fn new(config: Config) -> Arc<Tls> {
        Arc::new(Tls { config, kept: Mutex::default() })
    }

    /// A session over `stream` with `host`, a name or an address without brackets.
    pub async fn connect<S>(self: &Arc<Tls>, host: &str, stream: S) -> Result<TlsStream<S>, TlsError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = ServerName::try_from(host.to_string()).map_err(|_| TlsError::Name(host.into()))?;
        let tls = self.clone();
        let client = spawn_blocking(move || tls.client()).await.unwrap_or(Err(TlsError::NoBundle))?;
        TlsConnector::from(client).connect(name, stream).await.map_err(TlsError::Handshake)
    }

    /// What the files say now. Blocks on the disk.
    pub fn client(&self) -> Result<Arc<ClientConfig>, TlsError> {
        let (roots, roots_path) = self.roots()?;
        let identity = match &self.config.identity {
            Some((certificate, key)) => Some((read(certificate)?, read(key)?)),
            None => None,
        };
        let mut digest = Sha256::new_with_prefix(&roots);
        for file in identity.iter().flat_map(|(certificate, key)| [certificate, key]) {
            digest.update(file.len().to_le_bytes());
            digest.update(file);
        }
        let digest: [u8; 32] = digest.finalize().into();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, client)) = kept.as_ref().filter(|(known, _)| *known == digest) {
            return Ok(client.clone());
        }
        let client = Arc::new(self.build(&roots, &roots_path, identity)?);
        *kept = Some((digest, client.clone()));
        Ok(client)
    }

    fn roots(&self) -> Result<(Vec<u8>, PathBuf), TlsError> {
        if let Some(path) = &self.config.ca_file {
            return Ok((read(path)?, path.clone()));
        }
        let bundle = BUNDLES.iter().find_map(|path| Some((read(Path::new(path)).ok()?, PathBuf::from(path))));
        bundle.ok_or(TlsError::NoBundle)
    }

    fn build(&self, roots: &[u8], path: &Path, identity: Option<(Vec<u8>, Vec<u8>)>) -> Result<ClientConfig, TlsError> {
        let mut store = RootCertStore::empty();
        // A bundle may hold one that is too old for us; the others still count.
        store.add_parsable_certificates(certificates(roots, path)?);
        if store.is_empty() {
            return Err(TlsError::Empty { path: path.into() });
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring has TLS 1.2 and 1.3")
            .with_root_certificates(store);
        let mut client = match (identity, &self.config.identity) {
            (Some((chain, key)), Some((chain_path, key_path))) => {
                let chain = certificates(&chain, chain_path)?;
                let key = PrivateKeyDer::from_pem_slice(&key)
                    .map_err(|source| TlsError::Pem { path: key_path.clone(), source })?;
                builder.with_client_auth_cert(chain, key).map_err(|source| TlsError::Identity {
                    certificate: chain_path.clone(),
                    key: key_path.clone(),
                    source,
                })?
            }
            _ => builder.with_no_client_auth(),
        };
        client.alpn_protocols = vec![b"http/1.1".to_vec()];
        // One peer each; the default keeps places for 256.
        client.resumption = Resumption::in_memory_sessions(2);
        Ok(client)
    }
}

pub(crate) fn certificates(file: &[u8], path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(file).collect();
    parsed.map_err(|source| TlsError::Pem { path: path.into(), source })
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let mut bytes = Vec::new();
    let read =
        std::fs::File::open(path).and_then(|f| io::Read::read_to_end(&mut io::Read::take(f, MAX_FILE), &mut bytes));
    read.map_err(|source| TlsError::Read { path: path.into(), source })?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_holds_no_certificate_is_named_and_a_replaced_one_is_taken() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("ca.pem");
        let tls = Tls::new(Config { ca_file: Some(path.clone()), identity: None });
        assert!(matches!(tls.client(), Err(TlsError::Read { .. })));
        std::fs::write(&path, "no certificate").expect("write");
        assert!(matches!(tls.client(), Err(TlsError::Empty { .. })));
        std::fs::write(&path, include_str!("tls/ca.pem")).expect("write");
        let first = tls.client().expect("one certificate");
        let second = tls.client().expect("the same");
        assert!(Arc::ptr_eq(&first, &second), "an unchanged file keeps its tickets");
        std::fs::write(&path, format!("{}\n", include_str!("tls/ca.pem"))).expect("write");
        assert!(!Arc::ptr_eq(&first, &tls.client().expect("a replaced file")));
    }
}
