//! Several gateways on one PostgreSQL, as the chart sets them up: one is taken away under a coding agent, and they are upgraded one by
//! one.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams};
use serde_json::{Value, json};

use super::upgrade::{make_database, nothing_is_lost_or_doubled, on_postgres, sql};
use super::{RELEASE, bring, helm_in, image, make_model, make_secrets, pod_of, result_of, start_client};
use crate::cluster::{Level, Scene, in_namespaces_within, until};
use crate::codex::CODEX;
use crate::pod::{Running, SOON};
use crate::sandbox::image as named_image;

/// Two installs, a roll of two Pods, and two tasks of the agent.
const LIMIT: std::time::Duration = std::time::Duration::from_secs(420);

/// The Pods of the gateway that are ready and not being deleted, by name.
async fn gateways(home: &Scene) -> Vec<String> {
    let pods: Api<Pod> = home.api();
    let list = pods.list(&ListParams::default().labels("app.kubernetes.io/component=gateway")).await;
    let living = |pod: &&Pod| pod.metadata.deletion_timestamp.is_none() && crate::pod::is_ready(pod);
    let mut names: Vec<String> = list.iter().flatten().filter(living).map(ResourceExt::name_any).collect();
    names.sort();
    names
}

/// The Pod whose gateway has the sandbox's session: the database knows its address.
async fn owner(home: &Scene, database: &Running, sandbox: &str) -> Option<String> {
    let url = sql(
        database,
        &format!(
            "SELECT url FROM gateways g JOIN sandboxes s ON s.owner = g.id WHERE s.id = '{sandbox}' AND s.ended_ms IS NULL"
        ),
    )
    .await;
    let pods: Api<Pod> = home.api();
    let list = pods.list(&ListParams::default().labels("app.kubernetes.io/component=gateway")).await.ok()?;
    let at =
        |pod: &Pod| pod.status.as_ref().and_then(|status| status.pod_ip.as_ref()).is_some_and(|ip| url.contains(ip));
    list.items.iter().find(|pod| at(pod)).map(ResourceExt::name_any)
}

fn several(values: &mut Value) {
    values["gateway"]["replicas"] = json!(2);
    // Silence is found after 6.5 s.
    values["gateway"]["settings"] = json!({ "GATEWAY_BEAT": "1s" });
}

#[test]
fn of_several_gateways_one_may_go_and_all_may_be_upgraded_under_a_coding_agent() {
    in_namespaces_within(LIMIT, Level::Restricted, async |scenes: &[Scene; 3]| {
        let [home, _, sandbox] = scenes;
        make_secrets(scenes).await;
        make_model(
            home,
            &[
                "printf 'fn main() {}\\n' > main.rs && echo wrote it",
                "echo waits for you; until test -e /workspace/go-on; do sleep 0.1; done; echo went on",
            ],
        )
        .await;
        let database = make_database(home).await;
        let mut values = on_postgres(scenes);
        several(&mut values);
        bring(home, "install", &values);
        assert_eq!(gateways(home).await.len(), 2);
        let (passed, said) = helm_in(home, &["test", RELEASE, "--timeout", "120s"], None);
        assert!(passed, "{said}");

        let run = ["task", "run", "--sandbox", "shared-sandbox", "--class", "networked", "--"];
        let client = start_client(home, "client", &[&run[..], &CODEX].concat()).await;
        until("the agent waits", SOON, async || client.logs_of("client").await.contains("waits for you").then_some(()))
            .await;
        let first = until("an owner", SOON, async || owner(home, &database, "shared-sandbox").await).await;
        let pods: Api<Pod> = home.api();
        // No grace: its node has gone, as far as anybody can see.
        pods.delete(&first, &DeleteParams::default().grace_period(0)).await.expect("a Pod can be deleted");
        until("another gateway has the session", SOON, async || {
            owner(home, &database, "shared-sandbox").await.filter(|now| *now != first)
        })
        .await;

        let before = gateways(home).await;
        values["gateway"]["image"] = image(&named_image("E2E_GATEWAY_NEXT_IMAGE", "gateway-next"));
        bring(home, "upgrade", &values);
        let after = until("two new gateways", SOON, async || {
            let now = gateways(home).await;
            (now.len() == 2 && now.iter().all(|name| !before.contains(name))).then_some(now)
        })
        .await;
        until("one of them has the session", SOON, async || {
            owner(home, &database, "shared-sandbox").await.filter(|now| after.contains(now))
        })
        .await;

        pod_of(sandbox, "sandbox").await.shell("touch /workspace/go-on").await;
        let (code, said) = result_of(&client).await;
        assert_eq!(code, 0, "{said}");
        assert!(said.contains("went on") && said.contains("The work is done."), "{said}");
        assert_eq!(said.matches("OpenAI Codex v").count(), 1, "nothing is told twice: {said}");
        nothing_is_lost_or_doubled(&database).await;
        assert_eq!(sql(&database, "SELECT count(*) FROM records WHERE body LIKE '%\"task.result\"%'").await, "1");
    });
}
