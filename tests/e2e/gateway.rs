//! Gateway and sandbox in a Pod each: the gateway is killed, the network between them is cut, and afterwards every record is there
//! once.

use serde_json::{Value, json};

use crate::cluster::{Level, in_namespace, until};
use crate::codex::{CODEX, PROVIDER, model};
use crate::control_plane::ControlPlane;
use crate::pod::{Running, SOON, message};
use crate::sandbox::{Sandbox, gateway_image};
use crate::volume::{claimed, image, make_claim, mount};

/// What the gateway tells of the task, sorted.
fn of_tasks(records: &[Value]) -> Vec<&str> {
    let kinds = records.iter().filter_map(|record| record["kind"].as_str());
    let mut kinds: Vec<&str> = kinds.filter(|kind| kind.starts_with("task.")).collect();
    kinds.sort_unstable();
    kinds
}

/// What it tells of a task that has succeeded.
const SUCCEEDED: [&str; 4] = ["task.result", "task.running", "task.starting", "task.succeeded"];

#[test]
fn the_gateways_image_is_one_program_that_nobody_may_write() {
    in_namespace(Level::Restricted, async |scene| {
        let pod = Sandbox::shell("exec sleep infinity")
            .change(|spec| spec.volumes.get_or_insert_default().push(image("image", gateway_image())))
            .container(|c| c.volume_mounts.get_or_insert_default().push(mount("image", "/image")))
            .start(scene)
            .await;
        pod.started().await;
        assert_eq!(pod.shell("ls -1 /image; stat -c '%a %u' /image/gateway").await, "gateway\n555 0\n");
    });
}

#[test]
fn as_pid_1_with_a_read_only_root_the_gateway_serves_and_stops_when_it_is_told() {
    in_namespace(Level::Restricted, async |scene| {
        let gateway = ControlPlane::start_alone(scene).await;
        let (status, _) = gateway.ask("GET", "/v1/sandboxes", &Value::Null).await.expect("it answers");
        assert_eq!(status, 200);
        assert_eq!(gateway.pod.delete(30).await.exit_code, 0);
        gateway.pod.gone().await;
    });
}

/// What the model asks for: a change, and then to wait until the test has done its worst.
const COMMANDS: [&str; 2] = [
    "printf 'fn main() {}\\n' > main.rs && echo wrote it",
    "echo waits for you; until test -e /workspace/go-on; do sleep 0.1; done; echo went on",
];

/// A coding agent's tasks can run in it.
fn for_codex(sandbox: Sandbox) -> Sandbox {
    sandbox.envs(&PROVIDER).change(|spec| spec.init_containers.get_or_insert_default().push(model(&COMMANDS)))
}

/// The coding agent as a task that a client in a Pod of its own follows; it waits in its middle.
async fn followed_codex(gateway: &ControlPlane<'_>) -> Running {
    gateway.until_status("connected").await;
    let run = [&["task", "run", "--class", "networked", "--"], &CODEX[..]].concat();
    let client = gateway.client(&run).await;
    until("the client shows the agent's work", SOON, async || {
        client.logs_of("client").await.contains("waits for you").then_some(())
    })
    .await;
    client
}

/// The client has told it all, and the gateway has each record of it once.
async fn all_told(gateway: &ControlPlane<'_>, sandbox: &Running, client: &Running) {
    let ended = client.ended().await;
    let said = client.logs_of("client").await;
    assert_eq!(ended.exit_code, 0, "{said}");
    assert!(said.contains("went on") && said.contains("The work is done."), "{said}");
    assert_eq!(said.matches("OpenAI Codex v").count(), 1, "nothing is told twice: {said}");
    let records = gateway.records("task.result", 1).await;
    assert_eq!(of_tasks(&records), SUCCEEDED);
    assert_eq!(sandbox.shell("cat /workspace/main.rs").await, "fn main() {}\n");
}

#[test]
fn a_coding_agent_is_followed_through_a_gateway_that_is_killed_in_its_middle() {
    in_namespace(Level::Restricted, async |scene| {
        let gateway = ControlPlane::start(scene).await;
        let sandbox = gateway.link(for_codex(Sandbox::shell("exec sleep infinity"))).start(scene).await;
        let client = followed_codex(&gateway).await;
        gateway.kill().await;
        sandbox.shell("touch /workspace/go-on").await;
        assert_eq!(gateway.pod.restarted(1).await.exit_code, 128 + 9);
        all_told(&gateway, &sandbox, &client).await;
    });
}

#[test]
fn a_coding_agent_is_followed_over_a_cut_that_outlasts_the_gateways_restart() {
    in_namespace(Level::Restricted, async |scene| {
        let gateway = ControlPlane::start(scene).await;
        let sandbox = gateway.link(for_codex(Sandbox::shell("exec sleep infinity"))).start(scene).await;
        let client = followed_codex(&gateway).await;
        gateway.cut().await;
        gateway.kill().await;
        assert_eq!(gateway.pod.restarted(1).await.exit_code, 128 + 9);
        gateway.pod.ready().await;
        gateway.until_status("disconnected").await;
        // The agent works on, and ends while nobody can be told.
        sandbox.shell("touch /workspace/go-on").await;
        until("the end of the agent, beyond the cut", SOON, async || {
            let left = sandbox.shell("pgrep -x codex || echo none").await;
            (left == "none\n").then_some(())
        })
        .await;
        assert_eq!(sandbox.health().await.status, protocol::health::Status::Ready);
        let records = gateway.records("task.running", 1).await;
        assert_eq!(of_tasks(&records), SUCCEEDED[1..=2], "nothing came through");
        gateway.mend().await;
        all_told(&gateway, &sandbox, &client).await;
    });
}

#[test]
fn a_cut_network_holds_nobody_up_and_afterwards_every_record_is_there_once() {
    // Its ends are records, and it goes on by itself.
    let agent = "echo up; until test -e /workspace/end; do sleep 0.1; done; rm /workspace/end; exit 3";
    in_namespace(Level::Restricted, async |scene| {
        let gateway = ControlPlane::start(scene).await;
        let sandbox =
            Sandbox::shell(agent).env("SUPERVISOR_AGENT_RESTART", "always").env("SUPERVISOR_AGENT_RESTART_MIN", "50ms");
        let sandbox = gateway.link(sandbox).start(scene).await;
        gateway.until_status("connected").await;
        let script = "until test -e /workspace/go-on; do sleep 0.1; done; echo went on";
        gateway.start_task(json!({ "script": script })).await;
        gateway.records("task.running", 1).await;

        // A new session would be needed now, and cannot be had.
        gateway.cut().await;
        gateway.kill().await;
        assert_eq!(gateway.pod.restarted(1).await.exit_code, 128 + 9);
        gateway.pod.ready().await;
        gateway.until_status("disconnected").await;
        let failed = async || sandbox.metric("supervisor_link_dials_total{outcome=\"connect\"}").await.unwrap_or(0.0);
        let before = failed().await;
        // Meanwhile the agent and the task end.
        for restarts in 1..=2 {
            sandbox.shell("touch /workspace/end").await;
            until("the agent is started again", SOON, async || {
                (sandbox.health().await.agent.restarts == restarts).then_some(())
            })
            .await;
        }
        sandbox.shell("touch /workspace/go-on").await;
        until("a dial that comes to nothing though the gateway is there", SOON, async || {
            (failed().await > before).then_some(())
        })
        .await;
        assert_eq!(sandbox.health().await.status, protocol::health::Status::Ready);
        let records = gateway.records("task.running", 1).await;
        assert_eq!(of_tasks(&records), SUCCEEDED[1..=2], "nothing came through");

        gateway.mend().await;
        gateway.until_status("connected").await;
        gateway.records("task.result", 1).await;
        let records = gateway.records("agent.running", 3).await;
        assert_eq!(of_tasks(&records), SUCCEEDED);
        let count = |kind: &str| records.iter().filter(|record| record["kind"] == kind).count();
        assert_eq!((count("agent.running"), count("supervisor.started")), (3, 1));
    });
}

#[test]
fn a_sandbox_that_is_cut_off_for_too_long_stops_and_the_next_one_with_its_state_delivers_what_it_had_recorded() {
    in_namespace(Level::Restricted, async |scene| {
        let gateway = ControlPlane::start(scene).await;
        make_claim(scene, "state").await;
        let sandbox = |name: &str| {
            let sandbox = for_codex(Sandbox::shell("trap 'exit 7' TERM; while :; do sleep 0.1; done"))
                .name(name)
                .env("SUPERVISOR_LINK_OFFLINE_AFTER", "5s")
                .env("SUPERVISOR_LINK_OFFLINE_ACTION", "stop")
                .change(|spec| {
                    let volumes = spec.volumes.get_or_insert_default();
                    volumes.retain(|volume| volume.name != "state");
                    volumes.push(claimed("state", "state"));
                });
            gateway.link(sandbox)
        };
        let first = sandbox("first").start(scene).await;
        let client = followed_codex(&gateway).await;

        gateway.cut().await;
        gateway.kill().await;
        let ended = first.ended().await;
        // As a stop signal ends it: the agent has its grace, and its exit code is the Pod's.
        assert_eq!((ended.exit_code, &message(&ended)["state"]), (7, &json!("ended")));
        assert_eq!(first.outcome().await, "Failed");
        gateway.pod.ready().await;
        gateway.until_status("expired").await;
        let kinds = |records: &[Value]| records.iter().map(|r| r["kind"].clone()).collect::<Vec<_>>();
        let known = kinds(&gateway.records("agent.running", 1).await);
        assert!(!known.contains(&json!("supervisor.offline")), "{known:?}");

        gateway.mend().await;
        let _second = sandbox("second").start(scene).await;
        let records = gateway.records("agent.running", 2).await;
        let known = kinds(&records);
        let of_supervisor: Vec<_> =
            known.iter().filter_map(Value::as_str).filter_map(|kind| kind.strip_prefix("supervisor.")).collect();
        assert_eq!(of_supervisor, ["started", "offline", "draining", "stopping", "stopped", "started"]);
        // The coding agent was ended in its middle: said once, and its follower hears it too.
        assert_eq!(of_tasks(&records), ["task.cancelled", "task.result", "task.running", "task.starting"]);
        let ended = client.ended().await;
        let said = client.logs_of("client").await;
        assert!(ended.exit_code != 0 && said.contains("cancelled"), "{}: {said}", ended.exit_code);
    });
}
