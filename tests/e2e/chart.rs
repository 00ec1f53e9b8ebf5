//! The chart, installed with Helm: it passes its own tests, runs a coding agent, and leaves what it says.

use std::path::Path;
use std::process::{Command, Stdio};

use k8s_openapi::api::core::v1::{
    Container, PersistentVolumeClaim, Pod, PodSpec, Secret, Service, ServicePort, ServiceSpec,
};
use kube::ResourceExt;
use kube::api::{Api, ListParams, PostParams};
use serde_json::{Value, json};

use crate::cluster::{Level, Scene, in_namespaces};
use crate::codex::{CODEX, model};
use crate::pod::Running;
use crate::sandbox::{
    container_security, gateway_image, label, labelled, pod_security, pull_policy, sandbox_image, supervisor_image,
    variable,
};
use crate::volume::{make_secret, mount, named, secret};

const RELEASE: &str = "chaperone";
const SECRET: &str = "openhive-platform-secrets";
const USER: &str = "token-of-a-user-0123456789";
/// Edits a file and looks at it.
const COMMANDS: [&str; 1] = ["printf 'fn main() {}\\n' > main.rs && cat main.rs"];

/// What Helm says, and whether it is content.
fn helm(arguments: &[&str], values: Option<&Value>) -> (bool, String) {
    let mut command = Command::new("helm");
    command.args(arguments).stdin(Stdio::null());
    let file = tempfile::NamedTempFile::new().expect("a scratch file");
    if let Some(values) = values {
        std::fs::write(file.path(), values.to_string()).expect("our own file");
        command.arg("--values").arg(file.path());
    }
    let output = command.output().expect("helm is on PATH: it comes with `cluster env`");
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

fn chart() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/chaperone").display().to_string()
}

/// An image as values have it.
fn image(reference: &str) -> Value {
    let (repository, tag) = reference.rsplit_once(':').expect("images of the tests have a tag");
    json!({ "repository": repository, "tag": tag, "pullPolicy": pull_policy(reference) })
}

/// Everything small and local; what a sandbox may reach besides the gateway is the model.
fn values([home, agents, sandbox]: &[Scene; 3]) -> Value {
    let model = json!({
        "to": [{
            "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": home.namespace } },
            "podSelector": { "matchLabels": label("model") },
        }],
        "ports": [{ "port": 8099 }],
    });
    json!({
        "namespaces": { "agents": agents.namespace, "sandbox": sandbox.namespace },
        "gateway": { "image": image(&gateway_image()) },
        "supervisor": { "image": image(&supervisor_image()) },
        "sandbox": { "image": image(&sandbox_image()) },
        "agent": { "image": image(&sandbox_image()) },
        "networkPolicies": { "sandboxTo": [model] },
    })
}

/// As the chart's page tells people to make them.
async fn make_secrets([home, agents, sandbox]: &[Scene; 3]) {
    let tokens = [("shared-sandbox", "token-of-the-sandbox"), ("static-agent", "token-of-the-agent")];
    let sandboxes: String = tokens.iter().map(|(id, token)| format!("{id} {token}\n")).collect();
    make_secret(home, SECRET, &[("user-tokens", &format!("ann {USER}\n")), ("sandbox-tokens", &sandboxes)]).await;
    make_secret(home, "user", &[("token", USER)]).await;
    make_secret(agents, SECRET, &[("gateway-token", "token-of-the-agent")]).await;
    let base = format!("http://model.{}.svc.cluster.local:8099/v1", home.namespace);
    let provider = [
        ("gateway-token", "token-of-the-sandbox"),
        ("codex-model", "scripted"),
        ("codex-provider-id", "scripted"),
        ("codex-provider-name", "Scripted"),
        ("codex-base-url", &base),
        ("codex-wire-api", "responses"),
        ("codex-requires-openai-auth", "false"),
    ];
    make_secret(sandbox, SECRET, &provider).await;
}

/// A model of its own beside the gateway, where no policy keeps anybody out.
async fn make_model(home: &Scene) {
    let container = Container { restart_policy: None, ..model(&COMMANDS) };
    let spec = PodSpec {
        containers: vec![container],
        security_context: Some(pod_security(Level::Restricted)),
        ..PodSpec::default()
    };
    let pods: Api<Pod> = home.api();
    let pod = Pod { metadata: labelled("model"), spec: Some(spec), status: None };
    pods.create(&PostParams::default(), &pod).await.expect("the model's Pod is admitted");
    let port = ServicePort { port: 8099, ..ServicePort::default() };
    let spec = ServiceSpec { selector: Some(label("model")), ports: Some(vec![port]), ..ServiceSpec::default() };
    let services: Api<Service> = home.api();
    let service = Service { metadata: named("model"), spec: Some(spec), status: None };
    services.create(&PostParams::default(), &service).await.expect("a service can be made");
    Running::new(home, "model", "model").ready().await;
}

/// The command-line client in a Pod beside the gateway; what it said, and how it ended.
async fn client(home: &Scene, arguments: &[&str]) -> (i32, String) {
    let container = Container {
        name: "client".to_owned(),
        image: Some(gateway_image()),
        image_pull_policy: pull_policy(&gateway_image()),
        args: Some(arguments.iter().map(|a| (*a).to_owned()).collect()),
        env: Some(vec![
            variable("GATEWAY_URL", &format!("http://hive-gateway.{}.svc.cluster.local:8080", home.namespace)),
            variable("GATEWAY_TOKEN_FILE", "/etc/gateway/token"),
            variable("GATEWAY_PLAIN", "true"),
        ]),
        security_context: Some(container_security(Level::Restricted)),
        volume_mounts: Some(vec![mount("user", "/etc/gateway")]),
        ..Container::default()
    };
    let spec = PodSpec {
        restart_policy: Some("Never".to_owned()),
        volumes: Some(vec![secret("user")]),
        containers: vec![container],
        security_context: Some(pod_security(Level::Restricted)),
        ..PodSpec::default()
    };
    let pods: Api<Pod> = home.api();
    let pod = Pod { metadata: labelled("client"), spec: Some(spec), status: None };
    pods.create(&PostParams::default(), &pod).await.expect("the client's Pod is admitted");
    let pod = Running::new(home, "client", "client");
    let ended = pod.ended().await;
    (ended.exit_code, pod.logs_of("client").await)
}

#[test]
fn an_installation_passes_its_own_tests_runs_a_coding_agent_and_leaves_what_it_says() {
    in_namespaces(Level::Restricted, async |scenes: &[Scene; 3]| {
        let [home, agents, sandbox] = scenes;
        make_secrets(scenes).await;
        make_model(home).await;
        let namespace = ["--namespace", &home.namespace];
        let chart = chart();
        let install = [&["install", RELEASE, &chart, "--wait", "--timeout", "120s"], &namespace[..]].concat();
        let (done, said) = helm(&install, Some(&values(scenes)));
        assert!(done, "{said}");
        let (done, said) = helm(&[&["test", RELEASE, "--timeout", "120s"], &namespace[..]].concat(), None);
        assert!(done, "{said}");

        let run = ["task", "run", "--sandbox", "shared-sandbox", "--class", "networked", "--"];
        let (code, said) = client(home, &[&run[..], &CODEX].concat()).await;
        assert_eq!(code, 0, "{said}");
        assert!(said.contains("The work is done."), "{said}");

        let (done, said) = helm(&[&["uninstall", RELEASE, "--wait"], &namespace[..]].concat(), None);
        assert!(done, "{said}");
        let mut left = Vec::new();
        for scene in [home, agents, sandbox] {
            let claims: Api<PersistentVolumeClaim> = scene.api();
            left.extend(claims.list(&ListParams::default()).await.expect("a list").iter().map(ResourceExt::name_any));
            let services: Api<Service> = scene.api();
            let services = services.list(&ListParams::default()).await.expect("a list");
            left.extend(services.iter().map(ResourceExt::name_any).filter(|name| name != "model"));
            let secrets: Api<Secret> = scene.api();
            assert!(secrets.get_opt(SECRET).await.expect("an answer").is_some(), "it was not the chart's");
        }
        assert_eq!(left, ["hive-gateway-store", "agent-config-pvc"]);
    });
}

#[test]
fn values_that_make_no_sense_are_refused_by_name() {
    let good = "{\"gateway\":{\"image\":{\"tag\":\"1\"}},\"supervisor\":{\"image\":{\"tag\":\"1\"}},\"sandbox\":{\"image\":{\"tag\":\"1\"}},\
                \"agent\":{\"image\":{\"tag\":\"1\"}}}";
    let good: Value = serde_json::from_str(good).expect("JSON");
    let chart = chart();
    let template = ["template", RELEASE, &chart];
    assert!(helm(&template, Some(&good)).0);
    for (pointer, wrong, named) in [
        ("/gateway/image/tag", json!(""), "gateway.image.tag"),
        ("/gateway/image/tag", json!("latest"), "tag"),
        ("/sandbox/image/digest", json!("sha256:short"), "digest"),
        ("/supervisor/delivery", json!("hostPath"), "delivery"),
        ("/gateway/port", json!(80), "port"),
        ("/gateway/prot", json!(8080), "prot"),
        ("/sandbox/settings", json!({ "HIVE_X": "1" }), "HIVE_X"),
        ("/gateway/settings", json!({ "GATEWAY_DATABASE_URL": "postgres://x" }), "GATEWAY_DATABASE_URL"),
        ("/networkPolicies/skills", json!({ "Big Name": [] }), "Big Name"),
        ("/namespaces/agents", json!("Agents_1"), "agents"),
        ("/gateway/tls", json!({ "existingSecret": "tls" }), "caConfigMap"),
    ] {
        let mut values = good.clone();
        set(&mut values, pointer, wrong);
        let (taken, said) = helm(&template, Some(&values));
        assert!(!taken && said.contains(named), "{pointer}: {said}");
    }
}

/// Put something where nothing has to be.
fn set(values: &mut Value, pointer: &str, value: Value) {
    let mut place = values;
    for step in pointer.split('/').skip(1) {
        place = &mut place[step];
    }
    *place = value;
}
