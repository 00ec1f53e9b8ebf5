//! The Kubernetes backend without a cluster: its settings and its template are checked first, and a cluster that is away costs new
//! sandboxes and nothing else.

use std::net::SocketAddr;

use tests::control_plane::{Builder, Gateway};
use tests::dialler::Dialler;
use tests::wait::wait_until;

pub(super) const TEMPLATE: &str = r#"{"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [{"name": "sandbox", "image": "x",
    "command": ["/chaperone/supervisor", "run"], "ports": [{"name": "http", "containerPort": 8091}]}],
    "volumes": [{"name": "gateway-token", "projected": {"sources": [{"serviceAccountToken": {"path": "token", "audience": "x"}}]}}]}}"#;

/// A gateway whose cluster is a port that nobody listens on.
fn away(template: &str) -> Builder {
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let address = free.local_addr().expect("it is bound");
    drop(free);
    in_cluster(Gateway::build(), address, template)
}

/// A gateway whose cluster is there.
pub(super) fn in_cluster(builder: Builder, address: SocketAddr, template: &str) -> Builder {
    let kubeconfig = format!(
        r#"{{"apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{{"name": "c", "cluster": {{"server": "http://{address}"}}}}],
            "users": [{{"name": "u", "user": {{"token": "CANARY-token"}}}}],
            "contexts": [{{"name": "c", "context": {{"cluster": "c", "user": "u"}}}}]}}"#
    );
    let file = |name: &str, text: &str| {
        let path = builder.directory().join(name);
        std::fs::write(&path, text).expect("our own directory");
        path.display().to_string()
    };
    let (template, kubeconfig) = (file("template.json", template), file("kubeconfig", &kubeconfig));
    builder
        .set("backend", "kubernetes")
        .set("kubernetes_namespace", "sandboxes")
        .set("kubernetes_controller_id", "hive/one")
        .set("kubernetes_template", &template)
        .set("kubernetes_kubeconfig", &kubeconfig)
}

#[test]
fn a_cluster_that_is_away_costs_new_sandboxes_and_nothing_else() {
    let gateway = away(TEMPLATE).start();
    let refused = gateway.api().post("/v1/sandboxes", r#"{"id":"new"}"#);
    assert_eq!(refused.status(), 503, "{}", refused.json());
    assert!(
        refused.json()["detail"].as_str().is_some_and(|text| text.contains("cannot be reached")),
        "{}",
        refused.json()
    );
    assert_eq!(gateway.api().get("/readyz").status(), 200);
    wait_until("health tells it", || gateway.api().get("/healthz").json()["backend_away"].is_string());
    assert!((gateway.metric("gateway_backend_away") - 1.0).abs() < f64::EPSILON);
    // Whether the cluster has got something of it is unknown, so it is ended when the cluster is back.
    let left = gateway.api().get("/v1/sandboxes/new").json();
    assert_eq!(left["backend"]["state"], "ending", "{left}");
    // Nobody gets a token for what is about to be forgotten.
    assert_eq!(gateway.api().call("PUT", "/v1/sandboxes/new", &[], b"").status(), 409);
    assert!(!gateway.stderr.text().contains("CANARY-token"));
}

#[test]
fn pods_that_dial_while_the_cluster_is_away_are_told_to_come_again_and_nobody_else_is() {
    let gateway = away(TEMPLATE).set("identity_audience", "x").set("identity_namespaces", "sandboxes").start();
    // A token that only the cluster could know.
    let token = "eyJhbGciOiJSUzI1NiIsImtpZCI6ImsifQ.eyJpc3MiOiJ4In0.c2lnbmF0dXJl";
    let refused = Dialler::upgrade(gateway.address, token).expect("an answer").err().expect("no session");
    assert_eq!(refused.status, 503, "{}", refused.body);
    let (_session, _) = Dialler::begin(&gateway, "a");
}

#[test]
fn another_audience_than_the_templates_is_told_at_the_start() {
    let gateway = away(TEMPLATE).set("identity_audience", "y").set("identity_namespaces", "sandboxes");
    assert_eq!(gateway.run(&["migrate", "up"]).0, 0);
    let (code, _, said) = gateway.run(&["serve"]);
    assert_eq!(code, 78, "{said}");
    assert!(said.contains("`x`") && said.contains("`y`"), "{said}");
}

/// As behind a network policy that is wrong: connections are taken, and nothing is said.
#[test]
fn a_cluster_that_says_nothing_does_not_keep_the_gateway_from_serving() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let builder = away(TEMPLATE);
    let kubeconfig = builder.directory().join("kubeconfig");
    let text = std::fs::read_to_string(&kubeconfig).expect("our own file");
    let (before, rest) = text.split_once("http://").expect("a server");
    let (_, after) = rest.split_once('"').expect("a server");
    let address = silent.local_addr().expect("it is bound");
    std::fs::write(&kubeconfig, format!("{before}http://{address}\"{after}")).expect("our own file");
    let gateway = builder.start();
    let (_session, _) = Dialler::begin(&gateway, "a");
    assert_eq!(gateway.api().get("/readyz").status(), 200);
}

#[test]
fn preflight_tells_an_answer_that_did_not_come_from_one_that_did() {
    let (code, said, _) = away(TEMPLATE).run(&["preflight"]);
    assert_eq!(code, 75, "{said}");
    assert!(said.contains("unknown  ") && !said.contains("FAILED") && !said.contains("CANARY-token"), "{said}");
    let (code, _, said) = Gateway::build().run(&["preflight"]);
    assert_eq!(code, 78);
    assert!(said.contains("GATEWAY_BACKEND"), "{said}");
}

#[test]
fn settings_and_template_are_checked_before_anything_is_done() {
    let all = Gateway::build().set("backend", "kubernetes").set("kubernetes_namespace", "No Such");
    assert_eq!(all.run(&["migrate", "up"]).0, 0);
    let (code, _, said) = all.run(&["serve"]);
    assert_eq!(code, 78);
    for setting in ["GATEWAY_KUBERNETES_NAMESPACE", "GATEWAY_KUBERNETES_CONTROLLER_ID", "GATEWAY_KUBERNETES_TEMPLATE"] {
        assert!(said.contains(setting), "{setting}: {said}");
    }
    for (template, words) in [
        ("- no Pod", "is no Pod"),
        (&TEMPLATE.replace("command", "comand"), "spec.containers[0].comand"),
        (&TEMPLATE.replace("\"spec\": {", "\"spec\": {\"hostNetwork\": true, "), "spec.hostNetwork"),
        (&TEMPLATE.replace("8091", "8091, \"hostPort\": 80"), "hostPort"),
        (
            &TEMPLATE
                .replace("\"image\"", "\"securityContext\": {\"capabilities\": {\"add\": [\"SYS_ADMIN\"]}}, \"image\""),
            "spec.containers[0].securityContext",
        ),
    ] {
        let builder = away(template);
        assert_eq!(builder.run(&["migrate", "up"]).0, 0);
        let (code, _, said) = builder.run(&["serve"]);
        assert_eq!(code, 78, "{said}");
        assert!(said.contains(words) && said.contains("template.json"), "{said}");
    }
}
