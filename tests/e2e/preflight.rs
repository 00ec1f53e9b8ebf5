//! `supervisor preflight --json` in a Pod says what this node can enforce, and what the Pod was given.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::api::Api;
use serde_json::{Value, json};

use crate::cluster::{Level, in_namespace};
use crate::pod::AGENT;
use crate::sandbox::{Sandbox, USER};

#[test]
fn preflight_says_in_json_what_the_node_can_enforce_and_what_the_pod_was_given() {
    in_namespace(Level::Restricted, async |scene| {
        let limits = [("memory", "96Mi"), ("cpu", "250m")].map(|(name, most)| (name.into(), Quantity(most.into())));
        let pod = Sandbox::shell("")
            .command(&["preflight", "--json"])
            .env("SUPERVISOR_ENFORCEMENT", "required")
            .container(|container| {
                let limits = Some(BTreeMap::from(limits));
                container.resources = Some(ResourceRequirements { limits, ..ResourceRequirements::default() });
            })
            .start(scene)
            .await;
        let ended = pod.ended().await;
        let log = pod.logs_of(AGENT).await;
        assert_eq!(ended.exit_code, 0, "{log}");
        let report: Value = serde_json::from_str(&log).unwrap_or_else(|e| panic!("not one JSON object ({e}): {log}"));
        let facts = &report["facts"];

        // What the API server knows of this Pod and its node.
        let name = pod.api.get(&pod.name).await.expect("it is there").spec.and_then(|spec| spec.node_name);
        let nodes: Api<Node> = Api::all(scene.client.clone());
        let node = nodes.get(&name.expect("it ran")).await.expect("a node").status.and_then(|status| status.node_info);
        assert_eq!(facts["kernel"], node.expect("the kubelet tells").kernel_version);
        assert_eq!((&facts["cgroup"]["memory_max"], &facts["cgroup"]["cpus"]), (&json!(96 << 20), &json!(0.25)));
        assert_eq!((&facts["pid_one"], &facts["no_new_privileges"]), (&json!(true), &json!(true)));
        assert_eq!((&facts["ids"]["uid"], &facts["seccomp"]["mode"]), (&json!(USER), &json!("filter")));
        for set in ["effective", "permitted", "inheritable", "bounding", "ambient"] {
            assert_eq!(facts["capabilities"][set], json!([]), "{set}");
        }
        let delivered = |what: &str| {
            let places = facts["places"].as_array().expect("a list");
            places.iter().find(|place| place["what"] == what).map(|place| place["delivery"].clone())
        };
        assert_eq!(delivered("supervisor"), Some(json!("image-volume")), "{facts}");
        assert_eq!(delivered("state"), Some(json!("empty-dir")), "{facts}");
        assert_eq!(facts["termination_log"]["ok"], true);
        let missing = |guarantee: &Value| guarantee["state"] == "missing";
        assert!(!report["guarantees"].as_array().expect("a list").iter().any(missing), "{report}");
    });
}
