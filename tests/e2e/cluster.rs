//! One namespace a test: made with its Pod Security level, removed whatever happens.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Pod, ServiceAccount};
use kube::api::{Api, DeleteParams, ListParams, LogParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::json;

/// No test may take longer: image pulls, restarts with back-off and grace periods all fit many times.
const LIMIT: Duration = Duration::from_secs(240);

/// Between two looks at the cluster.
pub(crate) const POLL: Duration = Duration::from_millis(150);

/// Pod Security level that the namespace enforces (`pod-security.kubernetes.io/enforce`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    /// No root, no capability, RuntimeDefault seccomp.
    Restricted,
    /// Root with a few capabilities.
    Baseline,
    /// Anything: only for the tool that plays the kernel's part from outside the Pod.
    Privileged,
}

impl Level {
    const fn name(self) -> &'static str {
        match self {
            Level::Restricted => "restricted",
            Level::Baseline => "baseline",
            Level::Privileged => "privileged",
        }
    }
}

/// A namespace that exists as long as its test.
pub(crate) struct Scene {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    pub(crate) level: Level,
}

/// Runs a test in a namespace of its own. On failure the state and logs of its Pods are printed first.
pub(crate) fn in_namespace(level: Level, test: impl AsyncFnOnce(&Scene)) {
    in_namespaces(level, async |[scene]: &[Scene; 1]| test(scene).await);
}

/// The same, where it may take longer than others.
pub(crate) fn in_namespace_within(limit: Duration, level: Level, test: impl AsyncFnOnce(&Scene)) {
    in_namespaces_within(limit, level, async |[scene]: &[Scene; 1]| test(scene).await);
}

/// The same with several.
pub(crate) fn in_namespaces<const N: usize>(level: Level, test: impl AsyncFnOnce(&[Scene; N])) {
    in_namespaces_within(LIMIT, level, test);
}

pub(crate) fn in_namespaces_within<const N: usize>(limit: Duration, level: Level, test: impl AsyncFnOnce(&[Scene; N])) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be made");
    let scenes = std::array::from_fn(|_| runtime.block_on(Scene::create(level)));
    let outcome =
        catch_unwind(AssertUnwindSafe(|| runtime.block_on(async { tokio::time::timeout(limit, test(&scenes)).await })));
    for scene in &scenes {
        if !matches!(outcome, Ok(Ok(()))) {
            runtime.block_on(scene.describe());
        }
        runtime.block_on(scene.remove());
    }
    match outcome {
        Ok(Ok(())) => {}
        Ok(Err(_)) => panic!("the test took longer than {limit:?}"),
        Err(panic) => resume_unwind(panic),
    }
}

/// Looks until `look` answers, at most `limit`; `what` is named when it never does.
pub(crate) async fn until<T>(what: &str, limit: Duration, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + limit;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(tokio::time::Instant::now() < deadline, "not within {limit:?}: {what}");
        tokio::time::sleep(POLL).await;
    }
}

impl Scene {
    pub(crate) async fn create(level: Level) -> Scene {
        let client = Client::try_default().await.expect("KUBECONFIG names a cluster that can be reached");
        let labels = [
            ("app.kubernetes.io/part-of", "chaperone-e2e"),
            ("pod-security.kubernetes.io/enforce", level.name()),
            ("pod-security.kubernetes.io/enforce-version", "latest"),
        ];
        let namespace = Namespace {
            metadata: ObjectMeta {
                generate_name: Some("chaperone-e2e-".to_owned()),
                labels: Some(labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into()),
                ..ObjectMeta::default()
            },
            ..Namespace::default()
        };
        let api: Api<Namespace> = Api::all(client.clone());
        let made = api.create(&PostParams::default(), &namespace).await.expect("a namespace can be made");
        let scene = Scene { client, namespace: made.name_any(), level };
        // A Pod is refused until its service account exists, whether it mounts a token or not.
        let accounts: Api<ServiceAccount> = scene.api();
        until("the default service account", Duration::from_secs(30), async || {
            accounts.get_opt("default").await.ok().flatten()
        })
        .await;
        scene
    }

    /// The objects of one kind in this namespace.
    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    async fn describe(&self) {
        let pods: Api<Pod> = self.api();
        let Ok(list) = pods.list(&ListParams::default()).await else { return };
        for pod in list {
            let name = pod.name_any();
            let status = serde_json::to_string(&pod.status).unwrap_or_default();
            eprintln!("--- {} {name} {status}", self.namespace);
            let containers = pod.spec.iter().flat_map(|s| s.init_containers.iter().flatten().chain(&s.containers));
            for container in containers {
                for previous in [true, false] {
                    let wanted =
                        LogParams { container: Some(container.name.clone()), previous, ..LogParams::default() };
                    if let Ok(log) = pods.logs(&name, &wanted).await {
                        eprintln!("--- log of {name}/{} (previous: {previous})\n{log}", container.name);
                    }
                }
            }
        }
    }

    /// A test that failed in the middle of a deletion has left its finalizer, which would keep the Pod for ever.
    async fn release(&self, pods: &Api<Pod>) {
        let held = pods.list(&ListParams::default()).await.map(|list| list.items).unwrap_or_default();
        for pod in held.iter().filter(|pod| !pod.finalizers().is_empty()) {
            let none = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
            if let Err(error) = pods.patch(&pod.name_any(), &PatchParams::default(), &none).await {
                eprintln!("pod {} keeps its finalizer: {error}", pod.name_any());
            }
        }
    }

    pub(crate) async fn remove(&self) {
        let pods: Api<Pod> = self.api();
        self.release(&pods).await;
        // A short grace, so that what a failed test left running does not keep the node busy.
        let soon = DeleteParams::default().grace_period(1);
        if let Err(error) = pods.delete_collection(&soon, &ListParams::default()).await {
            eprintln!("pods of {} are left: {error}", self.namespace);
        }
        let api: Api<Namespace> = Api::all(self.client.clone());
        if let Err(error) = api.delete(&self.namespace, &DeleteParams::default()).await {
            eprintln!("namespace {} is left: {error}", self.namespace);
        }
    }
}
