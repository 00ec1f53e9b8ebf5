//! The objects of a sandbox: made, removed, listed. Each of these acts can be repeated, whatever an earlier one has left.

use std::collections::HashSet;
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::PostParams;
use kube::core::PartialObjectMeta;
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::broadcast;
use tokio::time::{Instant, timeout};

use super::refusal::is_there;
use super::{Kubernetes, absent, names, only, pod};
use crate::backend::{BackendError, Managed, New, changed};
use crate::cluster;

/// Who waits for a Pod's end looks by himself so often (002-17).
const LOOK: Duration = Duration::from_secs(30);
/// Beyond a Pod's grace, until its end is called slow.
const SLOW: Duration = Duration::from_secs(30);

impl Kubernetes {
    /// All of a sandbox. A Pod that is there under exactly this id is taken for it.
    pub(super) async fn make(&self, sandbox: &New) -> Result<(), BackendError> {
        let (id, controller) = (sandbox.id.as_str(), self.config.controller.as_str());
        let pod = match self.pod(id).await? {
            Some(pod) => pod,
            None => {
                let wanted = pod::pod(self.delivered().await?, controller, id, &sandbox.spec)?;
                self.put_pod(id, &wanted).await?
            }
        };
        if pod.metadata.deletion_timestamp.is_some() {
            let (name, namespace) = (pod.name_any(), &self.config.namespace);
            return Err(BackendError::Taken(format!(
                "Pod {name} in namespace {namespace} is being deleted; try again"
            )));
        }
        self.put_service(id, &pod.uid().unwrap_or_default()).await
    }

    async fn put_pod(&self, id: &str, wanted: &Pod) -> Result<Pod, BackendError> {
        match self.api::<Pod>().create(&PostParams::default(), wanted).await {
            Ok(pod) => {
                self.view.put(&pod);
                Ok(pod)
            }
            // Somebody was faster.
            Err(error) if is_there(&error) => {
                let came_and_went =
                    || BackendError::Away(format!("Pod {} came and went; try again", wanted.name_any()));
                self.pod(id).await?.ok_or_else(came_and_went)
            }
            Err(error) => Err(self.act("create", "Pod", &wanted.name_any()).refused(&error)),
        }
    }

    /// The Service of this Pod; the one of an earlier Pod would be removed with that.
    pub(super) async fn put_service(&self, id: &str, uid: &str) -> Result<(), BackendError> {
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
            if names::agent_of(&self.config.controller, &there).as_deref() != Some(id) {
                return Err(BackendError::Taken(format!(
                    "Service {name} in namespace {} belongs to {}, and is not touched for sandbox `{id}`",
                    self.config.namespace,
                    names::owner(&there)
                )));
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

    /// All of a sandbox, until its Pod has ended.
    pub(super) async fn remove(&self, id: &str, instance: Option<&str>) -> Result<(), BackendError> {
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
        if known && timeout(LOOK, changed(changes, id)).await.is_ok() {
            return Ok(true);
        }
        let there = self.pod(id).await?.and_then(|pod| pod.uid());
        if there.as_deref() != Some(uid) {
            self.view.remove(id, uid);
            return Ok(false);
        }
        Ok(true)
    }

    /// All sandboxes of this gateway.
    pub(super) async fn all(&self) -> Result<Vec<Managed>, BackendError> {
        let pods = self.list::<Pod>("Pods").await?;
        let services = self.list::<Service>("Services").await?;
        let served: HashSet<&str> =
            services.iter().flat_map(ResourceExt::owner_references).map(|owner| owner.uid.as_str()).collect();
        let managed = |pod: &PartialObjectMeta<Pod>| {
            let (id, instance) = (names::agent_of(&self.config.controller, pod)?, pod.uid()?);
            // One that ends needs nothing more.
            let whole = served.contains(instance.as_str()) || pod.meta().deletion_timestamp.is_some();
            Some(Managed { id, whole, instance })
        };
        Ok(pods.iter().filter_map(managed).collect())
    }

    async fn list<K>(&self, kind: &'static str) -> Result<Vec<PartialObjectMeta<K>>, BackendError>
    where
        K: Resource<Scope = NamespaceResourceScope> + Clone + DeserializeOwned + std::fmt::Debug,
        K::DynamicType: Default,
    {
        let page = |wanted| {
            let api = self.api::<K>();
            async move { api.list_metadata(&wanted).await }
        };
        let all = cluster::pages(&names::managed_by(&self.config.controller), page).await;
        let (all, _) = all.map_err(|error| self.act("list", kind, "of this gateway").refused(&error))?;
        Ok(all)
    }
}
