//! Sandboxes as Pods of a cluster: one Pod and one Service for each id (000-34).
//!
//! Promises: names follow from ids; what belongs to another controller is never changed, whatever it is called (000-37); a Pod
//! that is there under exactly these ids is taken for the sandbox and left as it is; the Service is owned by the Pod and goes
//! with it, also where nobody calls [`Backend::delete`]; each object that is not there is removed already (003-31). Nothing
//! outside of one namespace is read (002-14), and no Secret is read or made: a sandbox dials with its service account's token
//! ([`crate::identity`]).
//!
//! What is wanted stands in the gateway's store, and [`crate::sandboxes`] makes the two agree.

use std::borrow::Cow;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Api, DeleteParams, Preconditions};
use tokio::sync::broadcast;

use super::{Backend, BackendError, Managed, New, Seen, Spec};
use crate::awake::wall_ms;
use crate::cluster::{self, ConnectError};
use crate::identity;

mod config;
mod delivery;
mod names;
mod objects;
mod pod;
pub mod preflight;
mod refusal;
pub(crate) mod stage;
pub(crate) mod template;
mod trouble;
mod view;

pub use config::Config;
pub use delivery::Delivery;
pub use stage::Limits;
pub use template::{Template, TemplateError};

use delivery::Delivered;
use refusal::{Act, is_absent};
use view::View;

/// Pods of a cluster.
pub struct Kubernetes {
    config: Arc<Config>,
    template: Template,
    delivered: Delivered,
    client: Client,
    view: View,
}

/// Why there is no such backend.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum KubernetesError {
    #[error(transparent)]
    Template(#[from] TemplateError),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(
        "the template's tokens are for the audience `{template}` and GATEWAY_IDENTITY_AUDIENCE is `{configured}`: make both one"
    )]
    Audience { template: String, configured: String },
}

impl Kubernetes {
    /// Reads the template and the way to the cluster; asks nobody yet.
    pub async fn new(config: Config) -> Result<Kubernetes, KubernetesError> {
        let template = Template::read(&config.template)?;
        let delivered = Delivered::new(config.delivery, &template)?;
        let client = cluster::connect(&config.cluster).await?;
        let view = View::new(&config.controller, template.agent());
        Ok(Kubernetes { config: Arc::new(config), template, delivered, client, view })
    }

    /// Follow the cluster for as long as the process runs.
    pub fn follow(&self) -> impl Future<Output = ()> + use<> {
        self.view.clone().follow(self.client.clone(), self.config.clone())
    }

    /// Whose tokens count besides those that are `configured`: those of its Pods, by the audience that the template gives them.
    pub fn identity(&self, configured: Option<identity::Config>) -> Result<identity::Config, KubernetesError> {
        let audience = self.template.audience();
        let mut config = configured.unwrap_or_else(|| identity::Config::new(audience));
        if config.audience != audience {
            let (template, configured) = (audience.into(), config.audience);
            return Err(KubernetesError::Audience { template, configured });
        }
        config.namespaces.insert(self.config.namespace.clone());
        config.controller = Some(self.config.controller.clone());
        Ok(config)
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.config.namespace)
    }

    fn act<'a>(&'a self, verb: &'static str, kind: impl Into<Cow<'static, str>>, name: &'a str) -> Act<'a> {
        Act { verb, kind: kind.into(), name, namespace: &self.config.namespace }
    }

    /// The Pod of this name; an error where it is somebody else's.
    async fn pod(&self, id: &str) -> Result<Option<Pod>, BackendError> {
        let name = names::name(id);
        let found = self.api::<Pod>().get_opt(&name).await;
        let found = found.map_err(|error| self.act("get", "Pod", &name).refused(&error))?;
        let Some(pod) = found else { return Ok(None) };
        if names::agent_of(&self.config.controller, &pod).as_deref() == Some(id) {
            self.view.put(&pod);
            return Ok(Some(pod));
        }
        let (namespace, controller) = (&self.config.namespace, &self.config.controller);
        Err(BackendError::Taken(format!(
            "Pod {name} in namespace {namespace} belongs to {}, and is not touched for sandbox `{id}` of the gateway `{controller}`",
            names::owner(&pod)
        )))
    }
}

/// Delete this very object and no successor of it.
fn only(uid: Option<String>) -> DeleteParams {
    DeleteParams::background().preconditions(Preconditions { uid, resource_version: None })
}

/// What is not there any more, or another one already, was removed.
fn absent(error: kube::Error) -> Result<(), kube::Error> {
    let other = matches!(&error, kube::Error::Api(status) if status.is_conflict());
    if is_absent(&error) || other { Ok(()) } else { Err(error) }
}

impl Backend for Kubernetes {
    fn gives_tokens(&self) -> bool {
        false
    }

    fn check(&self, id: &str, spec: &Spec) -> Result<(), BackendError> {
        pod::pod(&self.template, &self.config.controller, id, spec).map(|_| ())
    }

    fn prepare(&self) -> BoxFuture<'_, Result<(), BackendError>> {
        Box::pin(async { self.delivered().await.map(|_| ()) })
    }

    fn create(&self, sandbox: New) -> BoxFuture<'_, Result<(), BackendError>> {
        Box::pin(async move { self.make(&sandbox).await })
    }

    fn delete<'a>(&'a self, id: &'a str, instance: Option<&'a str>) -> BoxFuture<'a, Result<(), BackendError>> {
        Box::pin(self.remove(id, instance))
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<Managed>, BackendError>> {
        Box::pin(self.all())
    }

    fn see(&self, id: &str) -> Option<Seen> {
        let seen = self.view.get(id)?;
        let state = seen.stage.state(wall_ms(), self.config.limits);
        Some(Seen { state, place: format!("{}/{}", self.config.namespace, seen.name), node: seen.node })
    }

    fn changes(&self) -> broadcast::Receiver<String> {
        self.view.changes()
    }

    fn look<'a>(&'a self, id: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            // It is put into the view; where it cannot be had, what is known stays.
            if let Ok(None) = self.pod(id).await
                && let Some(seen) = self.view.get(id)
            {
                self.view.remove(id, &seen.uid);
            }
        })
    }

    fn away(&self) -> Option<String> {
        self.view.away()
    }

    fn explain<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Option<String>> {
        Box::pin(self.trouble(id))
    }
}
