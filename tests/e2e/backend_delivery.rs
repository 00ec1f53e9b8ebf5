//! How the supervisor comes into the sandboxes that a gateway makes, where the gateway has to find out: by Pods that it runs
//! before anybody asks for a sandbox.

use k8s_openapi::api::admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding};
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use serde_json::json;
use tests::control_plane::Builder;

use crate::cluster::{Level, Scene, in_namespace, until};
use crate::maker::{self, Maker, RULES};
use crate::pod::SOON;
use crate::sandbox::{Sandbox, supervisor_image, tests_image};

async fn automatic(scene: &Scene, change: impl Fn(&str) -> String) -> Builder {
    maker::unstarted(scene, "hive/one", RULES, change).await.set("kubernetes_delivery", "auto")
}

async fn pods(scene: &Scene) -> Vec<Pod> {
    let pods: Api<Pod> = scene.api();
    pods.list(&ListParams::default()).await.expect("listed").items
}

async fn only_spec(scene: &Scene) -> PodSpec {
    let [pod] = <[Pod; 1]>::try_from(pods(scene).await).expect("the sandbox's Pod, and none of the trials");
    pod.spec.expect("a spec")
}

fn has_image_volume(spec: &PodSpec) -> bool {
    spec.volumes.iter().flatten().any(|volume| volume.image.is_some())
}

fn installs(spec: &PodSpec) -> bool {
    spec.init_containers.iter().flatten().any(|container| container.name == "install")
}

/// Image volumes are against the rules of this namespace, as they are for Pod Security `restricted` before 1.33.
async fn forbid_image_volumes(scene: &Scene) {
    allow_image_volumes(scene).await;
    let name = scene.namespace.clone();
    let policy: ValidatingAdmissionPolicy = serde_json::from_value(json!({
        "metadata": { "name": name, "labels": { "app.kubernetes.io/part-of": "chaperone-e2e" } },
        "spec": {
            "matchConstraints": { "resourceRules": [
                { "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"] },
            ] },
            "validations": [{
                "expression": "!has(object.spec.volumes) || !object.spec.volumes.exists(v, has(v.image))",
                "message": "image volumes are forbidden here",
            }],
        },
    }))
    .expect("a policy");
    let binding: ValidatingAdmissionPolicyBinding = serde_json::from_value(json!({
        "metadata": { "name": name, "labels": { "app.kubernetes.io/part-of": "chaperone-e2e" } },
        "spec": {
            "policyName": name,
            "validationActions": ["Deny"],
            "matchResources": { "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": name } } },
        },
    }))
    .expect("a binding");
    Api::all(scene.client.clone()).create(&PostParams::default(), &policy).await.expect("a policy can be made");
    Api::all(scene.client.clone()).create(&PostParams::default(), &binding).await.expect("and bound");
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    until("the rule is in force", SOON, async || {
        let pod = Sandbox::shell("").pod(scene.level);
        scene.api::<Pod>().create(&dry, &pod).await.is_err().then_some(())
    })
    .await;
}

/// The rule belongs to no namespace, so it does not go with the test's; one that a failed test has left counts in that one's only.
async fn allow_image_volumes(scene: &Scene) {
    let ours = ListParams::default().labels("app.kubernetes.io/part-of=chaperone-e2e");
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(scene.client.clone());
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(scene.client.clone());
    let _ = bindings.delete_collection(&DeleteParams::default(), &ours).await;
    let _ = policies.delete_collection(&DeleteParams::default(), &ours).await;
}

#[test]
fn where_image_volumes_work_a_pod_has_shown_it_before_the_first_sandbox() {
    in_namespace(Level::Restricted, async |scene| {
        let gateway = Maker { gateway: automatic(scene, str::to_owned).await.start() };
        gateway.gateway.stderr.wait_text("how the supervisor comes into sandboxes");
        let made = gateway.create("?wait=120s", &json!({ "id": "a" }));
        assert_eq!(made.status(), 201, "{}", made.json());
        let spec = only_spec(scene).await;
        assert!(has_image_volume(&spec) && !installs(&spec));
    });
}

#[test]
fn where_image_volumes_are_refused_an_init_container_copies_the_supervisor_instead() {
    in_namespace(Level::Restricted, async |scene| {
        forbid_image_volumes(scene).await;
        let builder = automatic(scene, str::to_owned).await;
        let (code, said, _) = builder.run(&["preflight"]);
        let gateway = Maker { gateway: builder.start() };
        let made = gateway.create("?wait=120s", &json!({ "id": "a" }));
        let pods = pods(scene).await;
        allow_image_volumes(scene).await;
        assert_eq!(code, 0, "{said}");
        assert!(
            said.contains("warning  an init container copies the supervisor") && said.contains("forbidden here"),
            "{said}"
        );
        assert_eq!(made.status(), 201, "{}", made.json());
        let [pod] = pods.as_slice() else { panic!("{pods:?}") };
        let spec = pod.spec.as_ref().expect("a spec");
        assert!(!has_image_volume(spec) && installs(spec));
        assert_eq!(gateway.run("a", "cat /proc/1/comm"), "supervisor\n");
    });
}

#[test]
fn a_mount_without_a_supervisor_is_told_before_a_user_meets_it() {
    in_namespace(Level::Restricted, async |scene| {
        // An image that is there, can be mounted, and has no such program.
        let empty = |template: &str| template.replace(&supervisor_image(), &tests_image());
        let gateway = Maker { gateway: automatic(scene, empty).await.start() };
        gateway.gateway.stderr.wait_text("sandboxes cannot be made now");
        let refused = gateway.create("", &json!({ "id": "a" }));
        let detail = refused.json()["detail"].as_str().unwrap_or_default().to_owned();
        assert_eq!(refused.status(), 500, "{detail}");
        assert!(detail.contains("as an image volume") && detail.contains("by an init container"), "{detail}");
        assert_eq!(pods(scene).await, [], "nothing is left of what was tried");
        assert_eq!(gateway.get("a").status(), 404);
    });
}
