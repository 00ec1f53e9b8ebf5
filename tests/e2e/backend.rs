//! Sandboxes that the gateway makes as Pods: made, found, refused in words, ended, and none left over. The gateway runs on this
//! machine, with no more rights than `docs/operations.md` gives it.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, ResourceQuota, ResourceQuotaSpec, Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tests::postgres::Postgres;
use tests::tasks::Answer;

use crate::cluster::{Level, Scene, in_namespace, until};
use crate::identity;
use crate::maker::{self, Maker, RULES};
use crate::pod::SOON;
use crate::volume::named;
use crate::way::Way;

/// Until a sandbox must be ready.
const WAIT: &str = "?wait=120s";

async fn count(scene: &Scene) -> [usize; 2] {
    let wanted = ListParams::default().labels("openhive.io/managed-by");
    let pods: Api<Pod> = scene.api();
    let services: Api<Service> = scene.api();
    [pods.list(&wanted).await.expect("listed").items.len(), services.list(&wanted).await.expect("listed").items.len()]
}

async fn only_pod(scene: &Scene) -> Pod {
    let pods: Api<Pod> = scene.api();
    let all = pods.list(&ListParams::default().labels("openhive.io/managed-by")).await.expect("listed").items;
    let [pod] = <[Pod; 1]>::try_from(all).expect("one Pod");
    pod
}

#[track_caller]
fn detail(answer: &Answer, status: u16) -> String {
    assert_eq!(answer.status(), status, "{}", answer.json());
    answer.json()["detail"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_sandbox_that_is_asked_for_is_a_pod_and_a_service_until_it_is_deleted() {
    in_namespace(Level::Restricted, async |scene| {
        let gateway = Maker::start(scene, "hive/one").await;
        let asked = json!({ "id": "Agent_1", "env": { "GREETING": "good $(HOME)" }, "labels": { "team": "red" } });
        let made = gateway.create(WAIT, &asked);
        assert_eq!(made.status(), 201, "{}", made.json());
        let made = made.json();
        assert_eq!((&made["status"], &made["backend"]["state"]), (&json!("connected"), &json!("running")), "{made}");

        let pod = only_pod(scene).await;
        assert_eq!(pod.annotations()["openhive.io/agent-id"], "Agent_1", "000-36");
        assert_eq!(pod.annotations()["openhive.io/controller-id"], "hive/one", "000-36");
        assert_eq!(pod.labels()["team"], "red");
        assert_eq!(made["backend"]["place"], format!("{}/{}", scene.namespace, pod.name_any()));
        let services: Api<Service> = scene.api();
        let service = services.get(&pod.name_any()).await.expect("000-34, 000-38: a Service of the Pod's name");
        assert_eq!(service.owner_references()[0].uid, pod.uid().expect("a uid"));
        assert_eq!(service.spec.expect("a spec").ports.expect("ports")[0].port, 8091, "000-25");

        // 003-25: each change once, beside what its supervisor tells.
        let events = until("the last change among the events", SOON, async || {
            let events = gateway.events("Agent_1", "backend");
            (events.last()?["record"]["kind"] == "backend.running").then_some(events)
        })
        .await;
        assert_eq!(events[0]["record"]["kind"], "backend.starting", "{events:?}");
        let numbers: Vec<_> = events.iter().filter_map(|event| event["seq"].as_u64()).collect();
        assert!(numbers.iter().copied().eq(1..=numbers.len() as u64), "{numbers:?}");

        let task = gateway.run("Agent_1", "echo $GREETING");
        assert_eq!(task, "good $(HOME)\n");

        assert_eq!(gateway.delete("Agent_1").status(), 204);
        assert_eq!(count(scene).await, [0, 0]);
        assert_eq!(gateway.get("Agent_1").status(), 404);
    });
}

#[test]
fn the_same_request_twice_is_one_sandbox_and_another_one_of_its_id_is_refused() {
    in_namespace(Level::Restricted, async |scene| {
        let gateway = Maker::start(scene, "hive/one").await;
        let asked = json!({ "id": "a", "labels": { "x": "1", "y": "2" } });
        assert_eq!(gateway.create("", &asked).status(), 201);
        assert_eq!(gateway.create("", &json!({ "labels": { "y": "2", "x": "1" }, "id": "a" })).status(), 200, "003-20");
        let other = detail(&gateway.create("", &json!({ "id": "a" })), 409);
        assert!(other.contains("sandbox a already"), "{other}");
        assert_eq!(count(scene).await, [1, 1]);
    });
}

#[test]
fn on_postgresql_a_sandbox_is_kept_over_a_kill_and_each_change_is_told_once() {
    let Some(server) = Postgres::start() else { return };
    in_namespace(Level::Restricted, async |scene| {
        let builder = maker::unstarted(scene, "hive/one", RULES, str::to_owned).await;
        let mut gateway = Maker { gateway: builder.set("database_url", &server.url()).start() };
        assert_eq!(gateway.create(WAIT, &json!({ "id": "a" })).status(), 201);
        let before = only_pod(scene).await;
        let told = gateway.events("a", "backend");
        gateway.gateway.kill();
        gateway.gateway.start_again();
        until("it is connected again", SOON, async || (gateway.get("a").json()["status"] == "connected").then_some(()))
            .await;
        assert_eq!(gateway.events("a", "backend"), told, "nothing has changed");
        assert_eq!(only_pod(scene).await.uid(), before.uid());
        assert_eq!(gateway.delete("a").status(), 204);
        assert_eq!(count(scene).await, [0, 0]);
    });
}

#[test]
fn an_id_is_taken_as_it_is_or_refused_by_what_ids_are() {
    in_namespace(Level::Restricted, async |scene| {
        let gateway = Maker::start(scene, "hive/one").await;
        for id in ["x".repeat(129), "x".repeat(253), "größe".into(), "a/b".into(), String::new(), ".a".into()] {
            let refused = gateway.create("", &json!({ "id": id }));
            assert_eq!(refused.field(), "id", "{id}");
            assert!(detail(&refused, 400).contains("128 at most"), "{id}");
        }
        for (asked, word) in [
            (json!({ "id": "a", "privileged": true }), "privileged"),
            (json!({ "id": "a", "env": { "1": "x" } }), "env.1"),
            (json!({ "id": "a", "env": { "SUPERVISOR_ENFORCEMENT": "best-effort" } }), "env.SUPERVISOR_ENFORCEMENT"),
            (json!({ "id": "a", "labels": { "openhive.io/managed-by": "x" } }), "labels.openhive.io/managed-by"),
            (json!({ "image": "x" }), "id"),
        ] {
            let refused = detail(&gateway.create("", &asked), 400);
            assert!(refused.contains(word), "{refused}");
        }
        assert_eq!(gateway.create("?wait=2h", &json!({ "id": "a" })).field(), "wait");
        assert_eq!(
            gateway.gateway.api().get("/v1/sandboxes").json()["sandboxes"],
            json!([]),
            "nothing is left of them"
        );

        let longest = "A_".repeat(64);
        assert_eq!(gateway.create(WAIT, &json!({ "id": longest })).status(), 201);
        let pod = only_pod(scene).await;
        assert!(pod.name_any().len() <= 63, "000-35: {}", pod.name_any());
        assert_eq!(pod.annotations()["openhive.io/agent-id"], longest, "000-36");
    });
}

#[test]
fn two_gateways_in_one_namespace_leave_each_others_sandboxes_alone() {
    in_namespace(Level::Restricted, async |scene| {
        let one = Maker::start(scene, "hive/one").await;
        let two = Maker::start(scene, "hive/two").await;
        assert_eq!(one.create("", &json!({ "id": "a" })).status(), 201);
        let taken = detail(&two.create("", &json!({ "id": "a" })), 409);
        assert!(taken.contains("hive/one") && taken.contains("hive/two"), "{taken}");
        assert_eq!(two.get("a").status(), 404, "nothing is left of it");
        assert_eq!(two.delete("a").status(), 404);
        assert_eq!(count(scene).await, [1, 1]);
        let pods: Api<Pod> = scene.api();
        let pod = only_pod(scene).await;
        let token = identity::token(scene, Some(&pod), identity::AUDIENCE).await;
        let (status, said) = identity::refused(&two.gateway, &token);
        assert_eq!(status, 401, "a sandbox of the one is nobody to the other: {said}");
        assert_eq!(pods.get(&pod.name_any()).await.expect("it is there").uid(), pod.uid());
    });
}

#[test]
fn a_service_that_somebody_else_has_made_is_named_and_nothing_is_left_beside_it() {
    in_namespace(Level::Restricted, async |scene| {
        let gateway = Maker::start(scene, "hive/one").await;
        let services: Api<Service> = scene.api();
        // What sandbox `a` is called, always and everywhere (000-35).
        let name = "sandbox-a-ca978112ca1bbdca";
        let port = ServicePort { port: 80, ..ServicePort::default() };
        let spec = ServiceSpec { ports: Some(vec![port]), ..ServiceSpec::default() };
        let theirs = Service { metadata: named(name), spec: Some(spec), status: None };
        let theirs = services.create(&PostParams::default(), &theirs).await.expect("a service can be made");
        let taken = detail(&gateway.create("", &json!({ "id": "a" })), 409);
        assert!(taken.contains(&format!("Service {name}")) && taken.contains("no gateway"), "{taken}");
        assert_eq!((gateway.get("a").status(), count(scene).await), (404, [0, 0]));
        assert_eq!(services.get(name).await.expect("it stays").uid(), theirs.uid());
    });
}

#[test]
fn what_the_cluster_refuses_is_told_with_what_to_change_and_leaves_nothing() {
    in_namespace(Level::Restricted, async |scene| {
        let gateway = Maker::start(scene, "hive/one").await;
        let refused = |asked: Value, status: u16, words: &[&str]| {
            let said = detail(&gateway.create(WAIT, &asked), status);
            for word in words {
                assert!(said.contains(word), "{word}: {said}");
            }
            assert_eq!(gateway.get("a").status(), 404, "{said}");
        };
        let name = "sandbox-a-";
        refused(json!({ "id": "a", "runtime_class": "nope" }), 422, &[name, "runtime class", "nope"]);
        refused(json!({ "id": "a", "resources": { "limits": { "cpu": "much" } } }), 422, &[name, "quantit"]);
        refused(json!({ "id": "a", "image": "localhost/chaperone-nobody:1" }), 422, &["localhost/chaperone-nobody:1"]);
        refused(json!({ "id": "a", "node_selector": { "disk": "none" } }), 422, &["no node takes it"]);
        refused(json!({ "id": "a", "argv": ["/no/such/program"] }), 422, &["/no/such/program"]);

        let quotas: Api<ResourceQuota> = scene.api();
        let hard = [("pods".to_owned(), Quantity("0".into()))].into();
        let spec = ResourceQuotaSpec { hard: Some(hard), ..ResourceQuotaSpec::default() };
        let quota = ResourceQuota { metadata: named("none"), spec: Some(spec), status: None };
        quotas.create(&PostParams::default(), &quota).await.expect("a quota can be made");
        until("the quota is in force", SOON, async || quotas.get("none").await.ok()?.status?.hard.map(|_| ())).await;
        refused(json!({ "id": "a" }), 507, &[name, "quota", "none"]);
        assert_eq!(count(scene).await, [0, 0]);
    });
}

#[test]
fn the_last_words_of_a_container_that_told_nothing_else_are_read_and_no_more_than_fits() {
    in_namespace(Level::Restricted, async |scene| {
        // 3 MiB, of which the end is told (002-18).
        let flood = "head -c 3145728 /dev/zero | tr '\\0' x; echo; echo why it failed; exit 3";
        let gateway = Maker::with(scene, "hive/one", RULES, |template| maker::before(template, flood)).await;
        let said = detail(&gateway.create(WAIT, &json!({ "id": "a" })), 422);
        assert!(
            said.contains("container first") && said.contains("exit code 3") && said.contains("why it failed"),
            "{said}"
        );
        assert!(said.len() < 2000, "{}", said.len());
        assert_eq!(count(scene).await, [0, 0]);
    });
}

#[test]
fn a_pod_that_does_not_end_is_waited_for_and_forgotten_when_it_has_gone() {
    in_namespace(Level::Restricted, async |scene| {
        let gateway = Maker::start(scene, "hive/one").await;
        assert_eq!(gateway.create(WAIT, &json!({ "id": "a" })).status(), 201);
        let pod = only_pod(scene).await;
        let pods: Api<Pod> = scene.api();
        let held = |finalizers: Value| Patch::Merge(json!({ "metadata": { "finalizers": finalizers } }));
        let patch = PatchParams::default();
        pods.patch(&pod.name_any(), &patch, &held(json!(["chaperone.io/e2e"]))).await.expect("it is there");
        let slow = gateway.delete("a");
        assert_eq!((slow.status(), slow.json()["backend"]["state"].as_str()), (202, Some("ending")), "{}", slow.json());
        assert_eq!(gateway.create("", &json!({ "id": "b" })).status(), 201, "nobody else waits for it");
        pods.patch(&pod.name_any(), &patch, &held(Value::Null)).await.expect("it is there");
        until("it is forgotten", SOON, async || (gateway.get("a").status() == 404).then_some(())).await;
        assert_eq!(count(scene).await, [1, 1]);
    });
}

#[test]
fn the_command_line_shows_what_the_cluster_knows() {
    in_namespace(Level::Restricted, async |scene| {
        let gateway = Maker::start(scene, "hive/one").await;
        let asked =
            ["sandbox", "create", "a", "--env", "GREETING=hello", "--label", "team=red", "--limit", "memory=256Mi"];
        let (code, said) = gateway.cli(&[&asked[..], &["--", "sleep", "infinity"]].concat());
        assert_eq!((code, said.as_str()), (0, "sandbox a is connected\n"));
        let pod = only_pod(scene).await;
        assert_eq!(pod.labels()["team"], "red");
        let (_, list) = gateway.cli(&["sandbox", "list"]);
        assert!(list.contains("BACKEND") && list.contains("running"), "{list}");
        let (_, show) = gateway.cli(&["sandbox", "show", "a"]);
        assert!(show.contains(&format!("{}/{}", scene.namespace, pod.name_any())), "{show}");
        let (_, said) = gateway.cli(&["task", "run", "--sandbox", "a", "--", "bash", "-c", "echo $GREETING"]);
        assert_eq!(said, "hello\n");
        let (code, said) = gateway.cli(&["sandbox", "create", "b", "--runtime-class", "nope"]);
        assert!(code != 0 && said.contains("nope") && said.contains("runtime class"), "{code}: {said}");
        assert_eq!(gateway.cli(&["sandbox", "delete", "a"]), (0, "sandbox a is deleted\n".to_owned()));
        assert_eq!(count(scene).await, [0, 0]);
    });
}

#[test]
fn admission_that_denies_a_pod_is_told_and_leaves_nothing() {
    in_namespace(Level::Restricted, async |scene| {
        // The level asks for it, and the template lacks it.
        let gateway = Maker::with(scene, "hive/one", RULES, |template| {
            template.replace("runAsNonRoot: true", "runAsNonRoot: false")
        })
        .await;
        let said = detail(&gateway.create("", &json!({ "id": "a" })), 422);
        assert!(
            said.contains("Pod Security") && said.contains("runAsNonRoot") && said.contains(&scene.namespace),
            "{said}"
        );
        assert_eq!(count(scene).await, [0, 0]);
    });
}

#[test]
fn a_right_that_is_missing_is_told_before_the_gateway_serves() {
    in_namespace(Level::Restricted, async |scene| {
        let fewer: Vec<_> = RULES.iter().copied().filter(|(resource, _)| *resource != "services").collect();
        let gateway = maker::unstarted(scene, "hive/one", &fewer, str::to_owned).await;
        let (code, _, said) = gateway.run(&["serve"]);
        assert_eq!(code, 78, "{said}");
        let words = ["may not create, get, list, delete services", &scene.namespace, "Role"];
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
    });
}

#[test]
fn preflight_says_that_all_is_well_or_what_is_not() {
    in_namespace(Level::Restricted, async |scene| {
        let gateway = maker::unstarted(scene, "hive/one", RULES, str::to_owned).await;
        let (code, said, errors) = gateway.run(&["preflight"]);
        assert_eq!(code, 0, "{said}{errors}");
        for word in [
            "ok       may create, get, list, watch, delete pods",
            "takes the Pod",
            "takes the Service",
            "has run the supervisor",
        ] {
            assert!(said.contains(word), "{word}: {said}");
        }
        let loose = |template: &str| template.replace("runAsNonRoot: true", "runAsNonRoot: false");
        let gateway = maker::unstarted(scene, "hive/two", &RULES[1..], loose).await;
        let (code, said, _) = gateway.run(&["preflight"]);
        assert_eq!(code, 78, "{said}");
        assert!(said.contains("FAILED   may not create, get, list, watch, delete pods"), "{said}");
        assert!(said.contains("runAsNonRoot") || said.contains("lacks a verb"), "{said}");
        assert_eq!(count(scene).await, [0, 0]);
        let pods: Api<Pod> = scene.api();
        assert!(pods.list(&ListParams::default()).await.expect("listed").items.is_empty(), "nothing is left");
    });
}

#[test]
fn a_namespace_that_is_not_there_is_named() {
    in_namespace(Level::Restricted, async |scene| {
        let gateway = Maker::administrator(scene, "hive/one", "no-such-namespace").await;
        let said = detail(&gateway.create("", &json!({ "id": "a" })), 500);
        assert!(said.contains("no-such-namespace") && said.contains("GATEWAY_KUBERNETES_NAMESPACE"), "{said}");
        assert_eq!(gateway.get("a").status(), 404);
    });
}

#[test]
fn a_cluster_that_is_away_costs_new_sandboxes_and_nothing_else() {
    in_namespace(Level::Restricted, async |scene| {
        let way = Way::to(maker::cluster_address());
        let gateway = Maker::by(scene, "hive/one", &way).await;
        assert_eq!(gateway.create(WAIT, &json!({ "id": "old" })).status(), 201);
        way.go_away();
        let refused = detail(&gateway.create("", &json!({ "id": "new" })), 503);
        assert!(refused.contains("cannot be reached"), "{refused}");
        let health = async || gateway.gateway.api().get("/healthz").json()["backend_away"].is_string();
        until("health tells it", SOON, async || health().await.then_some(())).await;
        assert_eq!(gateway.run("old", "echo on"), "on\n");
        // Whether the cluster has got something of it is unknown, so it is ended when the cluster is back.
        assert_eq!(gateway.get("new").json()["backend"]["state"], "ending");
        way.come_back();
        until("the cluster is back", SOON, async || {
            (!health().await && gateway.get("new").status() == 404).then_some(())
        })
        .await;
        assert_eq!(gateway.create(WAIT, &json!({ "id": "new" })).status(), 201);
        assert_eq!(count(scene).await, [2, 2]);
    });
}

#[test]
fn whoever_hangs_up_leaves_a_whole_sandbox_or_none() {
    in_namespace(Level::Restricted, async |scene| {
        let gateway = Maker::start(scene, "hive/one").await;
        let known = || -> Vec<String> {
            let page = gateway.gateway.api().get("/v1/sandboxes").json();
            let ids = page["sandboxes"].as_array().into_iter().flatten().filter_map(|sandbox| sandbox["id"].as_str());
            ids.map(str::to_owned).collect()
        };
        for n in 0..10 {
            let asked = json!({ "id": format!("s{n}") });
            gateway.hang_up("POST", "/v1/sandboxes?wait=60s", &asked.to_string(), Duration::from_millis(5 * n));
        }
        // All others have been read by then.
        let last = gateway.create(WAIT, &json!({ "id": "last" }));
        assert_eq!(last.status(), 201, "{}", last.json());
        until("each has all or nothing", SOON, async || {
            let pods: Api<Pod> = scene.api();
            let all = pods.list(&ListParams::default().labels("openhive.io/managed-by")).await.ok()?.items;
            let mut ids: Vec<_> = all.iter().map(|pod| pod.annotations()["openhive.io/agent-id"].clone()).collect();
            ids.sort();
            let known = known();
            (known == ids && count(scene).await == [known.len(); 2]).then_some(())
        })
        .await;
        until("002-16: what was begun has ended", SOON, async || {
            let left = known();
            for id in &left {
                gateway.hang_up("DELETE", &format!("/v1/sandboxes/{id}"), "", Duration::from_millis(20));
            }
            (left.is_empty() && count(scene).await == [0, 0]).then_some(())
        })
        .await;
        for step in ["made", "ended"] {
            let mended = gateway.gateway.metric(&format!("gateway_sandboxes_mended_total{{step=\"{step}\"}}"));
            assert!(mended < 1.0, "each was finished by itself, and not found unfinished later: {step} {mended}");
        }
    });
}

#[test]
fn a_sandbox_whose_pod_somebody_deleted_is_made_again() {
    in_namespace(Level::Restricted, async |scene| {
        let gateway = Maker::start(scene, "hive/one").await;
        assert_eq!(gateway.create(WAIT, &json!({ "id": "a" })).status(), 201);
        let first = only_pod(scene).await;
        let pods: Api<Pod> = scene.api();
        pods.delete(&first.name_any(), &DeleteParams::default().grace_period(1)).await.expect("deleted");
        until("another Pod is connected", SOON, async || {
            let now = pods.get_opt(&first.name_any()).await.ok().flatten()?;
            let sandbox = gateway.get("a").json();
            let again = now.uid() != first.uid() && sandbox["backend"]["state"] == "running";
            (again && sandbox["status"] == "connected").then_some(())
        })
        .await;
        assert_eq!(count(scene).await, [1, 1]);
    });
}

#[test]
fn what_nobody_wants_is_ended_and_what_is_anothers_is_not() {
    in_namespace(Level::Restricted, async |scene| {
        let pods: Api<Pod> = scene.api();
        let one = Maker::start(scene, "hive/one").await;
        let two = Maker::start(scene, "hive/two").await;
        assert_eq!(one.create("", &json!({ "id": "lost" })).status(), 201);
        assert_eq!(two.create("", &json!({ "id": "others" })).status(), 201);
        // A gateway of the same name whose store has been lost.
        drop(one);
        let began = tokio::time::Instant::now();
        let _again = Maker::start(scene, "hive/one").await;
        until("the orphan is ended", Duration::from_secs(150), async || {
            let left = pods.list(&ListParams::default()).await.ok()?.items;
            let lost =
                left.iter().any(|pod| pod.annotations().get("openhive.io/agent-id").is_some_and(|id| id == "lost"));
            (!lost).then_some(())
        })
        .await;
        assert!(began.elapsed() >= Duration::from_secs(60), "000-37: it was seen twice, a minute apart");
        assert_eq!(count(scene).await, [1, 1], "000-37");
    });
}
