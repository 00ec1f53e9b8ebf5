//! The operator's Pod, which every sandbox is made from: read once, and checked before anything is made.

use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use serde_json::Value;

/// Which container is the agent's, where there are several: what `kubectl` takes for the same.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";
/// The port that the Service opens.
pub(super) const PORT: &str = "http";
/// The volume with the token that the supervisor shows to the gateway.
pub(super) const TOKEN_VOLUME: &str = "gateway-token";
/// The volume that a request may give a size.
pub(super) const WORKSPACE_VOLUME: &str = "workspace";
/// Variables that the gateway sets.
pub(super) const OURS: [&str; 2] = ["SUPERVISOR_AGENT_ID", "SUPERVISOR_CONTROLLER_ID"];
/// What is larger is no Pod.
const MAX_BYTES: u64 = 1024 * 1024;

/// Why a template is none.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum TemplateError {
    #[error("the template {path} cannot be read")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("the template {path} is no Pod: {problem}")]
    Parse { path: PathBuf, problem: String },
    #[error("the template {path}: {field}: {problem}")]
    Field { path: PathBuf, field: String, problem: String },
    #[error(
        "GATEWAY_KUBERNETES_DELIVERY=auto needs a template whose agent's container has the supervisor from an image volume, and no init container `install`: use `template`"
    )]
    NoImageVolume,
}

/// A Pod without a name, whose agent's container is known.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    pod: Pod,
    agent: usize,
    port: i32,
    audience: String,
}

impl Template {
    /// From a file of YAML or JSON.
    pub fn read(path: &Path) -> Result<Template, TemplateError> {
        let mut text = String::new();
        let read = std::fs::File::open(path)
            .and_then(|file| std::io::Read::read_to_string(&mut std::io::Read::take(file, MAX_BYTES), &mut text));
        read.map_err(|source| TemplateError::Read { path: path.into(), source })?;
        Template::parse(&text).map_err(|wrong| match wrong {
            Wrong::Text(problem) => TemplateError::Parse { path: path.into(), problem },
            Wrong::Field(field, problem) => TemplateError::Field { path: path.into(), field, problem },
        })
    }

    pub(crate) fn parse(text: &str) -> Result<Template, Wrong> {
        let mut options = serde_saphyr::Options::default();
        // As Kubernetes reads YAML: file modes are written 0440.
        options.legacy_octal_numbers = true;
        options.with_snippet = false;
        let value: Value =
            serde_saphyr::from_str_with_options(text, options).map_err(|error| Wrong::Text(error.to_string()))?;
        let pod: Pod = serde_json::from_value(value.clone()).map_err(|error| Wrong::Text(error.to_string()))?;
        // A misspelt field would be dropped, and with it what the operator meant.
        let known = serde_json::to_value(&pod).map_err(|error| Wrong::Text(error.to_string()))?;
        if let Some(field) = unknown(&value, &known, String::new()) {
            return wrong(field, "is not a field of a Pod in Kubernetes 1.36");
        }
        let spec = pod.spec.as_ref().ok_or_else(|| Wrong::Text("it has no spec".into()))?;
        refuse_names(&pod)?;
        refuse_the_hosts(spec)?;
        let agent = agent(&pod, spec)?;
        let port = refuse_what_is_ours(&spec.containers[agent], agent)?;
        let audience = audience(spec)?;
        Ok(Template { agent, port, audience, pod })
    }

    /// A copy to fill in.
    pub(super) fn pod(&self) -> (Pod, usize) {
        (self.pod.clone(), self.agent)
    }

    /// The same with another Pod, whose agent's container is at the same place.
    pub(super) fn with(&self, pod: Pod) -> Template {
        Template { pod, ..self.clone() }
    }

    /// Where its supervisor listens.
    pub(super) fn port(&self) -> i32 {
        self.port
    }

    /// Whom the tokens of its Pods are for.
    pub(super) fn audience(&self) -> &str {
        &self.audience
    }

    /// The name of the agent's container.
    pub(super) fn agent(&self) -> &str {
        self.pod.spec.as_ref().map_or("", |spec| &spec.containers[self.agent].name)
    }

    /// From a Pod's deletion to the kill of what is left of it.
    pub(super) fn grace(&self) -> std::time::Duration {
        let grace = self.pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds).unwrap_or(30);
        std::time::Duration::from_secs(u64::try_from(grace).unwrap_or(0))
    }
}

/// What is wrong with a text.
#[derive(Debug)]
pub(crate) enum Wrong {
    Text(String),
    Field(String, String),
}

fn wrong<T>(field: impl Into<String>, problem: &str) -> Result<T, Wrong> {
    Err(Wrong::Field(field.into(), problem.into()))
}

/// The first field of `given` that is not in `known`. What is empty may have been left out.
fn unknown(given: &Value, known: &Value, at: String) -> Option<String> {
    match (given, known) {
        (Value::Object(given), known) => given.iter().find_map(|(key, value)| {
            let at = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
            match known.get(key) {
                Some(known) => unknown(value, known, at),
                None if value.is_null() || value.as_array().is_some_and(Vec::is_empty) => None,
                None if value.as_object().is_some_and(serde_json::Map::is_empty) => None,
                None => Some(at),
            }
        }),
        (Value::Array(given), Value::Array(known)) => given
            .iter()
            .zip(known)
            .enumerate()
            .find_map(|(n, (given, known))| unknown(given, known, format!("{at}[{n}]"))),
        _ => None,
    }
}

fn refuse_names(pod: &Pod) -> Result<(), Wrong> {
    let named = &pod.metadata;
    for (field, set) in [
        ("metadata.name", named.name.is_some()),
        ("metadata.namespace", named.namespace.is_some()),
        ("metadata.generateName", named.generate_name.is_some()),
        ("status", pod.status.is_some()),
    ] {
        if set {
            return wrong(field, "is the gateway's to set: leave it out");
        }
    }
    Ok(())
}

/// A sandbox is kept from its node.
fn refuse_the_hosts(spec: &PodSpec) -> Result<(), Wrong> {
    for (field, set) in
        [("spec.hostNetwork", spec.host_network), ("spec.hostPID", spec.host_pid), ("spec.hostIPC", spec.host_ipc)]
    {
        if set == Some(true) {
            return wrong(field, "would let sandboxes out to their node");
        }
    }
    for (n, volume) in spec.volumes.iter().flatten().enumerate() {
        if volume.host_path.is_some() {
            return wrong(format!("spec.volumes[{n}].hostPath"), "would let sandboxes out to their node");
        }
    }
    let init = spec.init_containers.iter().flatten().enumerate().map(|(n, c)| (format!("spec.initContainers[{n}]"), c));
    let all = init.chain(spec.containers.iter().enumerate().map(|(n, c)| (format!("spec.containers[{n}]"), c)));
    for (at, container) in all {
        if container.ports.iter().flatten().any(|port| port.host_port.is_some_and(|port| port != 0)) {
            return wrong(format!("{at}.ports"), "has a hostPort, which would open the node's own");
        }
        let Some(security) = &container.security_context else { continue };
        let adds = security.capabilities.as_ref().is_some_and(|set| set.add.iter().flatten().next().is_some());
        let unconfined = security.seccomp_profile.as_ref().is_some_and(|profile| profile.type_ == "Unconfined");
        let unmasked = security.proc_mount.as_ref().is_some_and(|mount| mount != "Default");
        let privileged = security.privileged == Some(true) || security.allow_privilege_escalation == Some(true);
        if privileged || adds || unconfined || unmasked {
            return wrong(format!("{at}.securityContext"), "gives privileges that a sandbox must not have");
        }
    }
    Ok(())
}

fn agent(pod: &Pod, spec: &PodSpec) -> Result<usize, Wrong> {
    let named = pod.metadata.annotations.as_ref().and_then(|annotations| annotations.get(DEFAULT_CONTAINER));
    match (named, spec.containers.len()) {
        (_, 0) => wrong("spec.containers", "is empty"),
        (None, 1) => Ok(0),
        (None, _) => wrong(
            "spec.containers",
            &format!("are several: say in the annotation {DEFAULT_CONTAINER} which is the agent's"),
        ),
        (Some(name), _) => match spec.containers.iter().position(|container| container.name == *name) {
            Some(index) => Ok(index),
            None => {
                wrong("metadata.annotations", &format!("{DEFAULT_CONTAINER} names `{name}`, which is no container"))
            }
        },
    }
}

/// Of the token that its supervisor shows to the gateway.
fn audience(spec: &PodSpec) -> Result<String, Wrong> {
    let volume = spec.volumes.iter().flatten().find(|volume| volume.name == TOKEN_VOLUME);
    let mut sources =
        volume.and_then(|volume| volume.projected.as_ref()).into_iter().flat_map(|p| p.sources.iter().flatten());
    let token = sources.find_map(|source| source.service_account_token.as_ref());
    match token.and_then(|token| token.audience.clone()).filter(|audience| !audience.is_empty()) {
        Some(audience) => Ok(audience),
        None => wrong(
            "spec.volumes",
            &format!("has no `{TOKEN_VOLUME}` with a projected serviceAccountToken that has an audience"),
        ),
    }
}

/// Its port.
fn refuse_what_is_ours(container: &Container, index: usize) -> Result<i32, Wrong> {
    let at = format!("spec.containers[{index}]");
    if container.command.as_ref().is_none_or(Vec::is_empty) {
        return wrong(format!("{at}.command"), "is missing: it is the supervisor's path and `run`");
    }
    if let Some(variable) = container.env.iter().flatten().find(|variable| OURS.contains(&variable.name.as_str())) {
        return wrong(format!("{at}.env"), &format!("{} is the gateway's to set: leave it out", variable.name));
    }
    let port = container.ports.iter().flatten().find(|port| port.name.as_deref() == Some(PORT));
    match port {
        Some(port) => Ok(port.container_port),
        None => wrong(format!("{at}.ports"), &format!("has none called `{PORT}`, which the Service is to open")),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) const PLAIN: &str = r#"
apiVersion: v1
kind: Pod
metadata:
  labels: {app: sandbox}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 5
  containers:
    - name: sandbox
      image: example/sandbox:1
      command: [/chaperone/supervisor, run]
      env:
        - {name: SUPERVISOR_GATEWAY_URL, value: "ws://gateway:8080"}
        - {name: SUPERVISOR_AGENT_ENV_ALLOW, value: OPENAI_API_KEY}
      ports: [{name: http, containerPort: 8091}]
      volumeMounts: [{name: gateway-token, mountPath: /etc/chaperone/gateway-token, readOnly: true}]
  volumes:
    - name: gateway-token
      projected: {sources: [{serviceAccountToken: {audience: openhive-gateway, path: token}}]}
    - {name: workspace, emptyDir: {sizeLimit: 2Gi}}
"#;

    fn field_of(text: &str) -> String {
        match Template::parse(text) {
            Err(Wrong::Field(field, _)) => field,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_template_is_yaml_or_json() {
        let yaml = Template::parse(PLAIN).expect("good");
        assert_eq!((yaml.agent(), yaml.port(), yaml.grace().as_secs()), ("sandbox", 8091, 5));
        assert_eq!(yaml.audience(), "openhive-gateway");
        let json = serde_json::to_string(&yaml.pod).expect("JSON");
        assert_eq!(Template::parse(&json).expect("good"), yaml);
    }

    #[test]
    fn a_file_mode_is_octal_as_in_every_manifest() {
        let template =
            Template::parse(&PLAIN.replace("projected: {", "projected: {defaultMode: 0440, ")).expect("good");
        let volume = template.pod.spec.as_ref().and_then(|spec| spec.volumes.as_ref()?.first()).expect("one");
        assert_eq!(volume.projected.as_ref().and_then(|projected| projected.default_mode), Some(0o440));
    }

    #[test]
    fn a_misspelt_field_is_named() {
        assert_eq!(field_of(&PLAIN.replace("restartPolicy", "restartPolice")), "spec.restartPolice");
        assert_eq!(field_of(&PLAIN.replace("readOnly", "readonly")), "spec.containers[0].volumeMounts[0].readonly");
        assert!(matches!(Template::parse("- a"), Err(Wrong::Text(_))));
        assert!(matches!(Template::parse("kind: Deployment\napiVersion: apps/v1"), Err(Wrong::Text(_))));
    }

    #[test]
    fn what_opens_the_node_to_a_sandbox_is_refused() {
        let spec = |line: &str| PLAIN.replace("  restartPolicy: Never", &format!("  {line}"));
        assert_eq!(field_of(&spec("hostNetwork: true")), "spec.hostNetwork");
        assert_eq!(field_of(&spec("hostPID: true")), "spec.hostPID");
        let volume = PLAIN.replace("emptyDir: {sizeLimit: 2Gi}", "hostPath: {path: /}");
        assert_eq!(field_of(&volume), "spec.volumes[1].hostPath");
        let privileged = PLAIN.replace("      ports:", "      securityContext: {privileged: true}\n      ports:");
        assert_eq!(field_of(&privileged), "spec.containers[0].securityContext");
    }

    #[test]
    fn what_the_gateway_sets_is_not_the_templates() {
        assert_eq!(field_of(&PLAIN.replace("labels:", "name: x\n  labels:")), "metadata.name");
        assert_eq!(field_of(&PLAIN.replace("SUPERVISOR_GATEWAY_URL", "SUPERVISOR_AGENT_ID")), "spec.containers[0].env");
        assert_eq!(field_of(&PLAIN.replace("name: http", "name: web")), "spec.containers[0].ports");
        assert_eq!(field_of(&PLAIN.replace("audience: openhive-gateway, ", "")), "spec.volumes");
    }

    #[test]
    fn of_several_containers_the_annotation_says_which_is_the_agents() {
        let two = PLAIN.replace("  volumes:", "    - {name: other, image: x}\n  volumes:");
        assert_eq!(field_of(&two), "spec.containers");
        let named = |name: &str| {
            two.replace("  labels:", &format!("  annotations: {{{DEFAULT_CONTAINER}: {name}}}\n  labels:"))
        };
        assert_eq!(Template::parse(&named("sandbox")).expect("good").agent(), "sandbox");
        assert_eq!(field_of(&named("nobody")), "metadata.annotations");
    }
}
