//! What the cluster says of this gateway's Pods: listed once, then watched.
//!
//! Promises: whoever waits for a Pod is woken when it changes, and looks by himself every 30 s in case that a watch has missed
//! something (002-17); a Pod of another controller is never in here (000-37). What is kept of a Pod is a few words.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, ResourceExt};
use tokio::sync::broadcast;

use super::stage::{Stage, stage};
use super::{Config, names};
use crate::cluster::{self, Change};

/// Changes that a listener may be behind; one that is further behind looks at everything anew.
const CHANGES: usize = 1024;

/// Of an object; a later one is greater (kubernetes/enhancements#5504).
type Version = u64;

/// What is kept of one Pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) node: Option<String>,
    pub(super) stage: Stage,
}

/// All of them, by sandbox. Cheap to clone.
#[derive(Clone)]
pub(super) struct View(Arc<Inner>);

struct Inner {
    controller: String,
    agent: String,
    seen: Mutex<HashMap<String, (Version, Seen)>>,
    changes: broadcast::Sender<String>,
    /// Why the cluster cannot be watched now.
    away: Mutex<Option<String>>,
}

impl View {
    /// Of the Pods whose agent's container has this name.
    pub(super) fn new(controller: &str, agent: &str) -> View {
        let (changes, _) = broadcast::channel(CHANGES);
        let (controller, agent, seen, away) = (controller.into(), agent.into(), Mutex::default(), Mutex::default());
        View(Arc::new(Inner { controller, agent, seen, changes, away }))
    }

    /// What is known of a sandbox.
    pub(super) fn get(&self, id: &str) -> Option<Seen> {
        self.lock().get(id).map(|(_, seen)| seen.clone())
    }

    /// The ids of those that change from now on.
    pub(super) fn changes(&self) -> broadcast::Receiver<String> {
        self.0.changes.subscribe()
    }

    /// A Pod as it was at some time; what is known already of a later time stays.
    pub(super) fn put(&self, pod: &Pod) {
        let Some((id, (version, seen))) = self.read(pod) else { return };
        let mut all = self.lock();
        let same = match all.get(&id) {
            Some((known, _)) if *known > version => return,
            Some((_, before)) => *before == seen,
            None => false,
        };
        all.insert(id.clone(), (version, seen));
        drop(all);
        if !same {
            self.tell(id);
        }
    }

    /// That one is gone.
    pub(super) fn remove(&self, id: &str, uid: &str) {
        let mut all = self.lock();
        if all.get(id).is_some_and(|(_, seen)| seen.uid == uid) {
            all.remove(id);
            drop(all);
            self.tell(id.into());
        }
    }

    /// Follow the cluster until the end of the process.
    pub(super) async fn follow(self, client: Client, config: Arc<Config>) {
        let pods: Api<Pod> = Api::namespaced(client, &config.namespace);
        let selector = names::managed_by(&self.0.controller);
        let take = |change| match change {
            Change::All(pods) => self.put_all(&pods),
            Change::There(pod) => self.put(&pod),
            Change::Gone(pod) => {
                if let Some(id) = names::agent_of(&self.0.controller, &pod) {
                    self.remove(&id, &pod.uid().unwrap_or_default());
                }
            }
            Change::Away(error) => *self.away_now() = Some(error),
        };
        cluster::follow(pods, &selector, "the Pods of this gateway", take).await;
    }

    /// Why the cluster cannot be watched now.
    pub(super) fn away(&self) -> Option<String> {
        self.away_now().clone()
    }

    fn away_now(&self) -> MutexGuard<'_, Option<String>> {
        self.0.away.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All there are now, in the place of what was known.
    fn put_all(&self, pods: &[Pod]) {
        *self.away_now() = None;
        let all: HashMap<_, _> = pods.iter().filter_map(|pod| self.read(pod)).collect();
        let mut changed: BTreeSet<String> = all.keys().cloned().collect();
        let before = std::mem::replace(&mut *self.lock(), all);
        changed.extend(before.into_keys());
        changed.into_iter().for_each(|id| self.tell(id));
    }

    fn read(&self, pod: &Pod) -> Option<(String, (Version, Seen))> {
        let id = names::agent_of(&self.0.controller, pod)?;
        let version = pod.resource_version().and_then(|version| version.parse().ok()).unwrap_or(0);
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
        let (name, uid) = (pod.name_any(), pod.uid().unwrap_or_default());
        Some((id, (version, Seen { name, uid, node, stage: stage(pod, &self.0.agent) })))
    }

    fn tell(&self, id: String) {
        // Nobody may be listening.
        let _ = self.0.changes.send(id);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, (Version, Seen)>> {
        self.0.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(controller: &str, id: &str, uid: &str) -> Pod {
        let mut pod = Pod::default();
        pod.metadata.name = Some(names::name(id));
        pod.metadata.uid = Some(uid.into());
        pod.metadata.annotations = Some(names::annotations(controller, id));
        pod
    }

    #[test]
    fn only_our_own_pods_are_seen_and_each_change_is_told_once() {
        let view = View::new("one", "sandbox");
        let mut changes = view.changes();
        view.put(&pod("two", "a", "1"));
        assert!(view.get("a").is_none() && changes.is_empty());
        view.put(&pod("one", "a", "1"));
        assert!(view.get("a").is_some() && changes.try_recv().is_ok_and(|id| id == "a"));
        view.put(&pod("one", "a", "1"));
        assert!(changes.is_empty(), "nothing new");
    }

    #[test]
    fn an_older_answer_does_not_hide_a_later_one() {
        let view = View::new("one", "sandbox");
        let at = |version: &str, node: &str| {
            let mut pod = pod("one", "a", "1");
            pod.metadata.resource_version = Some(version.into());
            pod.spec.get_or_insert_default().node_name = Some(node.into());
            pod
        };
        view.put(&at("10", "later"));
        view.put(&at("9", "earlier"));
        assert_eq!(view.get("a").and_then(|seen| seen.node).as_deref(), Some("later"));
    }

    #[test]
    fn the_end_of_an_earlier_pod_does_not_hide_its_successor() {
        let view = View::new("one", "sandbox");
        view.put(&pod("one", "a", "2"));
        view.remove("a", "1");
        assert_eq!(view.get("a").map(|seen| seen.uid), Some("2".into()));
        view.remove("a", "2");
        assert!(view.get("a").is_none());
    }
}
