//! A certificate authority of one test, and the servers that it vouches for.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned};

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

    /// Certificate and key of a server that may call itself by `name`, in two files of `directory`.
    pub fn issue(&self, name: &str, directory: &Path) -> (PathBuf, PathBuf) {
        let params = CertificateParams::new([name.to_string()]).expect("a name or an address");
        let key = KeyPair::generate().expect("random numbers");
        let certificate = params.signed_by(&key, &self.issuer).expect("the authority's key");
        let files = (directory.join("tls.crt"), directory.join("tls.key"));
        std::fs::write(&files.0, certificate.pem()).expect("our own directory");
        std::fs::write(&files.1, key.serialize_pem()).expect("our own directory");
        files
    }

    /// A client that believes this authority.
    pub fn client(&self) -> Arc<ClientConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring has TLS 1.2 and 1.3")
            .with_root_certificates(self.roots())
            .with_no_client_auth();
        Arc::new(config)
    }

    /// The same, connected to `name` over `stream`.
    pub fn connect(&self, name: &str, stream: TcpStream) -> StreamOwned<ClientConnection, TcpStream> {
        let name = ServerName::try_from(name.to_string()).expect("a name or an address");
        StreamOwned::new(ClientConnection::new(self.client(), name).expect("a right configuration"), stream)
    }

    /// A server that may call itself by `name`, a host name or an address.
    pub fn server(&self, name: &str) -> Server {
        self.serve(name, WebPkiClientVerifier::no_client_auth())
    }

    /// The same, for nobody but those whom this authority vouches for.
    pub fn server_for_clients(&self, name: &str) -> Server {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(self.roots()), provider).build();
        self.serve(name, clients.expect("one authority"))
    }

    fn serve(&self, name: &str, clients: Arc<dyn ClientCertVerifier>) -> Server {
        let params = CertificateParams::new([name.to_string()]).expect("a name or an address");
        let key = KeyPair::generate().expect("random numbers");
        let certificate = params.signed_by(&key, &self.issuer).expect("the authority's key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring has TLS 1.2 and 1.3")
            .with_client_cert_verifier(clients)
            .with_single_cert(vec![certificate.into()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
            .expect("a key and its certificate");
        Server(Arc::new(config))
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&self.file).expect("our own file")).expect("our own certificate");
        roots
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
