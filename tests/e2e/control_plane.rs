//! The gateway in a Pod of its own, as the documentation tells people to write it, and who speaks to it: sandboxes, its
//! command-line client in another Pod, and the test.
//!
//! Level restricted, root file system read-only, TLS, the store in an emptyDir, a Service before it.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, HTTPGetAction, Pod, PodSpec, Probe, Service, ServicePort, ServiceSpec};
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicySpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::{Api, DeleteParams, PostParams};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tests::tls::Authority;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;

use crate::cluster::{Level, Scene, until};
use crate::pod::{Running, SOON};
use crate::sandbox::{
    Sandbox, container_security, gateway_image, label, labelled, pod_security, pull_policy, sandbox_image, variable,
};
use crate::volume::{make_secret, mount, named, scratch, secret};

/// The only sandbox.
pub(crate) const ID: &str = "sandbox";

const GATEWAY: &str = "gateway";
const NEIGHBOUR: &str = "neighbour";
const PORT: u16 = 8080;
const USER: &str = "token-of-a-user-0123456789";
const TOKEN: &str = "token-of-a-sandbox-0123456789";
/// Where the Secrets are mounted.
const FILES: &str = "/etc/gateway";
const LINK: &str = "/var/run/secrets/chaperone";

/// A gateway that serves.
pub(crate) struct ControlPlane<'s> {
    scene: &'s Scene,
    pub(crate) pod: Running,
    host: String,
    tls: Arc<ClientConfig>,
}

impl<'s> ControlPlane<'s> {
    /// Made with all that belongs to it, and ready; it can be killed.
    pub(crate) async fn start(scene: &'s Scene) -> ControlPlane<'s> {
        ControlPlane::start_with(scene, beside_a_neighbour(gateway_pod())).await
    }

    /// The same without anybody beside it: it is PID 1.
    pub(crate) async fn start_alone(scene: &'s Scene) -> ControlPlane<'s> {
        ControlPlane::start_with(scene, gateway_pod()).await
    }

    async fn start_with(scene: &'s Scene, spec: PodSpec) -> ControlPlane<'s> {
        let host = format!("{GATEWAY}.{}.svc", scene.namespace);
        let tls = make_secrets(scene, &host).await;
        let services: Api<Service> = scene.api();
        services.create(&PostParams::default(), &service()).await.expect("a service can be made");
        let pods: Api<Pod> = scene.api();
        let pod = Pod { metadata: labelled(GATEWAY), spec: Some(spec), status: None };
        pods.create(&PostParams::default(), &pod).await.expect("level restricted admits the gateway's Pod");
        let pod = Running::new(scene, GATEWAY, GATEWAY);
        pod.ready().await;
        ControlPlane { scene, pod, host, tls }
    }

    /// A sandbox that dials this gateway.
    pub(crate) fn link(&self, sandbox: Sandbox) -> Sandbox {
        sandbox
            .env("SUPERVISOR_GATEWAY_URL", &format!("wss://{}:{PORT}", self.host))
            .env("SUPERVISOR_LINK_TOKEN_FILE", &format!("{LINK}/token"))
            .env("SUPERVISOR_LINK_CA_FILE", &format!("{LINK}/ca.crt"))
            .env("SUPERVISOR_AGENT_ID", ID)
            .secret("link", LINK)
    }

    /// The command-line client in a Pod of its own.
    pub(crate) async fn client(&self, arguments: &[&str]) -> Running {
        let mut container = gateway_container("client", arguments);
        container.env = Some(vec![
            variable("GATEWAY_URL", &format!("https://{}:{PORT}", self.host)),
            variable("GATEWAY_TOKEN_FILE", &format!("{FILES}/token")),
            variable("GATEWAY_CA_FILE", &format!("{FILES}/ca.crt")),
        ]);
        container.volume_mounts = Some(vec![mount("user", FILES)]);
        let spec = PodSpec { volumes: Some(vec![secret("user")]), containers: vec![container], ..restricted("Never") };
        let pod = Pod { metadata: labelled("client"), spec: Some(spec), status: None };
        let pods: Api<Pod> = self.scene.api();
        pods.create(&PostParams::default(), &pod).await.expect("level restricted admits the client's Pod");
        Running::new(self.scene, "client", "client")
    }

    /// kill -9, by a neighbour with the same uid that sees its processes.
    pub(crate) async fn kill(&self) {
        let script =
            "for p in /proc/[0-9]*; do [ \"$(cat $p/comm 2>/dev/null)\" = gateway ] && kill -9 ${p#/proc/}; done; true";
        let said = self.pod.exec_in(NEIGHBOUR, &["bash", "-c", script]).await;
        assert_eq!(said.code, 0, "{said:?}");
    }

    /// Nothing comes through to the gateway any more, but for the node's probes. A session that has been opened before may stay,
    /// as the cluster's enforcer will have it.
    pub(crate) async fn cut(&self) {
        let policy = NetworkPolicy {
            metadata: named("cut"),
            spec: Some(NetworkPolicySpec {
                pod_selector: Some(LabelSelector { match_labels: Some(label(GATEWAY)), ..LabelSelector::default() }),
                policy_types: Some(vec!["Ingress".to_owned()]),
                ..NetworkPolicySpec::default()
            }),
        };
        let policies: Api<NetworkPolicy> = self.scene.api();
        policies.create(&PostParams::default(), &policy).await.expect("a policy can be made");
    }

    /// The end of [`ControlPlane::cut`].
    pub(crate) async fn mend(&self) {
        let policies: Api<NetworkPolicy> = self.scene.api();
        policies.delete("cut", &DeleteParams::default()).await.expect("it was made");
    }

    /// Until the gateway calls the sandbox this.
    pub(crate) async fn until_status(&self, status: &str) {
        let path = format!("/v1/sandboxes/{ID}");
        until(&format!("the sandbox is {status}"), SOON, async || {
            let (_, sandbox) = self.ask("GET", &path, &Value::Null).await?;
            (sandbox["status"] == status).then_some(())
        })
        .await;
    }

    /// Start a task through the gateway; its id.
    pub(crate) async fn start_task(&self, create: Value) -> String {
        let path = format!("/v1/sandboxes/{ID}/dev-tasks");
        let (status, task) = self.ask("POST", &path, &create).await.expect("the gateway answers");
        assert_eq!(status, 201, "{task}");
        task["task_id"].as_str().expect("an id").to_owned()
    }

    /// All records that the gateway has of the sandbox, once so many are of this kind. No class but that of output has a
    /// gap, and each has every number once and in order.
    pub(crate) async fn records(&self, kind: &str, times: usize) -> Vec<Value> {
        let events = until(&format!("{times} records {kind}"), SOON, async || {
            let events = self.events().await?;
            (events.iter().filter(|event| event["record"]["kind"] == kind).count() >= times).then_some(events)
        })
        .await;
        for class in ["lifecycle", "results", "metrics"] {
            let numbers: Vec<_> = events.iter().filter(|e| e["class"] == class).map(|e| e["seq"].as_u64()).collect();
            let expected: Vec<_> = (1..=numbers.len() as u64).map(Some).collect();
            assert_eq!(numbers, expected, "{class}: {events:?}");
        }
        events.into_iter().map(|mut event| event["record"].take()).collect()
    }

    async fn events(&self) -> Option<Vec<Value>> {
        let (mut all, mut cursor) = (Vec::new(), "0".to_owned());
        loop {
            let path = format!("/v1/sandboxes/{ID}/events?limit=1000&cursor={cursor}");
            let (_, mut page) = self.ask("GET", &path, &Value::Null).await?;
            cursor = page["cursor"].as_str()?.to_owned();
            match page["events"].take() {
                Value::Array(events) if !events.is_empty() => all.extend(events),
                _ => return Some(all),
            }
        }
    }

    /// One request, past every policy, as `kubectl port-forward` goes; status and body, or nothing where nobody answers.
    pub(crate) async fn ask(&self, method: &str, path: &str, body: &Value) -> Option<(u16, Value)> {
        let mut forwarder = self.pod.api.portforward(&self.pod.name, &[PORT]).await.ok()?;
        let stream = forwarder.take_stream(PORT)?;
        let name = ServerName::try_from(self.host.clone()).expect("a host's name");
        let mut stream = TlsConnector::from(self.tls.clone()).connect(name, stream).await.ok()?;
        let body = if body.is_null() { String::new() } else { body.to_string() };
        // HTTP/1.0: the answer is what comes until the end.
        let request = format!(
            "{method} {path} HTTP/1.0\r\nHost: {}\r\nAuthorization: Bearer {USER}\r\nContent-Length: {}\r\n\r\n{body}",
            self.host,
            body.len()
        );
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = Vec::new();
        // It need not be the end of TLS.
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8(answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some((status, serde_json::from_str(body).unwrap_or(Value::Null)))
    }
}

/// Who is who: files of the gateway, of its sandbox and of its user.
async fn make_secrets(scene: &Scene, host: &str) -> Arc<ClientConfig> {
    let directory = tempfile::tempdir().expect("a scratch directory");
    let authority = Authority::new(directory.path(), "ca.crt");
    let (certificate, key) = authority.issue(host, directory.path());
    let read = |path: &std::path::Path| std::fs::read_to_string(path).expect("it was just written");
    let (ca, certificate, key) = (read(authority.file()), read(&certificate), read(&key));
    let (users, sandboxes) = (format!("ann {USER}\n"), format!("{ID} {TOKEN}\n"));
    let own = [("users", &users), ("sandboxes", &sandboxes), ("tls.crt", &certificate), ("tls.key", &key)].map(as_strs);
    make_secret(scene, GATEWAY, &own).await;
    make_secret(scene, "link", &[("token", TOKEN), ("ca.crt", &ca)]).await;
    make_secret(scene, "user", &[("token", USER), ("ca.crt", &ca)]).await;
    authority.client()
}

fn as_strs<'a>((name, text): (&'a str, &'a String)) -> (&'a str, &'a str) {
    (name, text)
}

fn service() -> Service {
    let port = ServicePort { port: PORT.into(), ..ServicePort::default() };
    let spec = ServiceSpec { selector: Some(label(GATEWAY)), ports: Some(vec![port]), ..ServiceSpec::default() };
    Service { metadata: named(GATEWAY), spec: Some(spec), status: None }
}

/// What every Pod of the gateway's image has in common.
fn restricted(restart: &str) -> PodSpec {
    PodSpec {
        restart_policy: Some(restart.to_owned()),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        security_context: Some(pod_security(Level::Restricted)),
        ..PodSpec::default()
    }
}

fn gateway_pod() -> PodSpec {
    let mut serve = gateway_container(GATEWAY, &["serve"]);
    let ready = HTTPGetAction {
        path: Some("/readyz".to_owned()),
        port: IntOrString::Int(PORT.into()),
        scheme: Some("HTTPS".to_owned()),
        ..HTTPGetAction::default()
    };
    serve.readiness_probe = Some(Probe { http_get: Some(ready), period_seconds: Some(1), ..Probe::default() });
    PodSpec {
        termination_grace_period_seconds: Some(30),
        volumes: Some(vec![scratch("store"), secret(GATEWAY)]),
        init_containers: Some(vec![gateway_container("migrate", &["migrate", "up"])]),
        containers: vec![serve],
        ..restricted("Always")
    }
}

/// A shell in the same process namespace, because nobody inside can kill a PID 1 (pid_namespaces(7)).
fn beside_a_neighbour(mut spec: PodSpec) -> PodSpec {
    spec.share_process_namespace = Some(true);
    spec.containers.push(Container {
        name: NEIGHBOUR.to_owned(),
        image: Some(sandbox_image()),
        image_pull_policy: pull_policy(&sandbox_image()),
        command: Some(["sleep", "infinity"].map(str::to_owned).into()),
        security_context: Some(container_security(Level::Restricted)),
        ..Container::default()
    });
    spec
}

/// A container of the gateway's image with the gateway's settings.
fn gateway_container(name: &str, arguments: &[&str]) -> Container {
    let file = |name: &str| format!("{FILES}/{name}");
    Container {
        name: name.to_owned(),
        image: Some(gateway_image()),
        image_pull_policy: pull_policy(&gateway_image()),
        args: Some(arguments.iter().map(|a| (*a).to_owned()).collect()),
        env: Some(vec![
            variable("GATEWAY_USER_TOKENS_FILE", &file("users")),
            variable("GATEWAY_SANDBOX_TOKENS_FILE", &file("sandboxes")),
            variable("GATEWAY_TLS_CERT_FILE", &file("tls.crt")),
            variable("GATEWAY_TLS_KEY_FILE", &file("tls.key")),
            // Silence is found after 6.5 s.
            variable("GATEWAY_BEAT", "1s"),
        ]),
        security_context: Some(container_security(Level::Restricted)),
        volume_mounts: Some(vec![mount("store", "/var/lib/gateway"), mount(GATEWAY, FILES)]),
        ..Container::default()
    }
}
