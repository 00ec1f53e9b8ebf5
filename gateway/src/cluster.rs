//! The cluster that this gateway speaks to: the way there, and what changes in it.

use std::path::PathBuf;

use crate::config::{Reader, parse};

mod connect;
mod follow;
mod pages;

pub use connect::{ConnectError, connect};
pub use follow::{Change, follow};
pub use pages::pages;

/// The annotation with the exact id of a Pod's sandbox (000-36).
pub const AGENT_ID: &str = "openhive.io/agent-id";
/// The annotation with the exact id of whoever made it (000-36).
pub const CONTROLLER_ID: &str = "openhive.io/controller-id";
/// The label of what a gateway has made: a hash of that id.
pub const MANAGED_BY: &str = "openhive.io/managed-by";

/// How the cluster is found; with neither, as a Pod of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// A kubeconfig.
    pub kubeconfig: Option<PathBuf>,
    /// Which context of that file; without it, the current one.
    pub context: Option<String>,
}

impl Config {
    /// From the settings.
    pub fn read(reader: &mut Reader) -> Config {
        let kubeconfig = reader.optional("kubernetes_kubeconfig", parse::path);
        let context = reader.optional("kubernetes_context", |text| Ok(text.into()));
        Config { kubeconfig, context }
    }
}
