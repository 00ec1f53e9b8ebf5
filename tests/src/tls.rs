//! A certificate authority of one test, and the servers that it vouches for.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// Signs certificates; whoever has its file believes them.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    file: PathBuf,
}

impl Authority {
    /// A new one, its certificate in a file `name` of `directory`.
    pub fn new(directory: &Path, name: &str) -> Authority {
        let mut params = CertificateParams::new([]).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("random numbers");
        let certificate = params.self_signed(&key).expect("our own key");
        let file = directory.join(name);
        std::fs::write(&file, certificate.pem()).expect("our own directory");
        Authority { issuer: Issuer::new(params, key), file }
    }

    /// What its clients have to believe.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// A server that may call itself by `name`, a host name or an address.
    pub fn server(&self, name: &str) -> Server {
        let params = CertificateParams::new([name.to_string()]).expect("a name or an address");
        let key = KeyPair::generate().expect("random numbers");
        let certificate = params.signed_by(&key, &self.issuer).expect("the authority's key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring has TLS 1.2 and 1.3")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.into()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
            .expect("a key and its certificate");
        Server(Arc::new(config))
    }
}

/// Takes connections over.
#[derive(Clone)]
pub struct Server(Arc<ServerConfig>);

impl Server {
    /// The handshake is done by the first read or write.
    pub fn take(&self, stream: TcpStream) -> StreamOwned<ServerConnection, TcpStream> {
        let session = ServerConnection::new(self.0.clone()).expect("a right configuration");
        StreamOwned::new(session, stream)
    }
}
