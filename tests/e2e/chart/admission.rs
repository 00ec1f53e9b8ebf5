//! What an API server says of everything that is rendered: hooks, init containers and the Pod of sandboxes on request included.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tests::chart;

use crate::cluster::{Level, Scene, in_namespaces};

/// Kinds of others, which a cluster has or has not (`just cluster-crds`).
const OTHERS: [&str; 2] = ["gateway.networking.k8s.io", "monitoring.coreos.com"];

/// 002-22; numbers of the issue: 0 objects that fail validation, 0 findings of `restricted`.
#[test]
fn the_api_server_takes_every_object_and_level_restricted_every_pod() {
    in_namespaces(Level::Restricted, async |[home, agents, sandbox]: &[Scene; 3]| {
        let kinds = kubectl(&["api-resources", "--output=name"], "").1;
        let (mut asked, mut refused) = (0, Vec::new());
        for (name, mut values) in chart::sets() {
            chart::set(&mut values, "/namespaces/agents", json!(agents.namespace));
            chart::set(&mut values, "/namespaces/sandbox", json!(sandbox.namespace));
            let all = chart::objects_in(&home.namespace, &values);
            let pods: Vec<Value> = all.iter().flat_map(chart::pods).collect();
            // Level restricted is enforced on Pods, not on what makes them, so each is asked about as a Pod of its own.
            let pods = pods.into_iter().enumerate().map(|(n, pod)| alone(&home.namespace, n, pod));
            let others = all.into_iter().filter(|object| object["kind"] != "Pod" && is_known(object, &kinds));
            let items: Vec<Value> = others.chain(pods).collect();
            asked += items.len();
            let list = json!({ "apiVersion": "v1", "kind": "List", "items": items }).to_string();
            let (_, said) = kubectl(&["apply", "--dry-run=server", "--validate=strict", "-f", "-"], &list);
            let content =
                |line: &&str| line.ends_with(" (server dry run)") || line.contains("last-applied-configuration");
            refused.extend(said.lines().filter(|line| !content(line)).map(|line| format!("{name}: {line}")));
        }
        println!("goal=0 measured={} lines of complaint about {asked} objects", refused.len());
        assert!(refused.is_empty() && asked > 80, "{asked}: {refused:#?}");
    });
}

fn is_known(object: &Value, kinds: &str) -> bool {
    let group = object["apiVersion"].as_str().and_then(|version| version.split('/').next()).unwrap_or("");
    let known = !OTHERS.contains(&group) || kinds.contains(group);
    if !known {
        eprintln!("skipped: {}: the cluster has no {group} (just cluster-crds)", object["kind"]);
    }
    known
}

/// A Pod as nobody else's, without what it needs of its cluster.
fn alone(namespace: &str, n: usize, mut pod: Value) -> Value {
    pod["apiVersion"] = json!("v1");
    pod["kind"] = json!("Pod");
    pod["metadata"]["name"] = json!(format!("tried-{n}"));
    pod["metadata"]["namespace"] = json!(namespace);
    let spec = pod["spec"].as_object_mut().expect("a spec");
    for elsewhere in ["serviceAccountName", "priorityClassName", "runtimeClassName"] {
        spec.remove(elsewhere);
    }
    pod
}

fn kubectl(arguments: &[&str], input: &str) -> (bool, String) {
    let mut command = Command::new("kubectl");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("kubectl is on PATH: it comes with `cluster env`");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("kubectl reads");
    let output = child.wait_with_output().expect("our own child");
    (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}
