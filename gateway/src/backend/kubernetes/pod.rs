//! The Pod and the Service of a sandbox, from the operator's template and what was asked for. No I/O: the same request gives
//! the same bytes (002-4).
//!
//! A request adds; it changes nothing that the operator has set, but for image, resources, life and workspace size, which are
//! what a request is about.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Container, EnvVar, LocalObjectReference, Pod, PodSpec, ResourceRequirements, Service, ServicePort, ServiceSpec,
    Toleration,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::ObjectMeta;

use super::names;
use super::template::{OURS, PORT, Template, WORKSPACE_VOLUME};
use crate::backend::{BackendError, Spec};

/// Which variables the supervisor hands on to the agent.
const ALLOW: &str = "SUPERVISOR_AGENT_ENV_ALLOW";
/// What its supervisor dials the gateway through.
const LINK_PROXY: &str = "SUPERVISOR_LINK_PROXY";
/// Keys of labels and annotations that have a meaning here.
const RESERVED: [&str; 4] = [names::AGENT_ID, names::CONTROLLER_ID, names::MANAGED_BY, names::AGENT];

/// The Pod of the sandbox `id` of the gateway `controller`.
pub(super) fn pod(template: &Template, controller: &str, id: &str, spec: &Spec) -> Result<Pod, BackendError> {
    spec.check_env()?;
    let (mut pod, agent) = template.pod();
    let metadata = &mut pod.metadata;
    metadata.name = Some(names::name(id));
    let labels = metadata.labels.get_or_insert_default();
    add("labels", labels, &spec.labels)?;
    labels.append(&mut names::labels(controller, id));
    let annotations = metadata.annotations.get_or_insert_default();
    add("annotations", annotations, &spec.annotations)?;
    annotations.append(&mut names::annotations(controller, id));
    if let Some(pod) = &mut pod.spec {
        fill(pod, spec)?;
        container(&mut pod.containers[agent], controller, id, spec)?;
    }
    Ok(pod)
}

fn fill(pod: &mut PodSpec, spec: &Spec) -> Result<(), BackendError> {
    add("node_selector", pod.node_selector.get_or_insert_default(), &spec.node_selector)?;
    pod.tolerations.get_or_insert_default().extend(spec.tolerations.iter().map(toleration));
    if let Some(wanted) = &spec.runtime_class {
        match &pod.runtime_class_name {
            Some(set) if set != wanted => {
                return refuse("runtime_class", &format!("is `{set}`, as the operator has set it"));
            }
            _ => pod.runtime_class_name = Some(wanted.clone()),
        }
    }
    let secret = |name: &String| LocalObjectReference { name: name.clone() };
    pod.image_pull_secrets.get_or_insert_default().extend(spec.image_pull_secrets.iter().map(secret));
    if let Some(seconds) = spec.active_deadline_seconds {
        pod.active_deadline_seconds = Some(seconds.into());
    }
    if let Some(size) = &spec.workspace_size {
        let volume = pod.volumes.iter_mut().flatten().find(|volume| volume.name == WORKSPACE_VOLUME);
        match volume.and_then(|volume| volume.empty_dir.as_mut()) {
            Some(empty) => empty.size_limit = Some(Quantity(size.clone())),
            None => {
                let problem =
                    format!("cannot be set: the operator's template has no emptyDir called {WORKSPACE_VOLUME}");
                return refuse("workspace_size", &problem);
            }
        }
    }
    Ok(())
}

fn container(container: &mut Container, controller: &str, id: &str, spec: &Spec) -> Result<(), BackendError> {
    if let Some(image) = &spec.image {
        container.image = Some(image.clone());
    }
    if !spec.argv.is_empty() {
        container.args =
            Some(std::iter::once("--".to_string()).chain(spec.argv.iter().map(|text| literal(text))).collect());
    }
    let resources = container.resources.get_or_insert_default();
    set_quantities(resources, spec);
    let variables = container.env.get_or_insert_default();
    for name in spec.env.keys() {
        if variables.iter().any(|variable| variable.name == *name) {
            return refuse(&format!("env.{name}"), "is set by the operator");
        }
    }
    allow(variables, &spec.env);
    keep_the_link_direct(variables);
    identify(container, id, controller);
    // Sorted, because the map is.
    let sorted = spec.env.iter().map(|(name, value)| variable(name, value));
    container.env.get_or_insert_default().extend(sorted);
    Ok(())
}

/// Whose supervisor it is.
pub(super) fn identify(container: &mut Container, id: &str, controller: &str) {
    let said = OURS.into_iter().zip([id, controller]).map(|(name, value)| variable(name, value));
    container.env.get_or_insert_default().extend(said);
}

/// A proxy that a request names is for its agent; what the operator has set counts for the supervisor too.
fn keep_the_link_direct(variables: &mut Vec<EnvVar>) {
    let says =
        |variable: &EnvVar| variable.name == LINK_PROXY || variable.name.to_ascii_uppercase().ends_with("_PROXY");
    if !variables.iter().any(says) {
        variables.push(variable(LINK_PROXY, "none"));
    }
}

/// Beside what the operator allows, what was asked for.
fn allow(variables: &mut Vec<EnvVar>, env: &BTreeMap<String, String>) {
    let names = env.keys().cloned().collect::<Vec<_>>().join(",");
    if names.is_empty() {
        return;
    }
    match variables.iter_mut().find(|variable| variable.name == ALLOW) {
        Some(EnvVar { value: Some(allowed), .. }) if !allowed.is_empty() => *allowed = format!("{allowed},{names}"),
        Some(variable) => variable.value = Some(names),
        None => variables.push(variable(ALLOW, &names)),
    }
}

fn variable(name: &str, value: &str) -> EnvVar {
    EnvVar { name: name.into(), value: Some(literal(value)), ..EnvVar::default() }
}

/// The kubelet puts variables in the place of `$(NAME)`; a doubled `$` is one.
fn literal(text: &str) -> String {
    text.replace('$', "$$")
}

fn set_quantities(resources: &mut ResourceRequirements, spec: &Spec) {
    for (of, wanted) in
        [(&mut resources.requests, &spec.resources.requests), (&mut resources.limits, &spec.resources.limits)]
    {
        if !wanted.is_empty() {
            let quantities = wanted.iter().map(|(name, quantity)| (name.clone(), Quantity(quantity.clone())));
            of.get_or_insert_default().extend(quantities);
        }
    }
}

fn toleration(wanted: &crate::backend::Toleration) -> Toleration {
    Toleration {
        key: Some(wanted.key.clone()),
        operator: Some(if wanted.value.is_some() { "Equal" } else { "Exists" }.into()),
        value: wanted.value.clone(),
        effect: wanted.effect.map(|effect| effect.name().into()),
        ..Toleration::default()
    }
}

/// What the operator has set stays.
fn add(field: &str, set: &mut BTreeMap<String, String>, wanted: &BTreeMap<String, String>) -> Result<(), BackendError> {
    for (key, value) in wanted {
        if RESERVED.contains(&key.as_str()) {
            return refuse(&format!("{field}.{key}"), "is the gateway's to set");
        }
        match set.get(key) {
            Some(other) if other != value => {
                return refuse(&format!("{field}.{key}"), &format!("is `{other}`, as the operator has set it"));
            }
            _ => set.insert(key.clone(), value.clone()),
        };
    }
    Ok(())
}

fn refuse<T>(field: &str, problem: &str) -> Result<T, BackendError> {
    Err(BackendError::Request { field: field.into(), problem: problem.into() })
}

/// The Service of that Pod, which goes with it (000-34, 000-38).
pub(super) fn service(template: &Template, controller: &str, id: &str, uid: &str) -> Service {
    let name = names::name(id);
    let owner = OwnerReference {
        api_version: "v1".into(),
        kind: "Pod".into(),
        name: name.clone(),
        uid: uid.into(),
        ..OwnerReference::default()
    };
    let port = ServicePort {
        name: Some(PORT.into()),
        port: template.port(),
        target_port: Some(IntOrString::String(PORT.into())),
        ..ServicePort::default()
    };
    Service {
        metadata: ObjectMeta {
            name: Some(name),
            labels: Some(names::labels(controller, id)),
            annotations: Some(names::annotations(controller, id)),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: Some(ServiceSpec {
            selector: Some(names::labels(controller, id)),
            ports: Some(vec![port]),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::template::tests::PLAIN;
    use super::*;

    fn made(text: &str) -> Result<Pod, String> {
        let template = Template::parse(PLAIN).expect("a good template");
        let spec = serde_json::from_str(text).expect("a good request");
        pod(&template, "hive/gateway", "Agent_1", &spec).map_err(|error| error.to_string())
    }

    fn agent(pod: &Pod) -> &Container {
        &pod.spec.as_ref().expect("a spec").containers[0]
    }

    #[test]
    fn the_same_request_gives_the_same_bytes_whatever_its_order_was() {
        let one = made(r#"{"image":"x","env":{"Z":"1","A":"2"},"labels":{"b":"1","a":"2"}}"#).expect("made");
        let two = made(r#"{"labels":{"a":"2","b":"1"},"env":{"A":"2","Z":"1"},"image":"x"}"#).expect("made");
        let bytes = |pod: &Pod| serde_json::to_vec(pod).expect("JSON");
        assert_eq!(bytes(&one), bytes(&two));
        let names: Vec<_> = agent(&one).env.iter().flatten().map(|variable| variable.name.as_str()).collect();
        assert_eq!(names[names.len() - 2..], ["A", "Z"], "002-4: {names:?}");
    }

    #[test]
    fn the_exact_ids_are_in_annotations_and_in_the_supervisors_settings() {
        let pod = made("{}").expect("made");
        let annotations = pod.metadata.annotations.as_ref().expect("some");
        assert_eq!(annotations[names::AGENT_ID], "Agent_1", "000-36");
        assert_eq!(annotations[names::CONTROLLER_ID], "hive/gateway", "000-36");
        let set: BTreeMap<_, _> =
            agent(&pod).env.iter().flatten().map(|v| (v.name.as_str(), v.value.as_deref())).collect();
        assert_eq!(set["SUPERVISOR_AGENT_ID"], Some("Agent_1"));
        assert_eq!(set["SUPERVISOR_CONTROLLER_ID"], Some("hive/gateway"));
        assert_eq!(agent(&pod).args, None);
    }

    #[test]
    fn what_looks_like_a_variable_is_text() {
        let pod = made(r#"{"argv":["sh","-c","echo $(HOME) $HOME"],"env":{"PRICE":"$(X)"}}"#).expect("made");
        assert_eq!(agent(&pod).args.as_ref().expect("some")[3], "echo $$(HOME) $$HOME");
        let price = agent(&pod).env.iter().flatten().find(|variable| variable.name == "PRICE").expect("set");
        assert_eq!(price.value.as_deref(), Some("$$(X)"));
    }

    #[test]
    fn variables_of_a_request_reach_the_agent() {
        let pod = made(r#"{"env":{"B":"1","A":"1"}}"#).expect("made");
        let allow = agent(&pod).env.iter().flatten().find(|variable| variable.name == ALLOW).expect("set");
        assert_eq!(allow.value.as_deref(), Some("OPENAI_API_KEY,A,B"));
    }

    #[test]
    fn a_request_does_not_change_what_the_operator_has_set() {
        for (request, field) in [
            (r#"{"labels":{"app":"other"}}"#, "labels.app"),
            (r#"{"labels":{"openhive.io/managed-by":"x"}}"#, "labels.openhive.io/managed-by"),
            (r#"{"annotations":{"openhive.io/controller-id":"x"}}"#, "annotations.openhive.io/controller-id"),
            (r#"{"env":{"SUPERVISOR_ENFORCEMENT":"best-effort"}}"#, "env.SUPERVISOR_ENFORCEMENT"),
            (r#"{"env":{"POD_UID":"of another"}}"#, "env.POD_UID"),
            (r#"{"env":{"HIVE_AGENT_CONFIG_JSON":"{}"}}"#, "env.HIVE_AGENT_CONFIG_JSON"),
        ] {
            let error = made(request).expect_err(request);
            assert!(error.starts_with(field), "{error}");
        }
        assert!(made(r#"{"labels":{"app":"sandbox"}}"#).is_ok());
    }

    #[test]
    fn all_that_can_be_asked_for_is_in_the_pod() {
        let pod = made(
            r#"{"resources":{"requests":{"cpu":"100m"},"limits":{"memory":"1Gi"}},"node_selector":{"disk":"fast"},
                "tolerations":[{"key":"gpu","effect":"NoSchedule"},{"key":"team","value":"a"}],"runtime_class":"gvisor",
                "image_pull_secrets":["registry"],"active_deadline_seconds":60,"workspace_size":"1Gi"}"#,
        )
        .expect("made");
        let resources = agent(&pod).resources.clone().expect("set");
        assert_eq!(resources.requests.expect("set")["cpu"].0, "100m");
        assert_eq!(resources.limits.expect("set")["memory"].0, "1Gi");
        let spec = pod.spec.expect("a spec");
        assert_eq!(spec.node_selector.expect("set")["disk"], "fast");
        let operators: Vec<_> = spec.tolerations.iter().flatten().filter_map(|t| t.operator.as_deref()).collect();
        assert_eq!(operators, ["Exists", "Equal"]);
        assert_eq!(spec.runtime_class_name.as_deref(), Some("gvisor"));
        assert_eq!(spec.image_pull_secrets.expect("set")[0].name, "registry");
        assert_eq!(spec.active_deadline_seconds, Some(60));
        let sizes: Vec<_> =
            spec.volumes.iter().flatten().filter_map(|v| v.empty_dir.as_ref()?.size_limit.clone()).collect();
        assert_eq!(sizes, [Quantity("1Gi".into())]);
    }
}
