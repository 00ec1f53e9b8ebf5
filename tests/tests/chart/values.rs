//! What values may be, and that each of them does something.

use serde_json::{Value, json};
use tests::chart;

/// What cannot show in what is rendered without a cluster, and why.
const EXEMPT: [(&str, &str); 1] = [("/checkSecrets", "asks the cluster; tests/e2e/chart.rs shows it")];

#[test]
fn values_that_make_no_sense_are_refused_by_name() {
    if !chart::has_helm() {
        return;
    }
    let postgres = json!({ "kind": "postgres" });
    let good = chart::read("ci/plain.yaml");
    for (pointer, wrong, named) in [
        ("/gateway/image/tag", json!(""), "gateway.image.tag"),
        ("/gateway/image/tag", json!("latest"), "tag"),
        ("/sandbox/image/digest", json!("sha256:short"), "digest"),
        ("/supervisor/delivery", json!("hostPath"), "delivery"),
        ("/gateway/port", json!(80), "port"),
        ("/gateway/prot", json!(8080), "prot"),
        ("/gateway/replicas", json!(0), "replicas"),
        ("/gateway/replicas", json!(2), "gateway.store.kind postgres"),
        ("/gateway/autoscaling/enabled", json!(true), "gateway.store.kind postgres"),
        ("/gateway/settings", json!({ "GATEWAY_ADVERTISE_URL": "http://x" }), "GATEWAY_ADVERTISE_URL"),
        ("/gateway/store/kind", json!("mysql"), "kind"),
        ("/gateway/store", postgres, "networkPolicies.database"),
        ("/sandbox/settings", json!({ "HIVE_X": "1" }), "HIVE_X"),
        ("/gateway/settings", json!({ "GATEWAY_DATABASE_URL": "postgres://x" }), "GATEWAY_DATABASE_URL"),
        ("/gateway/settings", json!({ "GATEWAY_BACKEND": "none" }), "GATEWAY_BACKEND"),
        ("/identity/enabled", json!(true), "networkPolicies.apiServer"),
        ("/identity/check", json!("never"), "check"),
        ("/migrations/mode", json!("later"), "mode"),
        ("/networkPolicies/skills", json!({ "Big Name": [] }), "Big Name"),
        ("/networkPolicies/database/cidrs", json!(["db.example.com"]), "cidrs"),
        ("/namespaces/agents", json!("Agents_1"), "agents"),
        ("/gateway/tls", json!({ "existingSecret": "tls" }), "caConfigMap"),
        ("/sandboxes/enabled", json!(true), "sandboxes.image.tag"),
        ("/sandboxes", json!({ "enabled": true, "image": { "tag": "1" } }), "networkPolicies.apiServer"),
        ("/ingress/enabled", json!(true), "networkPolicies.gatewayFrom"),
        ("/gatewayApi/enabled", json!(true), "parentRefs"),
    ] {
        let mut values = good.clone();
        chart::set(&mut values, pointer, wrong);
        let why = chart::template(&values).expect_err(pointer);
        assert!(why.contains(named), "{pointer}: {why}");
    }
    let mut values = good.clone();
    chart::set(&mut values, "/legacyInternalSecret", json!(true));
    let text = chart::template(&values).expect("it renders");
    assert_eq!(text.matches("name: HIVE_INTERNAL_SECRET").count(), 3, "both, and the one that is tried");
    chart::set(&mut values, "/agent/apiToken", json!(true));
    let why = chart::template(&values).expect_err("two tokens");
    assert!(why.contains("legacyInternalSecret and agent.apiToken"), "{why}");
    assert!(!chart::template(&good).expect("it renders").contains("HIVE_INTERNAL_SECRET"), "issue 6, part 8");
    let mut values = good;
    chart::set(&mut values, "/ingress/enabled", json!(true));
    chart::set(&mut values, "/networkPolicies/gatewayFrom", json!([{ "namespaceSelector": {} }]));
    assert!(chart::template(&values).expect_err("no host").contains("ingress.host"));
}

#[test]
fn every_value_changes_what_is_rendered() {
    if !chart::has_helm() {
        return;
    }
    let mut places = Vec::new();
    leaves(&chart::read("values.yaml"), String::new(), &mut places);
    assert!(places.len() > 150, "{places:?}");
    let sets = chart::sets();
    let before: Vec<String> = sets.iter().map(|(name, values)| chart::template(values).expect(name)).collect();
    let dead = |(place, value): &&(String, Value)| {
        let changed = |((_, values), before): (&(String, Value), &String)| {
            let mut values = values.clone();
            let present = values.pointer(place).cloned().unwrap_or_else(|| value.clone());
            chart::set(&mut values, place, another(place, &present));
            // A set that cannot have it says nothing of it; one of them has to.
            chart::template(&values).is_ok_and(|after| after != *before)
        };
        !EXEMPT.iter().any(|(exempt, _)| exempt == place) && !sets.iter().zip(&before).any(changed)
    };
    let dead: Vec<&str> = places.iter().filter(dead).map(|(place, _)| place.as_str()).collect();
    assert!(dead.is_empty(), "these values change nothing in any set of ci/: {dead:#?}");
}

#[test]
fn a_cluster_that_is_too_old_for_image_volumes_is_told_what_to_set() {
    if !chart::has_helm() {
        return;
    }
    let directory = chart::directory().display().to_string();
    let on = |version: &str, values: &Value| {
        chart::helm(&["template", "release", &directory, "--kube-version", version], Some(values))
    };
    let mut values = chart::read("ci/plain.yaml");
    let (taken, why) = on("1.32", &values);
    assert!(!taken && why.contains("supervisor.delivery") && why.contains("set it to install"), "{why}");
    assert!(on("1.33", &values).0);
    chart::set(&mut values, "/supervisor/delivery", json!("install"));
    assert!(on("1.31", &values).0);
    chart::set(&mut values, "/supervisor/delivery", json!("auto"));
    assert!(on("1.31", &values).0, "which is found out there");
    let (taken, why) = on("1.30", &values);
    assert!(!taken && why.contains("kubeVersion"), "{why}");
}

/// Every place of values.yaml that a person sets: scalars, lists, and maps that are empty.
fn leaves(value: &Value, place: String, found: &mut Vec<(String, Value)>) {
    match value.as_object().filter(|map| !map.is_empty()) {
        Some(map) => map.iter().for_each(|(key, value)| leaves(value, format!("{place}/{key}"), found)),
        None => found.push((place, value.clone())),
    }
}

/// Something else of the same kind that the schema takes.
fn another(place: &str, present: &Value) -> Value {
    let key = place.rsplit('/').next().unwrap_or_default();
    let swap = |one: &str, other: &str| if present == one { json!(other) } else { json!(one) };
    match (key, present) {
        (_, Value::Bool(on)) => json!(!on),
        (_, Value::Number(n)) => json!(n.as_i64().unwrap_or_default() + 1),
        ("pullPolicy", _) => swap("Never", "Always"),
        ("delivery", _) => swap("install", "image-volume"),
        ("kind", _) => swap("postgres", "sqlite"),
        ("check", _) => swap("keys", "tokenreview"),
        ("mode", _) => swap("hook", "manifest"),
        ("digest", _) => json!(format!("sha256:{}", "1".repeat(64))),
        ("size" | "cpu" | "memory", _) => json!("77Mi"),
        ("timeout" | "interval", _) => json!("7s"),
        (_, Value::String(text)) if text.starts_with('/') => json!("/another"),
        (_, Value::String(_)) => json!("another"),
        ("settings", _) if place.starts_with("/gateway") => json!({ "GATEWAY_ANOTHER": "1" }),
        ("settings", _) => json!({ "SUPERVISOR_ANOTHER": "1" }),
        ("affinity", _) => json!({ "nodeAffinity": { "another": 1 } }),
        ("skills", _) => json!({ "another": [{ "ports": [{ "port": 1 }] }] }),
        ("imagePullSecrets" | "parentRefs", _) => json!([{ "name": "another" }]),
        ("paths", _) => json!(["/another"]),
        ("cidrs", _) => json!(["203.0.113.0/24"]),
        ("ports", _) => json!([1234]),
        ("envAllow", _) => json!(["ANOTHER"]),
        ("argv" | "hostnames", _) => json!(["another"]),
        ("outside", _) => json!(["another:1"]),
        (_, Value::Array(_)) => json!([{ "another": "1" }]),
        (_, Value::Object(_)) => json!({ "another": "1" }),
        (_, Value::Null) => json!("another"),
    }
}
