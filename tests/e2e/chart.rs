//! The chart, installed with Helm: it passes its own tests, runs a coding agent, and leaves what it says.

mod admission;
mod bad_input;
mod requests;
mod several;
mod tls;
mod upgrade;

use k8s_openapi::api::core::v1::{
    Container, PersistentVolumeClaim, Pod, PodSpec, Secret, Service, ServicePort, ServiceSpec, Volume,
};
use kube::ResourceExt;
use kube::api::{Api, ListParams, PostParams};
use serde_json::{Value, json};
use tests::chart::{self, helm};

use crate::cluster::{Level, Scene, in_namespaces, until};
use crate::codex::{CODEX, model};
use crate::pod::{Running, SOON};
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

/// A server beside the gateway, where no policy keeps anybody out: a Pod and a Service of its container's name.
async fn serve(home: &Scene, container: Container, volumes: Vec<Volume>, port: i32) -> Running {
    let name = container.name.clone();
    let spec = PodSpec {
        containers: vec![container],
        volumes: Some(volumes),
        security_context: Some(pod_security(Level::Restricted)),
        ..PodSpec::default()
    };
    let pods: Api<Pod> = home.api();
    let pod = Pod { metadata: labelled(&name), spec: Some(spec), status: None };
    pods.create(&PostParams::default(), &pod).await.expect("the server's Pod is admitted");
    let port = ServicePort { port, ..ServicePort::default() };
    let spec = ServiceSpec { selector: Some(label(&name)), ports: Some(vec![port]), ..ServiceSpec::default() };
    let services: Api<Service> = home.api();
    let service = Service { metadata: named(&name), spec: Some(spec), status: None };
    services.create(&PostParams::default(), &service).await.expect("a service can be made");
    Running::new(home, &name, &name)
}

/// A model of its own.
async fn make_model(home: &Scene, commands: &[&str]) {
    serve(home, Container { restart_policy: None, ..model(commands) }, Vec::new(), 8099).await.ready().await;
}

/// Helm in the gateway's namespace; whether it is content, and what it says.
fn helm_in(home: &Scene, arguments: &[&str], values: Option<&Value>) -> (bool, String) {
    helm(&[arguments, &["--namespace", &home.namespace]].concat(), values)
}

/// `install` or `upgrade`, until all is ready.
#[track_caller]
fn bring(home: &Scene, verb: &str, values: &Value) {
    let chart = chart::directory().display().to_string();
    let (done, said) = helm_in(home, &[verb, RELEASE, &chart, "--wait", "--timeout", "150s"], Some(values));
    assert!(done, "{said}");
}

/// The Pod of a part of the release that runs now.
async fn pod_of(scene: &Scene, component: &str) -> Running {
    let pods: Api<Pod> = scene.api();
    let selected = ListParams::default().labels(&format!("app.kubernetes.io/component={component}"));
    until(&format!("a Pod of {component}"), SOON, async || {
        let list = pods.list(&selected).await.ok()?;
        let mut living = list.items.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
        living.next().map(|pod| Running::new(scene, &pod.name_any(), component))
    })
    .await
}

/// Until Pods get to the gateway by its Service. Ready is one thing; that everybody on the node is sent there is the next.
async fn served(sandbox: &Scene) {
    let shared = pod_of(sandbox, "sandbox").await;
    until("the shared sandbox has a session", SOON, async || {
        (shared.metric("supervisor_link_state{state=\"connected\"}").await == Some(1.0)).then_some(())
    })
    .await;
}

/// The command-line client in a Pod of this name beside the gateway.
async fn start_client(home: &Scene, name: &str, arguments: &[&str]) -> Running {
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
    let pod = Pod { metadata: labelled(name), spec: Some(spec), status: None };
    pods.create(&PostParams::default(), &pod).await.expect("the client's Pod is admitted");
    Running::new(home, name, "client")
}

/// How it ended, and what it said.
async fn result_of(client: &Running) -> (i32, String) {
    let ended = client.ended().await;
    (ended.exit_code, client.logs_of("client").await)
}

#[test]
fn an_installation_passes_its_own_tests_runs_a_coding_agent_and_leaves_what_it_says() {
    in_namespaces(Level::Restricted, async |scenes: &[Scene; 3]| {
        let [home, agents, sandbox] = scenes;
        make_secrets(scenes).await;
        make_model(home, &COMMANDS).await;
        bring(home, "install", &values(scenes));
        let (done, said) = helm_in(home, &["test", RELEASE, "--timeout", "120s"], None);
        assert!(done, "{said}");

        let run = ["task", "run", "--sandbox", "shared-sandbox", "--class", "networked", "--"];
        let (code, said) = result_of(&start_client(home, "client", &[&run[..], &CODEX].concat()).await).await;
        assert_eq!(code, 0, "{said}");
        assert!(said.contains("The work is done."), "{said}");

        let (done, said) = helm_in(home, &["uninstall", RELEASE, "--wait"], None);
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
