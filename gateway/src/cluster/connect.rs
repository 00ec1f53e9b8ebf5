//! The way to the cluster: as a Pod of it, or by a kubeconfig.

use std::path::PathBuf;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config as Connection};
use peer::names::{NameError, Names};

use super::Config;

/// A connection.
const CONNECT: Duration = Duration::from_secs(10);
/// Silence where an answer is waited for. A watch is not silent for longer: the server marks its place about once in a minute.
const SILENCE: Duration = Duration::from_secs(120);

/// Why there is no way.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ConnectError {
    #[error("this is no Pod with a service account's token: set GATEWAY_KUBERNETES_KUBECONFIG outside of a cluster")]
    NotInside(#[source] kube::config::InClusterError),
    #[error("the kubeconfig {path} cannot be used")]
    Kubeconfig { path: PathBuf, source: KubeconfigError },
    #[error("the cluster's address")]
    Name(#[from] NameError),
    #[error("no client can be made")]
    Client(#[source] kube::Error),
}

/// Nothing is sent yet.
pub async fn connect(config: &Config) -> Result<Client, ConnectError> {
    let mut connection = match &config.kubeconfig {
        None => Connection::incluster().map_err(ConnectError::NotInside)?,
        Some(path) => {
            let failed = |source| ConnectError::Kubeconfig { path: path.clone(), source };
            let file = Kubeconfig::read_from(path).map_err(failed)?;
            let options = KubeConfigOptions { context: config.context.clone(), ..KubeConfigOptions::default() };
            Connection::from_custom_kubeconfig(file, &options).await.map_err(failed)?
        }
    };
    connection.connect_timeout = Some(CONNECT);
    connection.read_timeout = Some(SILENCE);
    connection.reset_reader_on_write = true;
    // Whoever asks decides whether to ask again; the client would go on for minutes, while others wait.
    connection.default_retry = false;
    resolve(&mut connection).await?;
    Client::try_from(connection).map_err(ConnectError::Client)
}

/// The client would ask the C library for names, which a static program cannot (`docs/decisions/0017`). Inside of a cluster there is
/// an address already.
async fn resolve(connection: &mut Connection) -> Result<(), ConnectError> {
    let url = &connection.cluster_url;
    let Some(host) = url.host().map(str::to_owned) else { return Ok(()) };
    if host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok() {
        return Ok(());
    }
    let addresses = Names::default().resolve(&host).await?;
    let Some(address) = addresses.first() else { return Err(NameError::Unknown(host).into()) };
    let scheme = url.scheme_str().unwrap_or("https");
    let port = url.port_u16().unwrap_or(if scheme == "http" { 80 } else { 443 });
    let rest = url.path_and_query().map_or("", |rest| rest.as_str());
    let numeric = format!("{scheme}://{}{rest}", std::net::SocketAddr::new(*address, port));
    if let Ok(numeric) = numeric.parse() {
        connection.tls_server_name.get_or_insert(host);
        connection.cluster_url = numeric;
    }
    Ok(())
}
