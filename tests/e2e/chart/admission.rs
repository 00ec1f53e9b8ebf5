//! What an API server says of everything that is rendered: hooks, init containers and the Pod of sandboxes on request included.

use std::io::Write;
use std::process::{Command, Stdio};

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, PostParams};
use serde_json::{Value, json};
use tests::chart;

use crate::cluster::{Level, Scene, in_namespaces};

/// Kinds of others, which a cluster has or has not (`just cluster-crds`).
const OTHERS: [&str; 2] = ["gateway.networking.k8s.io", "monitoring.coreos.com"];

/// 002-22; numbers of the issue: 0 objects that fail validation, 0 findings of `restricted`.
#[test]
fn the_api_server_takes_every_object_and_level_restricted_every_pod() {
    in_namespaces(Level::Restricted, async |[home, agents, sandbox]: &[Scene; 3]| {
        let kinds = kubectl(&["api-resources", "--output=name"], None).1;
        let (mut objects, mut pods) = (0, 0);
        for (name, mut values) in chart::sets() {
            chart::set(&mut values, "/namespaces/agents", json!(agents.namespace));
            chart::set(&mut values, "/namespaces/sandbox", json!(sandbox.namespace));
            let mut all = chart::objects_in(&home.namespace, &values);
            all.retain(|object| {
                let group = object["apiVersion"].as_str().and_then(|version| version.split('/').next()).unwrap_or("");
                let known = !OTHERS.contains(&group) || kinds.contains(group);
                if !known {
                    eprintln!("SKIPPED: {} of {name}: the cluster has no {group}", object["kind"]);
                }
                known
            });
            for pod in all.iter().flat_map(chart::pods) {
                admit(home, &name, pod).await;
                pods += 1;
            }
            let list = json!({ "apiVersion": "v1", "kind": "List", "items": all });
            let (taken, said) =
                kubectl(&["apply", "--dry-run=server", "--validate=strict", "-f", "-"], Some(&list.to_string()));
            assert!(taken, "{name}: {said}");
            assert!(!said.contains("would violate PodSecurity"), "{name}: {said}");
            objects += all.len();
        }
        println!("goal=0 measured=0 of {objects} objects and {pods} Pods refused");
        assert!(objects > 70 && pods > 15, "{objects} objects, {pods} Pods");
    });
}

/// Level restricted is enforced on Pods, not on what makes them. What belongs to another namespace or cluster is taken away.
async fn admit(home: &Scene, set: &str, mut pod: Value) {
    pod["metadata"]["name"] = json!("tried");
    pod["metadata"].as_object_mut().expect("metadata").remove("namespace");
    let spec = pod["spec"].as_object_mut().expect("a spec");
    for elsewhere in ["serviceAccountName", "priorityClassName", "runtimeClassName"] {
        spec.remove(elsewhere);
    }
    let pod: Pod = serde_json::from_value(pod).unwrap_or_else(|error| panic!("{set}: {error}"));
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let pods: Api<Pod> = home.api();
    pods.create(&dry, &pod).await.unwrap_or_else(|error| panic!("{set}: {error}: {pod:?}"));
}

fn kubectl(arguments: &[&str], input: Option<&str>) -> (bool, String) {
    let mut command = Command::new("kubectl");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("kubectl is on PATH: it comes with `cluster env`");
    child.stdin.take().expect("a pipe").write_all(input.unwrap_or_default().as_bytes()).expect("kubectl reads");
    let output = child.wait_with_output().expect("our own child");
    (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}
