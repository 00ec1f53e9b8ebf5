//! Sandboxes on request, as the chart sets the gateway up for them: its role, its way to the API server, its template.

use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use serde_json::json;

use super::{
    RELEASE, SECRET, bring, helm_in, image, make_model, make_secrets, pod_of, result_of, served, start_client, values,
};
use crate::cluster::{Level, Scene, in_namespaces, until};
use crate::codex::CODEX;
use crate::pod::{Running, SOON};
use crate::sandbox::sandbox_image;

const COMMANDS: [&str; 1] = ["printf 'fn main() {}\\n' > main.rs && cat main.rs"];

/// Both of its addresses: the one of its Service and its own.
async fn api_server(home: &Scene) -> Vec<String> {
    let services: Api<Service> = Api::namespaced(home.client.clone(), "default");
    let service = services.get("kubernetes").await.expect("every cluster has it");
    let slices: Api<EndpointSlice> = Api::namespaced(home.client.clone(), "default");
    let selected = ListParams::default().labels("kubernetes.io/service-name=kubernetes");
    let slices = slices.list(&selected).await.expect("a list");
    let own = slices.iter().flat_map(|slice| slice.endpoints.iter().flatten()).flat_map(|e| e.addresses.clone());
    let all = service.spec.expect("a spec").cluster_ip.into_iter().chain(own);
    all.map(|address| format!("{address}/{}", if address.contains(':') { 128 } else { 32 })).collect()
}

/// An installation that makes sandboxes, with a model that asks for these commands. No secret is given out: each Pod has a token of its
/// own.
async fn install(scenes: &[Scene; 3], commands: &[&str]) {
    let [home, _, sandbox] = scenes;
    make_secrets(scenes).await;
    make_model(home, commands).await;
    let mut values = values(scenes);
    values["sandboxes"] = json!({ "enabled": true, "image": image(&sandbox_image()) });
    values["identity"] = json!({ "enabled": true });
    for (scene, key) in scenes.iter().zip(["sandbox-tokens", "gateway-token", "gateway-token"]) {
        let secrets: Api<Secret> = scene.api();
        let none = Patch::Merge(json!({ "data": { key: null } }));
        secrets.patch(SECRET, &PatchParams::default(), &none).await.expect("it is there");
    }
    values["networkPolicies"]["apiServer"] = json!({ "cidrs": api_server(home).await });
    bring(home, "install", &values);
    served(sandbox).await;
}

/// One command of the client, which succeeds; what it says.
async fn done(home: &Scene, name: &str, arguments: &[&str]) -> String {
    let (code, said) = result_of(&start_client(home, name, arguments).await).await;
    assert_eq!(code, 0, "{said}");
    said
}

/// A coding agent's task in the sandbox `made.1`.
fn run() -> Vec<&'static str> {
    [&["task", "run", "--sandbox", "made.1", "--class", "networked", "--"], &CODEX[..]].concat()
}

/// 000-19, 000-34..39, 000-45, and part 3 of the issue; the whole of the first sentence.
#[test]
fn a_platform_asks_for_a_sandbox_runs_a_coding_agent_in_it_and_nothing_is_left() {
    in_namespaces(Level::Restricted, async |scenes: &[Scene; 3]| {
        let [home, _, sandbox] = scenes;
        install(scenes, &COMMANDS).await;
        let (passed, said) = helm_in(home, &["test", RELEASE, "--timeout", "120s"], None);
        assert!(passed, "{said}");

        done(home, "create", &["sandbox", "create", "made.1"]).await;
        let said = done(home, "run", &run()).await;
        assert!(said.contains("The work is done."), "{said}");
        done(home, "delete", &["sandbox", "delete", "made.1"]).await;
        assert_eq!(made_in(sandbox).await, [0, 0]);

        // One that is there when the release goes ends with it, and so does what has ended it.
        done(home, "another", &["sandbox", "create", "made.2"]).await;
        assert_eq!(made_in(sandbox).await, [1, 1]);
        let (gone, said) = helm_in(home, &["uninstall", RELEASE, "--wait", "--timeout", "150s"], None);
        assert!(gone, "{said}");
        assert_eq!(made_in(sandbox).await, [0, 0]);
        let (accounts, maps): (Api<ServiceAccount>, Api<ConfigMap>) = (home.api(), home.api());
        assert!(accounts.get_opt("hive-gateway-clean").await.expect("an answer").is_none());
        assert!(maps.get_opt("hive-gateway-clean").await.expect("an answer").is_none());
    });
}

#[test]
fn a_deleted_gateway_costs_a_sandboxs_task_nothing_and_a_deleted_sandbox_ends_it_truly_and_comes_again() {
    in_namespaces(Level::Restricted, async |scenes: &[Scene; 3]| {
        let [home, _, sandbox] = scenes;
        install(scenes, &["echo waits for you; until test -e /workspace/go-on; do sleep 0.1; done; echo went on"])
            .await;
        done(home, "create", &["sandbox", "create", "made.1"]).await;
        let waits = async |client: &Running| {
            until("the agent waits", SOON, async || {
                client.logs_of("client").await.contains("waits for you").then_some(())
            })
            .await;
        };
        let client = start_client(home, "run", &run()).await;
        waits(&client).await;
        let gateway = pod_of(home, "gateway").await;
        gateway.api.delete(&gateway.name, &DeleteParams::default()).await.expect("a Pod can be deleted");
        gateway.gone().await;
        let made = pod_of(sandbox, "sandboxes").await;
        let first = Running::new(sandbox, &made.name, "sandbox");
        first.shell("touch /workspace/go-on").await;
        let (code, said) = result_of(&client).await;
        assert_eq!(code, 0, "{said}");
        assert!(said.contains("went on") && said.contains("The work is done."), "{said}");

        first.shell("rm /workspace/go-on").await;
        let client = start_client(home, "again", &run()).await;
        waits(&client).await;
        first.api.delete(&first.name, &DeleteParams::default()).await.expect("a Pod can be deleted");
        let (code, said) = result_of(&client).await;
        assert!(code != 0 && said.contains("cancelled"), "{code}: {said}");
        // It is wanted still, so it is made again, and works.
        let said = done(home, "after", &["task", "run", "--sandbox", "made.1", "--", "echo", "here again"]).await;
        assert!(said.contains("here again"), "{said}");
        assert_eq!(made_in(sandbox).await, [1, 1]);
    });
}

/// Pods and Services that a gateway has made.
async fn made_in(sandbox: &Scene) -> [usize; 2] {
    let made = ListParams::default().labels("openhive.io/managed-by");
    let (pods, services): (Api<Pod>, Api<Service>) = (sandbox.api(), sandbox.api());
    let pods = pods.list(&made).await.expect("a list").items.len();
    [pods, services.list(&made).await.expect("a list").items.len()]
}
