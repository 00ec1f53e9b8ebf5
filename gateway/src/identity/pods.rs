//! Which Pods there are, and whose: watched, so that a dial costs the API server nothing.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, ResourceExt};

use super::IdentityError;
use super::claims::Bound;
use crate::cluster::{self, AGENT_ID, CONTROLLER_ID, Change, MANAGED_BY};

/// Pods by uid, with the agent's id where there is one. A Pod that is ending still has records to deliver, so it counts until
/// it is gone.
pub(super) struct Pods {
    known: Mutex<HashMap<String, Known>>,
    controller: Option<String>,
}

struct Known {
    namespace: String,
    agent: Option<String>,
}

impl Pods {
    /// Watch these namespaces for as long as the process lives.
    pub(super) fn watch(client: &Client, namespaces: &BTreeSet<String>, controller: Option<String>) -> Arc<Pods> {
        let pods = Arc::new(Pods { known: Mutex::default(), controller });
        for namespace in namespaces.clone() {
            let (pods, api) = (pods.clone(), Api::namespaced(client.clone(), &namespace));
            tokio::spawn(async move {
                let whose = format!("the Pods of namespace {namespace}");
                cluster::follow(api, "", &whose, |change| pods.take(&namespace, change)).await;
            });
        }
        pods
    }

    /// Of the Pod with this uid: `None` where it is not known, `Some(None)` where it is nobody's.
    pub(super) fn agent_of(&self, uid: &str) -> Option<Option<String>> {
        self.lock().get(uid).map(|known| known.agent.clone())
    }

    fn take(&self, namespace: &str, change: Change) {
        let mut pods = self.lock();
        let known = |pod: &Pod| {
            let agent = agent(pod, self.controller.as_deref());
            (pod.uid().unwrap_or_default(), Known { namespace: namespace.into(), agent })
        };
        match change {
            Change::All(all) => {
                pods.retain(|_, known| known.namespace != namespace);
                pods.extend(all.iter().map(known));
            }
            Change::There(pod) => pods.extend([known(&pod)]),
            Change::Gone(pod) => drop(pods.remove(&pod.uid().unwrap_or_default())),
            // Those that were known have not gone by that.
            Change::Away(_) => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whose a Pod is. One that another gateway has made in the same namespace is nobody's here.
fn agent(pod: &impl ResourceExt, controller: Option<&str>) -> Option<String> {
    let made = pod.labels().contains_key(MANAGED_BY);
    let ours = pod.annotations().get(CONTROLLER_ID).map(String::as_str) == controller;
    pod.annotations().get(AGENT_ID).filter(|_| ours || !made).cloned()
}

/// The same, of the API server.
pub(super) async fn ask(
    client: &Client,
    bound: &Bound,
    controller: Option<&str>,
) -> Result<Option<String>, IdentityError> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), &bound.namespace);
    let pod = pods.get_metadata_opt(&bound.pod).await.map_err(IdentityError::away("did not show a Pod"))?;
    match pod.filter(|pod| pod.uid().as_deref() == Some(&bound.uid)) {
        Some(pod) => Ok(agent(&pod, controller)),
        None => Err(IdentityError::refused(format!("Pod {}/{} of the token has gone", bound.namespace, bound.pod))),
    }
}
