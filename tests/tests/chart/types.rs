//! What is rendered, held against the types of each Kubernetes version: every field is known to it and has the right kind.
//!
//! The types are those of the Go module `k8s.io/client-go`, which has them as one YAML text (`just api-types` downloads it). What
//! is required and what may be written where is told by a real API server: `tests/e2e/chart.rs`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use tests::chart;

/// Kubernetes 1.N, from the chart's oldest to the newest.
const MINORS: std::ops::RangeInclusive<u32> = 31..=37;

type Types = BTreeMap<String, Value>;

#[test]
fn every_object_has_only_fields_that_each_kubernetes_version_knows() {
    if !chart::has_helm() {
        return;
    }
    let sets = chart::sets();
    for minor in MINORS {
        let Some(types) = types_of(minor) else {
            eprintln!("skipped: the types of Kubernetes 1.{minor} are not here (just api-types)");
            continue;
        };
        let mut checked = 0;
        for (name, values) in &sets {
            for object in chart::objects(values) {
                let Some(type_name) = type_name(&object) else { continue };
                let mut wrong = Vec::new();
                check(&types, types.get(&type_name).expect("a type of this version"), &object, "", &mut wrong);
                for pod in chart::pods(&object).iter().filter(|_| object["kind"] == "ConfigMap") {
                    check(&types, &types["io.k8s.api.core.v1.Pod"], pod, "", &mut wrong);
                }
                assert!(wrong.is_empty(), "1.{minor} {name} {}: {wrong:#?}", object["metadata"]["name"]);
                checked += 1;
            }
        }
        println!("Kubernetes 1.{minor}: {checked} objects");
    }
}

/// A check that finds nothing proves nothing.
#[test]
fn a_field_that_is_not_there_and_a_value_of_the_wrong_kind_are_found() {
    let Some((minor, types)) = MINORS.rev().find_map(|minor| Some((minor, types_of(minor)?))) else {
        eprintln!("skipped: no types are here (just api-types)");
        return;
    };
    let pod: Value = serde_saphyr::from_str(
        "{apiVersion: v1, kind: Pod, spec: {containers: [{name: 1, imagePullPolice: Never}], hostPID: maybe, volumes: {}}}",
    )
    .expect("YAML");
    let mut wrong = Vec::new();
    check(&types, &types["io.k8s.api.core.v1.Pod"], &pod, "", &mut wrong);
    assert_eq!(wrong.len(), 4, "1.{minor}: {wrong:?}");
}

/// Resources of others (`HTTPRoute`, `ServiceMonitor`) are none of Kubernetes' own types.
fn type_name(object: &Value) -> Option<String> {
    let version = object["apiVersion"].as_str()?;
    let (group, version) = version.split_once('/').unwrap_or(("core", version));
    let group = group.strip_suffix(".authorization.k8s.io").or(group.strip_suffix(".k8s.io")).unwrap_or(group);
    let known = ["core", "apps", "batch", "networking", "policy", "rbac"].contains(&group);
    known.then(|| format!("io.k8s.api.{group}.{version}.{}", object["kind"].as_str().unwrap_or_default()))
}

/// The types in the module cache, whatever the patch release.
fn types_of(minor: u32) -> Option<Types> {
    let output = Command::new("go").args(["env", "GOMODCACHE"]).output().ok()?;
    let cache = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    let modules = std::fs::read_dir(cache.join("k8s.io")).ok()?.flatten();
    let wanted = format!("client-go@v0.{minor}.");
    let module = modules
        .map(|module| module.path())
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&wanted)))?;
    let text = std::fs::read_to_string(module.join("applyconfigurations/internal/internal.go")).ok()?;
    let yaml = text.split('`').nth(1)?;
    let types: Value = serde_saphyr::from_str(yaml).expect("the module's own YAML");
    let all = types["types"].as_array().expect("a list").iter();
    Some(all.map(|one| (one["name"].as_str().expect("a name").to_owned(), one.clone())).collect())
}

/// Notes every place of `value` that is not of this type.
fn check(types: &Types, kind: &Value, value: &Value, place: &str, wrong: &mut Vec<String>) {
    let kind = kind["namedType"].as_str().map_or(kind, |name| &types[name]);
    if kind["scalar"] == "untyped" {
        return;
    }
    let fits = match value {
        Value::Object(map) if !kind["map"].is_null() => {
            for (key, value) in map {
                let fields = kind["map"]["fields"].as_array().into_iter().flatten();
                let field = fields.clone().find(|field| field["name"] == key.as_str()).map(|field| &field["type"]);
                match field.or(kind["map"].get("elementType")) {
                    Some(kind) => check(types, kind, value, &format!("{place}.{key}"), wrong),
                    None => wrong.push(format!("{place}.{key}: there is no such field")),
                }
            }
            true
        }
        Value::Array(list) if !kind["list"].is_null() => {
            for (index, value) in list.iter().enumerate() {
                check(types, &kind["list"]["elementType"], value, &format!("{place}[{index}]"), wrong);
            }
            true
        }
        Value::String(_) => kind["scalar"] == "string",
        Value::Number(_) => kind["scalar"] == "numeric",
        Value::Bool(_) => kind["scalar"] == "boolean",
        _ => false,
    };
    if !fits {
        wrong.push(format!("{place}: {value} is not a {kind}"));
    }
}
