//! A gateway of this machine that makes sandboxes in a test's namespace: as a service account with just the rights that it needs.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{PolicyRule, Role, RoleBinding, RoleRef, Subject};
use kube::api::{Api, PostParams};
use serde_json::{Value, json};
use tests::binaries;
use tests::control_plane::{Builder, Gateway, USER};
use tests::tasks::Answer;

use crate::cluster::Scene;
use crate::sandbox::{pull_policy, sandbox_image, supervisor_image};
use crate::volume::named;
use crate::way::Way;

/// Verbs by resource: all that the backend needs, and the chart's Role has.
pub(crate) const RULES: &[(&str, &[&str])] = &[
    ("pods", &["create", "get", "list", "watch", "delete"]),
    ("pods/log", &["get"]),
    ("services", &["create", "get", "list", "delete"]),
    ("events", &["list"]),
];

/// How Pods of the test node reach this machine; on another cluster, say which address does.
pub(crate) fn host() -> String {
    std::env::var("E2E_HOST").unwrap_or_else(|_| "10.123.0.254".to_owned())
}

/// The gateway.
pub(crate) struct Maker {
    pub(crate) gateway: Gateway,
}

impl Maker {
    /// Of this controller id.
    pub(crate) async fn start(scene: &Scene, controller: &str) -> Maker {
        Maker::with(scene, controller, RULES, str::to_owned).await
    }

    /// With these rights, and a template that was changed so.
    pub(crate) async fn with(
        scene: &Scene,
        controller: &str,
        rules: &[(&str, &[&str])],
        change: impl Fn(&str) -> String,
    ) -> Maker {
        Maker { gateway: unstarted(scene, controller, rules, change).await.start() }
    }

    /// By this way to the cluster.
    pub(crate) async fn by(scene: &Scene, controller: &str, way: &Way) -> Maker {
        let mut kubeconfig: Value =
            serde_json::from_str(&kubeconfig(scene, controller, RULES).await).expect("it was just written");
        let cluster = &mut kubeconfig["clusters"][0]["cluster"];
        let host = cluster_address().ip().to_string();
        cluster["server"] = json!(format!("https://{}", way.address));
        cluster["tls-server-name"] = json!(host);
        Maker { gateway: build(scene, controller, &kubeconfig.to_string(), str::to_owned).start() }
    }

    /// As whoever runs the tests, in a namespace of this name.
    pub(crate) async fn administrator(scene: &Scene, controller: &str, namespace: &str) -> Maker {
        let path = std::env::var("KUBECONFIG").expect("KUBECONFIG names a cluster");
        let kubeconfig = std::fs::read_to_string(path).expect("it can be read");
        let builder = build(scene, controller, &kubeconfig, str::to_owned);
        Maker { gateway: builder.set("kubernetes_namespace", namespace).start() }
    }

    /// `POST /v1/sandboxes`, with a query.
    pub(crate) fn create(&self, query: &str, body: &Value) -> Answer {
        self.gateway.api().post(&format!("/v1/sandboxes{query}"), body.to_string())
    }

    pub(crate) fn get(&self, id: &str) -> Answer {
        self.gateway.api().get(&format!("/v1/sandboxes/{id}"))
    }

    pub(crate) fn delete(&self, id: &str) -> Answer {
        self.gateway.api().call("DELETE", &format!("/v1/sandboxes/{id}"), &[], b"")
    }

    /// A request whose sender waits no longer than this.
    pub(crate) fn hang_up(&self, method: &str, path: &str, body: &str, after: Duration) {
        let mut stream = TcpStream::connect(self.gateway.address).expect("it listens");
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {USER}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(head.as_bytes()).expect("written");
        std::thread::sleep(after);
    }

    /// The command line of this gateway's client; exit code, and standard output and error.
    pub(crate) fn cli(&self, arguments: &[&str]) -> (i32, String) {
        let token = self.gateway.directory().join("token");
        std::fs::write(&token, USER).expect("our own directory");
        let output = Command::new(binaries::gateway())
            .args(arguments)
            .env_clear()
            .env("GATEWAY_URL", format!("http://{}", self.gateway.address))
            .env("GATEWAY_TOKEN_FILE", token)
            .env("GATEWAY_PLAIN", "true")
            .output()
            .expect("the gateway runs");
        let said = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&said).into_owned())
    }

    /// All events of one class.
    pub(crate) fn events(&self, id: &str, class: &str) -> Vec<Value> {
        let page = self.gateway.api().get(&format!("/v1/sandboxes/{id}/events?class={class}&limit=1000")).json();
        page["events"].as_array().cloned().unwrap_or_default()
    }

    /// What a script writes as a dev-task of a sandbox.
    pub(crate) fn run(&self, id: &str, script: &str) -> String {
        let api = self.gateway.api();
        let path = format!("/v1/sandboxes/{id}/dev-tasks");
        let made = api.post(&path, json!({ "argv": ["bash", "-c", script] }).to_string());
        assert_eq!(made.status(), 201, "{}", made.json());
        let task = made.json()["task_id"].as_str().expect("an id").to_owned();
        tests::wait::wait_until("the task ends", || {
            let task = api.get(&format!("{path}/{task}")).json();
            !matches!(task["state"].as_str(), Some("queued" | "starting" | "running"))
        });
        let output = api.get(&format!("{path}/{task}/logs"));
        String::from_utf8_lossy(&output.body).into_owned()
    }
}

/// Where the API server is; its name must be an address.
pub(crate) fn cluster_address() -> SocketAddr {
    let path = std::env::var("KUBECONFIG").expect("KUBECONFIG names a cluster");
    let whole = kube::config::Kubeconfig::read_from(path).expect("it can be read");
    let server = whole.clusters[0].cluster.as_ref().and_then(|cluster| cluster.server.clone()).expect("a server");
    server.trim_start_matches("https://").trim_end_matches('/').parse().expect("an address and a port")
}

/// A gateway that does not run.
pub(crate) async fn unstarted(
    scene: &Scene,
    controller: &str,
    rules: &[(&str, &[&str])],
    change: impl Fn(&str) -> String,
) -> Builder {
    let kubeconfig = kubeconfig(scene, controller, rules).await;
    build(scene, controller, &kubeconfig, change)
}

fn build(scene: &Scene, controller: &str, kubeconfig: &str, change: impl Fn(&str) -> String) -> Builder {
    // The template has the port, so it is chosen before.
    let free = std::net::TcpListener::bind((host(), 0)).expect("this machine has the address E2E_HOST");
    let address = free.local_addr().expect("it is bound");
    drop(free);
    let builder = Gateway::build();
    let file = |name: &str, text: &str| {
        let path = builder.directory().join(name);
        std::fs::write(&path, text).expect("our own directory");
        path.display().to_string()
    };
    let template = file("template.yaml", &change(&template(address)));
    let kubeconfig = file("kubeconfig", kubeconfig);
    builder
        .set("listen", &address.to_string())
        .set("backend", "kubernetes")
        .set("kubernetes_namespace", &scene.namespace)
        .set("kubernetes_controller_id", controller)
        .set("kubernetes_template", &template)
        .set("kubernetes_kubeconfig", &kubeconfig)
        .set("kubernetes_unschedulable_limit", "2s")
}

/// As the chart renders it.
fn template(gateway: SocketAddr) -> String {
    let (sandbox, supervisor) = (sandbox_image(), supervisor_image());
    let pull = |image: &str| pull_policy(image).unwrap_or_default();
    format!(
        r#"
apiVersion: v1
kind: Pod
metadata:
  labels: {{app.kubernetes.io/name: sandbox}}
spec:
  restartPolicy: Never
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: 10
  securityContext:
    runAsNonRoot: true
    runAsUser: 10001
    runAsGroup: 10001
    fsGroup: 10001
    seccompProfile: {{type: RuntimeDefault}}
  containers:
    - name: sandbox
      image: {sandbox}
      imagePullPolicy: {pull_sandbox}
      command: [/chaperone/supervisor, run]
      env:
        - {{name: SUPERVISOR_GRACE, value: 5s}}
        - {{name: SUPERVISOR_GATEWAY_URL, value: "ws://{gateway}"}}
        - {{name: SUPERVISOR_LINK_PLAIN, value: "true"}}
        - {{name: SUPERVISOR_LINK_TOKEN_FILE, value: /etc/chaperone/gateway-token/token}}
        - {{name: SUPERVISOR_LINK_WINDOW, value: 100ms}}
      ports: [{{name: http, containerPort: 8091}}]
      readinessProbe: {{httpGet: {{path: /readyz, port: http}}, periodSeconds: 1}}
      terminationMessagePolicy: FallbackToLogsOnError
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities: {{drop: [ALL]}}
      volumeMounts:
        - {{name: chaperone, mountPath: /chaperone, readOnly: true}}
        - {{name: gateway-token, mountPath: /etc/chaperone/gateway-token, readOnly: true}}
        - {{name: state, mountPath: /var/lib/supervisor}}
        - {{name: workspace, mountPath: /workspace}}
        - {{name: home, mountPath: /home/codex}}
        - {{name: tmp, mountPath: /tmp}}
  volumes:
    - {{name: chaperone, image: {{reference: {supervisor}, pullPolicy: {pull_supervisor}}}}}
    - name: gateway-token
      projected:
        defaultMode: 0440
        sources: [{{serviceAccountToken: {{audience: openhive-gateway, expirationSeconds: 3600, path: token}}}}]
    - {{name: state, emptyDir: {{}}}}
    - {{name: workspace, emptyDir: {{sizeLimit: 1Gi}}}}
    - {{name: home, emptyDir: {{}}}}
    - {{name: tmp, emptyDir: {{}}}}
"#,
        pull_sandbox = pull(&sandbox),
        pull_supervisor = pull(&supervisor),
    )
}

/// The template with an init container that runs this script.
pub(crate) fn before(template: &str, script: &str) -> String {
    let image = sandbox_image();
    let (pull, script) = (pull_policy(&image).unwrap_or_default(), json!(script));
    let container = format!(
        "  initContainers:\n    - {{name: first, image: {image}, imagePullPolicy: {pull}, command: [bash, -c, {script}], \
         securityContext: {{allowPrivilegeEscalation: false, capabilities: {{drop: [ALL]}}}}}}\n  volumes:"
    );
    template.replacen("  volumes:", &container, 1)
}

/// Of a service account that has these rights in the test's namespace and none elsewhere.
async fn kubeconfig(scene: &Scene, controller: &str, rules: &[(&str, &[&str])]) -> String {
    let name = format!("gateway-{}", controller.replace('/', "-"));
    let accounts: Api<ServiceAccount> = scene.api();
    let account = ServiceAccount { metadata: named(&name), ..ServiceAccount::default() };
    // A second gateway of the same id has the same.
    if accounts.create(&PostParams::default(), &account).await.is_ok() {
        let rule = |(resource, verbs): &(&str, &[&str])| PolicyRule {
            api_groups: Some(vec![String::new()]),
            resources: Some(vec![(*resource).to_owned()]),
            verbs: verbs.iter().map(|verb| (*verb).to_owned()).collect(),
            ..PolicyRule::default()
        };
        let roles: Api<Role> = scene.api();
        let role = Role { metadata: named(&name), rules: Some(rules.iter().map(rule).collect()) };
        roles.create(&PostParams::default(), &role).await.expect("a role can be made");
        let bindings: Api<RoleBinding> = scene.api();
        let subject = Subject {
            kind: "ServiceAccount".to_owned(),
            name: name.clone(),
            namespace: Some(scene.namespace.clone()),
            ..Subject::default()
        };
        let api_group = Some("rbac.authorization.k8s.io".to_owned());
        let role_ref = RoleRef { api_group, kind: "Role".to_owned(), name: name.clone() };
        let binding = RoleBinding { metadata: named(&name), role_ref, subjects: Some(vec![subject]) };
        bindings.create(&PostParams::default(), &binding).await.expect("a binding can be made");
    }
    let spec = TokenRequestSpec { expiration_seconds: Some(3600), ..TokenRequestSpec::default() };
    let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
    let answer = accounts.create_token_request(&name, &PostParams::default(), &request).await.expect("a token");
    let token = answer.status.expect("a status").token;
    let path = std::env::var("KUBECONFIG").expect("KUBECONFIG names a cluster");
    let whole = kube::config::Kubeconfig::read_from(path).expect("it can be read");
    let cluster = serde_json::to_value(&whole.clusters[0]).expect("JSON");
    // YAML may be JSON.
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [cluster],
        "users": [{ "name": "gateway", "user": { "token": token } }],
        "contexts": [{ "name": "test", "context": { "cluster": whole.clusters[0].name, "user": "gateway" } }],
        "current-context": "test",
    })
    .to_string()
}
