//! Calls past the session, to Pods of a real cluster: the gateway signs each for one Pod, and no other one takes it.

use std::net::SocketAddr;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api as Objects, ListParams};
use serde_json::{Value, json};
use tests::tasks::Api;

use crate::cluster::{Level, Scene, in_namespace};
use crate::maker::{Maker, RULES};

/// The Pod of this sandbox, and where its supervisor listens.
async fn pod_of(scene: &Scene, id: &str) -> (Pod, SocketAddr) {
    let pods: Objects<Pod> = scene.api();
    let all = pods.list(&ListParams::default()).await.expect("listed");
    let is = |pod: &&Pod| pod.annotations().get("openhive.io/agent-id").is_some_and(|agent| agent == id);
    let pod = all.iter().find(is).expect("it was made").clone();
    let address = pod.status.as_ref().and_then(|status| status.pod_ip.clone()).expect("it runs");
    (pod, format!("{address}:8091").parse().expect("an address"))
}

fn token(gateway: &Maker, id: &str) -> Value {
    let answer = gateway.gateway.api().post(&format!("/v1/sandboxes/{id}/call-tokens"), "");
    assert_eq!(answer.status(), 201, "{}", answer.json());
    answer.json()
}

#[test]
fn a_call_that_the_gateway_has_signed_for_one_pod_counts_there_once_and_nowhere_else() {
    in_namespace(Level::Restricted, async |scene| {
        let signed = |template: &str| {
            let told = |name: &str, field: &str| {
                format!("        - {{name: {name}, valueFrom: {{fieldRef: {{fieldPath: metadata.{field}}}}}}}\n")
            };
            let (name, uid) = (told("POD_NAME", "name"), told("POD_UID", "uid"));
            let signed = "        - {name: SUPERVISOR_API_SIGNED, value: \"true\"}\n";
            template.replace("      env:\n", &format!("      env:\n{signed}{name}{uid}"))
        };
        let gateway = Maker::with(scene, "hive/one", RULES, signed).await;
        for id in ["a", "b"] {
            let made = gateway.create("?wait=120s", &json!({ "id": id }));
            assert_eq!(made.status(), 201, "{}", made.json());
        }
        let ((pod, a), (_, b)) = (pod_of(scene, "a").await, pod_of(scene, "b").await);
        let call = |at: SocketAddr, token: &str| Api::at(at, token).get("/dev-tasks").status();

        let first = token(&gateway, "a");
        assert_eq!(first["audience"].as_str(), pod.uid().as_deref(), "it is for this very Pod");
        let text = first["token"].as_str().expect("a token");
        assert_eq!(call(b, text), 401, "another Pod");
        assert_eq!([call(a, text), call(a, text)], [200, 401], "once");
        let second = token(&gateway, "a");
        let task = json!({ "argv": ["echo", "signed"] }).to_string();
        let made = Api::at(a, second["token"].as_str().expect("a token")).post("/dev-tasks?wait=30s", task);
        assert_eq!((made.status(), &made.json()["state"]), (201, &json!("succeeded")));
        let nobodys = Api::at(a, "").with_token(None);
        assert_eq!(nobodys.get("/dev-tasks").status(), 401);
    });
}
