//! A Pod's own service account token is its identity at the gateway; no other token is.
//!
//! The gateway runs on this machine, the tokens are real ones of the cluster, bound to real Pods.

use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use protocol::session::{FromSupervisor, close};
use serde_json::json;
use tests::control_plane::Gateway;
use tests::dialler::{Dialler, hello};
use tests::wait::wait_until;

use crate::cluster::{Level, Scene, in_namespaces, until};
use crate::pod::SOON;
use crate::sandbox::Sandbox;

pub(crate) const AUDIENCE: &str = "openhive-gateway";

/// A Pod that does nothing, with this id or without.
async fn pod(scene: &Scene, name: &str, id: Option<&str>) -> Pod {
    Sandbox::shell("exec sleep infinity").name(name).start(scene).await;
    let annotations = json!({ "metadata": { "annotations": { "openhive.io/agent-id": id } } });
    let pods: Api<Pod> = scene.api();
    pods.patch(name, &PatchParams::default(), &Patch::Merge(annotations)).await.expect("it was just made")
}

/// A token of the default service account, bound to this Pod where there is one.
pub(crate) async fn token(scene: &Scene, pod: Option<&Pod>, audience: &str) -> String {
    let bound = pod.map(|pod| BoundObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        name: Some(pod.name_any()),
        uid: pod.uid(),
    });
    let spec = TokenRequestSpec {
        audiences: Some(vec![audience.to_owned()]),
        bound_object_ref: bound,
        expiration_seconds: Some(600),
    };
    let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
    let accounts: Api<ServiceAccount> = scene.api();
    let answer = accounts.create_token_request("default", &PostParams::default(), &request).await;
    answer.expect("a token").status.and_then(|status| status.token).expect("a token")
}

fn gateway(check: &str, namespace: &str) -> Gateway {
    let kubeconfig = std::env::var("KUBECONFIG").expect("it names a cluster");
    Gateway::build()
        .set("kubernetes_kubeconfig", &kubeconfig)
        .set("identity_audience", AUDIENCE)
        .set("identity_namespaces", namespace)
        .set("identity_check", check)
        .start()
}

/// Status and body of a dial that is no session.
#[track_caller]
pub(crate) fn refused(gateway: &Gateway, token: &str) -> (u16, String) {
    match Dialler::upgrade(gateway.address, token).expect("an answer") {
        Ok(_) => (101, String::new()),
        Err(refused) => (refused.status, refused.body),
    }
}

async fn only_a_pods_own_token_counts(check: &str, [home, elsewhere]: &[Scene; 2]) {
    let sandbox = pod(home, "sandbox", Some("Exact.Id_1")).await;
    let gateway = gateway(check, &home.namespace);
    let good = token(home, Some(&sandbox), AUDIENCE).await;
    let mut session = Dialler::upgrade(gateway.address, &good).expect("an answer").expect("it is a sandbox's");
    session.send(&FromSupervisor::Hello(Box::new(hello("Exact.Id_1"))));
    wait_until("the session", || gateway.api().get("/v1/sandboxes/Exact.Id_1").json()["status"] == "connected");
    let mut other = Dialler::upgrade(gateway.address, &good).expect("an answer").expect("it is a sandbox's");
    other.send(&FromSupervisor::Hello(Box::new(hello("somebody-else"))));
    assert_eq!(other.close_code(), close::FORBIDDEN);

    let nobody = pod(home, "nobody", None).await;
    let stranger = pod(elsewhere, "stranger", Some("Exact.Id_1")).await;
    let (body, signature) = good.rsplit_once('.').expect("three parts");
    let forged = format!("{body}.{}", signature.chars().rev().collect::<String>());
    for (what, token) in [
        ("for another audience", token(home, Some(&sandbox), "somebody").await),
        ("bound to no Pod", token(home, None, AUDIENCE).await),
        ("of a Pod without an id", token(home, Some(&nobody), AUDIENCE).await),
        ("of a Pod of another namespace", token(elsewhere, Some(&stranger), AUDIENCE).await),
        ("with another signature", forged),
    ] {
        let (status, said) = refused(&gateway, &token);
        assert_eq!(status, 401, "{what}: {said}");
        assert!(!said.contains(&token) && !gateway.stderr.text().contains(&token), "{what}");
    }

    let pods: Api<Pod> = home.api();
    pods.delete("sandbox", &DeleteParams::default().grace_period(0)).await.expect("it is there");
    until("the token to be worth nothing", SOON, async || (refused(&gateway, &good).0 == 401).then_some(())).await;
}

#[test]
fn by_the_clusters_keys_only_a_pods_own_token_opens_a_session_and_only_while_the_pod_is_there() {
    in_namespaces(Level::Restricted, async |scenes: &[Scene; 2]| only_a_pods_own_token_counts("keys", scenes).await);
}

#[test]
fn by_token_review_only_a_pods_own_token_opens_a_session_and_only_while_the_pod_is_there() {
    in_namespaces(Level::Restricted, async |scenes: &[Scene; 2]| {
        only_a_pods_own_token_counts("tokenreview", scenes).await;
    });
}
