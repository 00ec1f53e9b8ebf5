//! On PostgreSQL: the gateway's Pod is deleted, upgraded and rolled back under a coding agent that works.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Container, PersistentVolumeClaim, Probe, Secret, TCPSocketAction};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::{
    RELEASE, SECRET, bring, helm_in, image, make_model, make_secrets, pod_of, result_of, serve, served, start_client,
    values,
};
use crate::cluster::{Level, Scene, in_namespaces, until};
use crate::codex::CODEX;
use crate::pod::{Running, SOON, container};
use crate::sandbox::{container_security, image as named_image, label, pull_policy, variable};
use crate::volume::{mount, scratch};

const PASSWORD: &str = "s3cret-of-the-database";
const COMMANDS: [&str; 2] = [
    "printf 'fn main() {}\\n' > main.rs && echo wrote it",
    "echo waits for you; until test -e /workspace/go-on; do sleep 0.1; done; echo went on",
];

/// A server in a Pod, as one of the operator's would be; its URL is in the Secret.
pub(super) async fn make_database(home: &Scene) -> Running {
    let server = named_image("E2E_POSTGRES_IMAGE", "postgres");
    let port = TCPSocketAction { port: IntOrString::Int(5432), ..TCPSocketAction::default() };
    let container = Container {
        name: "database".to_owned(),
        image_pull_policy: pull_policy(&server),
        image: Some(server),
        env: Some(vec![variable("PASSWORD", PASSWORD)]),
        readiness_probe: Some(Probe { tcp_socket: Some(port), period_seconds: Some(1), ..Probe::default() }),
        security_context: Some(container_security(Level::Restricted)),
        volume_mounts: Some(vec![mount("data", "/data"), mount("tmp", "/tmp")]),
        ..Container::default()
    };
    let database = serve(home, container, vec![scratch("data"), scratch("tmp")], 5432).await;
    say_where(home, &format!("database.{}.svc.cluster.local", home.namespace)).await;
    database.ready().await;
    database
}

/// The key `database-url` of the Secret.
pub(super) async fn say_where(home: &Scene, host: &str) {
    let url = format!("postgres://gateway:{PASSWORD}@{host}:5432/postgres?sslmode=disable");
    let patch = Patch::Merge(json!({ "stringData": { "database-url": url } }));
    let secrets: Api<Secret> = home.api();
    secrets.patch(SECRET, &PatchParams::default(), &patch).await.expect("the Secret is there");
}

/// The chart's values on that database.
pub(super) fn on_postgres(scenes: &[Scene; 3]) -> Value {
    let mut values = values(scenes);
    let home = json!({ "matchLabels": { "kubernetes.io/metadata.name": scenes[0].namespace } });
    let database = json!({ "namespaceSelector": home, "podSelector": { "matchLabels": label("database") } });
    values["gateway"]["store"] = json!({ "kind": "postgres" });
    values["networkPolicies"]["database"] = json!({ "peers": [database] });
    values
}

/// What the database says.
pub(super) async fn sql(database: &Running, statement: &str) -> String {
    let said = database
        .exec(&["psql", "--host=/data", "--username=gateway", "--no-password", "-d", "postgres", "-Atc", statement])
        .await;
    assert_eq!(said.code, 0, "{said:?}");
    said.stdout.trim().to_owned()
}

/// Every number from the first to the last is a record, once.
pub(super) async fn nothing_is_lost_or_doubled(database: &Running) {
    let classes = "SELECT class, count(*), max(last) FROM records WHERE class <> 'logs' GROUP BY sandbox, epoch, class";
    for class in sql(database, classes).await.lines() {
        let (_, numbers) = class.split_once('|').expect("three columns");
        let (count, last) = numbers.split_once('|').expect("three columns");
        assert_eq!(count, last, "{class}");
    }
}

/// Until a gateway's Pod of this image is ready that is not `before`.
async fn another_gateway(home: &Scene, before: &str) -> Running {
    let gateway = until("another Pod of the gateway", SOON, async || {
        let gateway = pod_of(home, "gateway").await;
        (gateway.name != before).then_some(gateway)
    })
    .await;
    gateway.ready().await;
    gateway
}

/// 000-86, 000-88, 000-98, 000-99, 001-8, 001-25.
#[test]
fn a_deleted_an_upgraded_and_a_rolled_back_gateway_cost_a_running_task_a_reconnect_and_no_record() {
    in_namespaces(Level::Restricted, async |scenes: &[Scene; 3]| {
        let [home, agents, sandbox] = scenes;
        make_secrets(scenes).await;
        make_model(home, &COMMANDS).await;
        let database = make_database(home).await;
        let mut values = on_postgres(scenes);
        bring(home, "install", &values);
        served(sandbox).await;
        let run = ["task", "run", "--sandbox", "shared-sandbox", "--class", "networked", "--"];
        let client = start_client(home, "client", &[&run[..], &CODEX].concat()).await;
        until("the client shows the agent's work", SOON, async || {
            client.logs_of("client").await.contains("wrote it").then_some(())
        })
        .await;

        let first = pod_of(home, "gateway").await;
        first.api.delete(&first.name, &DeleteParams::default()).await.expect("a Pod can be deleted");
        let second = another_gateway(home, &first.name).await;
        values["gateway"]["image"] = image(&named_image("E2E_GATEWAY_NEXT_IMAGE", "gateway-next"));
        bring(home, "upgrade", &values);
        let third = another_gateway(home, &second.name).await;
        let (done, said) = helm_in(home, &["rollback", RELEASE, "--wait", "--timeout", "120s"], None);
        assert!(done, "{said}");
        another_gateway(home, &third.name).await;

        let shared = pod_of(sandbox, "sandbox").await;
        shared.shell("touch /workspace/go-on").await;
        let (code, said) = result_of(&client).await;
        assert_eq!(code, 0, "{said}");
        assert!(said.contains("went on") && said.contains("The work is done."), "{said}");
        shared
            .until("it was never started again", |pod| (container(pod, "sandbox")?.restart_count == 0).then_some(()))
            .await;
        nothing_is_lost_or_doubled(&database).await;

        let (done, said) = helm_in(home, &["test", RELEASE, "--timeout", "120s"], None);
        assert!(done, "{said}");
        let (done, said) = helm_in(home, &["uninstall", RELEASE, "--wait"], None);
        assert!(done, "{said}");
        let mut left = Vec::new();
        for scene in [home, agents, sandbox] {
            let claims: Api<PersistentVolumeClaim> = scene.api();
            left.extend(claims.list(&ListParams::default()).await.expect("a list").iter().map(ResourceExt::name_any));
            let jobs: Api<Job> = scene.api();
            left.extend(jobs.list(&ListParams::default()).await.expect("a list").iter().map(ResourceExt::name_any));
        }
        assert_eq!(left, ["openhive-db-migrate", "agent-config-pvc"]);
    });
}
