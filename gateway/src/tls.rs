//! TLS for the listener, where a certificate is configured.
//!
//! Promises: a replaced certificate is used from the next connection on; one that cannot be used leaves the last good one in
//! place, and the log says so. Sessions are resumed by tickets, so that a fleet that dials again costs no memory here and
//! no full handshakes.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustls::ServerConfig;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, ProducesTickets};
use tokio_rustls::TlsAcceptor;

use crate::exit::reason;
use crate::replaced::Replaced;

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum TlsError {
    #[error("{path} cannot be read")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} is not a PEM file of the right kind")]
    Pem { path: PathBuf, source: pem::Error },
    #[error("the certificate {certificate} and the key {key} do not belong together")]
    Identity { certificate: PathBuf, key: PathBuf, source: rustls::Error },
    #[error("there are no random numbers for tickets")]
    Tickets(#[source] rustls::Error),
}

/// Our certificate with its chain, and its key.
#[derive(Debug)]
pub struct Identity {
    certificate: PathBuf,
    key: PathBuf,
    tickets: Arc<dyn ProducesTickets>,
    made: Replaced<ServerConfig>,
    told: AtomicBool,
}

impl Identity {
    /// From two PEM files that can be used now.
    pub fn new(certificate: PathBuf, key: PathBuf) -> Result<Identity, TlsError> {
        let tickets = rustls::crypto::ring::Ticketer::new().map_err(TlsError::Tickets)?;
        let made = Replaced::new(vec![certificate.clone(), key.clone()]);
        let identity = Identity { certificate, key, tickets, made, told: AtomicBool::new(false) };
        identity.current()?;
        Ok(identity)
    }

    /// For the next connection.
    pub fn acceptor(&self) -> TlsAcceptor {
        let server = match self.current() {
            Ok(server) => {
                self.told.store(false, Ordering::Relaxed);
                server
            }
            Err(error) => {
                // Once, and not for each connection of a storm.
                if !self.told.swap(true, Ordering::Relaxed) {
                    tracing::error!(error = reason(&error), "the certificate cannot be used; the last good one stays");
                }
                self.made.last().expect("`new` has made one")
            }
        };
        TlsAcceptor::from(server)
    }

    fn current(&self) -> Result<Arc<ServerConfig>, TlsError> {
        self.made.get(|| self.build(), |path, source| TlsError::Read { path, source })
    }

    fn build(&self) -> Result<ServerConfig, TlsError> {
        let pem = |path: &PathBuf| {
            let path = path.clone();
            move |source| TlsError::Pem { path, source }
        };
        let chain = CertificateDer::pem_file_iter(&self.certificate).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let chain = chain.map_err(pem(&self.certificate))?;
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(pem(&self.key))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring has TLS 1.2 and 1.3")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(|source| {
                let (certificate, key) = (self.certificate.clone(), self.key.clone());
                TlsError::Identity { certificate, key, source }
            })?;
        server.alpn_protocols = vec![b"http/1.1".to_vec()];
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.ticketer = self.tickets.clone();
        Ok(server)
    }
}
