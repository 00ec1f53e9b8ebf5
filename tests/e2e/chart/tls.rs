//! With TLS, tokens for the API, and somebody who scrapes: all parts still find each other, and nobody else gets in.

use k8s_openapi::api::core::v1::{ConfigMap, Container, Pod, PodSpec};
use kube::api::{Api, PostParams};
use serde_json::json;
use tests::tls::Authority;

use super::{RELEASE, SECRET, bring, helm_in, make_secrets, pod_of, values};
use crate::cluster::{Level, Scene, in_namespaces, until};
use crate::pod::{Running, SOON};
use crate::sandbox::{container_security, label, labelled, pod_security, pull_policy, supervisor_image};
use crate::volume::{make_secret, named};

/// The gateway's certificate for the name that the chart dials, and who signed it where supervisors look.
async fn make_certificates([home, agents, sandbox]: &[Scene; 3]) {
    let directory = tempfile::tempdir().expect("a scratch directory");
    let authority = Authority::new(directory.path(), "ca.crt");
    let host = format!("hive-gateway.{}.svc.cluster.local", home.namespace);
    let (certificate, key) = authority.issue(&host, directory.path());
    let read = |path: &std::path::Path| std::fs::read_to_string(path).expect("it was just written");
    make_secret(home, "gateway-tls", &[("tls.crt", &read(&certificate)), ("tls.key", &read(&key))]).await;
    for scene in [agents, sandbox] {
        let data = [("ca.crt".to_owned(), read(authority.file()))].into();
        let maps: Api<ConfigMap> = scene.api();
        let map = ConfigMap { metadata: named("gateway-ca"), data: Some(data), ..ConfigMap::default() };
        maps.create(&PostParams::default(), &map).await.expect("a ConfigMap can be made");
        make_more(scene, "api-token", "token-of-the-api-0123456789").await;
    }
}

async fn make_more(scene: &Scene, key: &str, text: &str) {
    let secrets: Api<k8s_openapi::api::core::v1::Secret> = scene.api();
    let patch = kube::api::Patch::Merge(json!({ "stringData": { key: text } }));
    secrets.patch(SECRET, &kube::api::PatchParams::default(), &patch).await.expect("it is there");
}

/// `supervisor netcheck` in a Pod of this name, which is also its label; its exit code and what it said.
async fn netcheck(home: &Scene, name: &str, arguments: &[&str]) -> (i32, String) {
    let container = Container {
        name: "netcheck".to_owned(),
        image: Some(supervisor_image()),
        image_pull_policy: pull_policy(&supervisor_image()),
        command: Some([&["/supervisor", "netcheck"], arguments].concat().into_iter().map(str::to_owned).collect()),
        security_context: Some(container_security(Level::Restricted)),
        ..Container::default()
    };
    let spec = PodSpec {
        restart_policy: Some("Never".to_owned()),
        containers: vec![container],
        security_context: Some(pod_security(Level::Restricted)),
        ..PodSpec::default()
    };
    let pods: Api<Pod> = home.api();
    let pod = Pod { metadata: labelled(name), spec: Some(spec), status: None };
    pods.create(&PostParams::default(), &pod).await.expect("it is admitted");
    let pod = Running::new(home, name, "netcheck");
    (pod.ended().await.exit_code, pod.logs_of("netcheck").await)
}

#[test]
fn with_tls_and_tokens_sessions_begin_and_only_who_scrapes_gets_to_the_metrics() {
    in_namespaces(Level::Restricted, async |scenes: &[Scene; 3]| {
        let [home, agents, sandbox] = scenes;
        make_secrets(scenes).await;
        make_certificates(scenes).await;
        let mut values = values(scenes);
        values["gateway"]["tls"] = json!({ "existingSecret": "gateway-tls", "caConfigMap": "gateway-ca" });
        values["gateway"]["blockEviction"] = json!(true);
        values["supervisor"]["delivery"] = json!("install");
        values["sandbox"]["apiToken"] = json!(true);
        values["agent"]["apiToken"] = json!(true);
        let here = json!({ "matchLabels": { "kubernetes.io/metadata.name": home.namespace } });
        let scraper = json!({ "namespaceSelector": here, "podSelector": { "matchLabels": label("scraper") } });
        values["monitoring"] = json!({ "from": [scraper], "dashboards": { "enabled": true } });
        bring(home, "install", &values);
        let (done, said) = helm_in(home, &["test", RELEASE, "--timeout", "120s"], None);
        assert!(done, "{said}");
        let shared = pod_of(sandbox, "sandbox").await;
        until("the sandbox has a session by TLS", SOON, async || {
            (shared.metric("supervisor_link_state{state=\"connected\"}").await == Some(1.0)).then_some(())
        })
        .await;
        let open = format!("hive-gateway.{}.svc.cluster.local:8080", home.namespace);
        let places = [
            format!("hive-sandbox.{}.svc.cluster.local:8091", sandbox.namespace),
            format!("hive-agent.{}.svc.cluster.local:8090", agents.namespace),
        ];
        let scrapes = ["--open", &open, "--open", &places[0], "--open", &places[1]];
        let (code, said) = netcheck(home, "scraper", &scrapes).await;
        assert_eq!(code, 0, "{said}");
        let stays_out = ["--open", &open, "--closed", &places[0], "--closed", &places[1]];
        let (code, said) = netcheck(home, "stranger", &stays_out).await;
        assert_eq!(code, 0, "{said}");
    });
}
