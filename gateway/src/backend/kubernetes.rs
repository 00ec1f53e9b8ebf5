//! Sandboxes as Pods of a cluster: one Pod and one Service for each id (000-34).
//!
//! Promises: names follow from ids; what belongs to another controller is never changed, whatever it is called (000-37); a Pod
//! that is there under exactly these ids is taken for the sandbox and left as it is; everything but the Secret of the token is
//! owned by the Pod and goes with it, also where nobody calls [`Backend::delete`]; each object that is not there is removed
//! already (003-31). Nothing outside of one namespace is read (002-14).
//!
//! What is wanted stands in the gateway's store, and [`crate::sandboxes`] makes the two agree.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::{Api, DeleteParams, ListParams, PostParams, Preconditions};
use kube::{Client, ResourceExt};
use tokio::sync::broadcast;
use tokio::time::Instant;

use super::{Backend, BackendError, Managed, New, Seen, Spec, changed};
use crate::awake::wall_ms;
use crate::cluster::{self, ConnectError};

mod config;
mod names;
mod pod;
pub mod preflight;
mod refusal;
mod stage;
mod template;
mod token;
mod trouble;
mod view;

pub use config::Config;
pub use stage::Limits;
pub use template::{Template, TemplateError};

use refusal::{Act, is_absent, is_there};
use view::View;

/// Who waits for a Pod looks by himself so often (002-17).
const LOOK: Duration = Duration::from_secs(30);
/// Beyond a Pod's grace, until its end is called slow.
const SLOW: Duration = Duration::from_secs(30);
/// Objects of one answer.
const PAGE: u32 = 500;

/// Pods of a cluster.
pub struct Kubernetes {
    config: Arc<Config>,
    template: Template,
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
}

impl Kubernetes {
    /// Reads the template and the way to the cluster; asks nobody yet.
    pub async fn new(config: Config) -> Result<Kubernetes, KubernetesError> {
        let template = Template::read(&config.template)?;
        let client = cluster::connect(&config.cluster).await?;
        let view = View::new(&config.controller, template.agent());
        Ok(Kubernetes { config: Arc::new(config), template, client, view })
    }

    /// Follow the cluster for as long as the process runs.
    pub fn follow(&self) -> impl Future<Output = ()> + use<> {
        self.view.clone().follow(self.client.clone(), self.config.clone())
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

    async fn make(&self, sandbox: &New) -> Result<(), BackendError> {
        let (id, controller) = (sandbox.id.as_str(), self.config.controller.as_str());
        let wanted = pod::pod(&self.template, controller, id, &sandbox.spec)?;
        let name = wanted.name_any();
        let there = self.pod(id).await?;
        self.put_token(id, &sandbox.token).await?;
        let there = match there {
            Some(pod) => pod,
            None => {
                match self.api::<Pod>().create(&PostParams::default(), &wanted).await {
                    Ok(pod) => {
                        self.view.put(&pod);
                        pod
                    }
                    // Whoever was faster is looked at again.
                    Err(error) if is_there(&error) => match self.pod(id).await? {
                        Some(pod) => pod,
                        None => return Err(BackendError::Away(format!("Pod {name} came and went; try again"))),
                    },
                    Err(error) => {
                        self.remove_token(id).await?;
                        return Err(self.act("create", "Pod", &name).refused(&error));
                    }
                }
            }
        };
        if there.metadata.deletion_timestamp.is_some() {
            let namespace = &self.config.namespace;
            return Err(BackendError::Taken(format!(
                "Pod {name} in namespace {namespace} is being deleted; try again"
            )));
        }
        self.put_service(id, &there.uid().unwrap_or_default()).await
    }

    /// The Service of this Pod; the one of an earlier Pod would be removed with that.
    async fn put_service(&self, id: &str, uid: &str) -> Result<(), BackendError> {
        let wanted = pod::service(&self.template, &self.config.controller, id, uid);
        let (services, name) = (self.api::<Service>(), names::name(id));
        let act = |verb| self.act(verb, "Service", &name);
        for _ in 0..2 {
            match services.create(&PostParams::default(), &wanted).await {
                Ok(_) => return Ok(()),
                Err(error) if is_there(&error) => {}
                Err(error) => return Err(act("create").refused(&error)),
            }
            let Some(there) = services.get_opt(&name).await.map_err(|error| act("get").refused(&error))? else {
                continue;
            };
            if there.owner_references().iter().any(|owner| owner.uid == uid) {
                return Ok(());
            }
            self.remove_service(id).await?;
        }
        Err(BackendError::Away(format!("Service {name} comes and goes; try again")))
    }

    async fn remove_service(&self, id: &str) -> Result<(), BackendError> {
        let (services, name) = (self.api::<Service>(), names::name(id));
        let found = services.get_opt(&name).await.map_err(|error| self.act("get", "Service", &name).refused(&error))?;
        let Some(service) =
            found.filter(|found| names::agent_of(&self.config.controller, found).as_deref() == Some(id))
        else {
            return Ok(());
        };
        let gone = services.delete(&name, &only(service.uid())).await;
        gone.map(|_| ()).or_else(absent).map_err(|error| self.act("delete", "Service", &name).refused(&error))
    }

    async fn remove(&self, id: &str, instance: Option<&str>) -> Result<(), BackendError> {
        let pod = self.pod(id).await?;
        let uid = pod.as_ref().and_then(ResourceExt::uid);
        if instance.is_some() && instance != uid.as_deref() {
            return Ok(());
        }
        let mut changes = self.view.changes();
        if let Some(uid) = &uid {
            let name = names::name(id);
            let gone = self.api::<Pod>().delete(&name, &only(Some(uid.clone()))).await;
            gone.map(|_| ()).or_else(absent).map_err(|error| self.act("delete", "Pod", &name).refused(&error))?;
        }
        self.remove_service(id).await?;
        self.remove_token(id).await?;
        let Some(uid) = uid else { return Ok(()) };
        let deadline = Instant::now() + self.template.grace() + SLOW;
        while self.goes_on(id, &uid, &mut changes).await? {
            if Instant::now() >= deadline {
                let node = self.view.get(id).and_then(|seen| seen.node).unwrap_or_else(|| "no node".into());
                return Err(BackendError::Slow(format!(
                    "Pod {} in namespace {} was deleted and does not end on {node}; its end is waited for",
                    names::name(id),
                    self.config.namespace
                )));
            }
        }
        Ok(())
    }

    /// Whether that Pod is there yet, at its next change.
    async fn goes_on(
        &self,
        id: &str,
        uid: &str,
        changes: &mut broadcast::Receiver<String>,
    ) -> Result<bool, BackendError> {
        let known = self.view.get(id).is_some_and(|seen| seen.uid == uid);
        if known && tokio::time::timeout(LOOK, changed(changes, id)).await.is_ok() {
            return Ok(true);
        }
        let there = self.pod(id).await?.and_then(|pod| pod.uid());
        if there.as_deref() != Some(uid) {
            self.view.remove(id, uid);
            return Ok(false);
        }
        Ok(true)
    }

    async fn all(&self) -> Result<Vec<Managed>, BackendError> {
        let pods = self.list::<Pod>("Pods").await?;
        let services = self.list::<Service>("Services").await?;
        let served = |uid: &str| services.iter().flat_map(ResourceExt::owner_references).any(|owner| owner.uid == uid);
        let controller = &self.config.controller;
        let managed = |pod: Pod| {
            let (id, instance) = (names::agent_of(controller, &pod)?, pod.uid()?);
            let whole = served(&instance) || pod.metadata.deletion_timestamp.is_some();
            Some(Managed { id, whole, instance })
        };
        Ok(pods.into_iter().filter_map(managed).collect())
    }

    async fn list<K>(&self, kind: &'static str) -> Result<Vec<K>, BackendError>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + serde::de::DeserializeOwned
            + std::fmt::Debug,
        K::DynamicType: Default,
    {
        let api = self.api::<K>();
        let mut wanted = ListParams::default().labels(&names::managed_by(&self.config.controller)).limit(PAGE);
        let mut all = Vec::new();
        loop {
            let page =
                api.list(&wanted).await.map_err(|error| self.act("list", kind, "of this gateway").refused(&error))?;
            all.extend(page.items);
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => wanted = wanted.continue_token(&token),
                None => return Ok(all),
            }
        }
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
    fn check(&self, id: &str, spec: &Spec) -> Result<(), BackendError> {
        pod::pod(&self.template, &self.config.controller, id, spec).map(|_| ())
    }

    fn create(&self, sandbox: New) -> BoxFuture<'_, Result<(), BackendError>> {
        Box::pin(async move { self.make(&sandbox).await })
    }

    fn mend<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<bool, BackendError>> {
        Box::pin(async move {
            let Some(pod) = self.pod(id).await? else { return Ok(false) };
            // One that ends is made again when it has ended.
            if pod.metadata.deletion_timestamp.is_none() {
                self.put_service(id, &pod.uid().unwrap_or_default()).await?;
            }
            Ok(true)
        })
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

    fn explain<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Option<String>> {
        Box::pin(self.trouble(id))
    }
}
