//! What is missing or wrong is named, and nothing half-made is left.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Event, Pod, Secret};
use kube::ResourceExt;
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde_json::json;
use tests::chart;

use super::upgrade::{make_database, on_postgres, say_where};
use super::{RELEASE, SECRET, helm_in, make_secrets, values};
use crate::cluster::{Level, Scene, in_namespaces, until};
use crate::pod::{SOON, container};

fn install(home: &Scene, values: &serde_json::Value, more: &[&str]) -> (bool, String) {
    let chart = chart::directory().display().to_string();
    helm_in(home, &[&["install", RELEASE, &chart], more].concat(), Some(values))
}

async fn nothing_is_made(home: &Scene) {
    let deployments: Api<Deployment> = home.api();
    let names: Vec<String> =
        deployments.list(&ListParams::default()).await.expect("a list").iter().map(ResourceExt::name_any).collect();
    assert!(names.is_empty(), "{names:?}");
}

#[test]
fn a_missing_secret_and_a_missing_key_are_named_before_anything_is_made() {
    in_namespaces(Level::Restricted, async |scenes: &[Scene; 3]| {
        let [home, agents, sandbox] = scenes;
        let (done, said) = install(home, &values(scenes), &[]);
        assert!(!done);
        for scene in [home, agents, sandbox] {
            assert!(said.contains(&format!("Secret {SECRET} in namespace {}", scene.namespace)), "{said}");
        }
        make_secrets(scenes).await;
        let (done, said) = install(home, &on_postgres(scenes), &[]);
        let wanted = format!("key database-url of Secret {SECRET} in namespace {}", home.namespace);
        assert!(!done && said.contains(&wanted), "{said}");
        let secrets: Api<Secret> = sandbox.api();
        let patch = Patch::Merge(json!({ "data": { "gateway-token": null } }));
        secrets.patch(SECRET, &PatchParams::default(), &patch).await.expect("it is there");
        let (done, said) = install(home, &values(scenes), &[]);
        let wanted = format!("key gateway-token of Secret {SECRET} in namespace {}", sandbox.namespace);
        assert!(!done && said.contains(&wanted) && !said.contains("database-url"), "{said}");
        let mut asked = values(scenes);
        chart::set(&mut asked, "/legacyInternalSecret", json!(true));
        chart::set(&mut asked, "/networkPolicies/enabled", json!(false));
        let requests = json!({ "enabled": true, "apiToken": true, "image": asked["sandbox"]["image"] });
        chart::set(&mut asked, "/sandboxes", requests);
        let (done, said) = install(home, &asked, &[]);
        for key in ["api-token", "gateway-internal-secret"] {
            let wanted = format!("key {key} of Secret {SECRET} in namespace {}", sandbox.namespace);
            assert!(!done && said.contains(&wanted), "{said}");
        }
        let mut elsewhere = values(scenes);
        chart::set(&mut elsewhere, "/namespaces/agents", json!("nowhere-at-all"));
        let (done, said) = install(home, &elsewhere, &[]);
        assert!(!done && said.contains("kubectl create namespace nowhere-at-all"), "{said}");
        nothing_is_made(home).await;
    });
}

/// Who installs may not read classes, which belong to no namespace; so it is the cluster that tells, of the objects by name.
#[test]
fn a_storage_class_and_a_runtime_class_that_are_not_there_are_told_by_the_events_of_what_asks_for_them() {
    in_namespaces(Level::Restricted, async |scenes: &[Scene; 3]| {
        let [home, agents, sandbox] = scenes;
        make_secrets(scenes).await;
        let mut values = values(scenes);
        chart::set(&mut values, "/agent/config/storageClass", json!("no-such-storage"));
        chart::set(&mut values, "/sandbox/runtimeClassName", json!("no-such-runtime"));
        let (done, said) = install(home, &values, &[]);
        assert!(done, "it does not wait: {said}");
        for (scene, object, words) in [
            (agents, "agent-config-pvc", "\"no-such-storage\" not found"),
            (sandbox, "hive-sandbox-", "\"no-such-runtime\" not found"),
        ] {
            let events: Api<Event> = scene.api();
            until(&format!("an event of {object}: {words}"), SOON, async || {
                let all = events.list(&ListParams::default()).await.ok()?;
                let is = |event: &&Event| {
                    event.involved_object.name.as_deref().is_some_and(|name| name.starts_with(object))
                        && event.message.as_deref().is_some_and(|message| message.contains(words))
                };
                all.iter().find(is).map(|_| ())
            })
            .await;
        }
    });
}

/// 000-88.
#[test]
fn a_database_that_cannot_be_reached_fails_the_job_with_its_log_and_the_gateway_is_not_made() {
    in_namespaces(Level::Restricted, async |scenes: &[Scene; 3]| {
        let [home, ..] = scenes;
        make_secrets(scenes).await;
        say_where(home, &format!("nobody.{}.svc.cluster.local", home.namespace)).await;
        let mut values = on_postgres(scenes);
        chart::set(&mut values, "/migrations/retries", json!(0));
        let (done, said) = install(home, &values, &["--timeout", "120s"]);
        assert!(
            !done && said.contains("openhive-db-migrate") && said.contains("the database cannot be opened"),
            "{said}"
        );
        assert!(!said.contains("s3cret"), "{said}");
        nothing_is_made(home).await;
    });
}

/// 000-51, 000-52.
#[test]
fn a_gateway_on_a_schema_that_nobody_made_says_which_command_makes_it() {
    in_namespaces(Level::Restricted, async |scenes: &[Scene; 3]| {
        let [home, ..] = scenes;
        make_secrets(scenes).await;
        make_database(home).await;
        let mut values = on_postgres(scenes);
        chart::set(&mut values, "/migrations/mode", json!("none"));
        let (done, said) = install(home, &values, &[]);
        assert!(done, "{said}");
        let gateway = super::pod_of(home, "gateway").await;
        let (code, message) = gateway
            .until("the gateway has ended", |pod: &Pod| {
                let status = container(pod, "gateway")?;
                let ended = status.last_state.as_ref().or(status.state.as_ref())?.terminated.as_ref()?;
                Some((ended.exit_code, ended.message.clone().unwrap_or_default()))
            })
            .await;
        assert!(code == 78 && message.contains("run `gateway migrate up`"), "{code} {message}");

        // The same Job, by hand.
        chart::set(&mut values, "/migrations/mode", json!("manifest"));
        let (done, said) = helm_in(
            home,
            &["upgrade", RELEASE, &chart::directory().display().to_string(), "--wait", "--timeout", "150s"],
            Some(&values),
        );
        assert!(done, "{said}");
        super::pod_of(home, "gateway").await.ready().await;
    });
}
