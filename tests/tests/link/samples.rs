//! What is measured of a sandbox, as the gateway has it.

use serde_json::{Value, json};
use tests::cgroup::Group;
use tests::control_plane::{Gateway, token_of};
use tests::stage::{Pids, Profile, available};
use tests::supervisor::Supervisor;
use tests::tasks::Api;
use tests::wait::{wait_for, wait_until};

use super::link_state;

const MB: i64 = 1_000_000;

/// The newest sample among the gateway's events that is like that.
#[track_caller]
fn sample(gateway: &Gateway, what: &str, like: impl Fn(&Value) -> bool) -> Value {
    wait_for(what, || {
        let mut samples = gateway.events("a").into_iter().filter(|event| event["class"] == "metrics");
        let newest = samples.next_back()?["record"].clone();
        assert_eq!(newest["kind"], "sample");
        like(&newest["body"]).then_some(newest)
    })
}

fn number(sample: &Value, name: &str) -> i64 {
    sample["body"][name].as_i64().unwrap_or_else(|| panic!("no {name} in {sample}"))
}

#[test]
fn what_a_sandbox_uses_and_when_it_was_active_arrives_as_it_is() {
    if !available(Pids::First, Profile::Plain) {
        return;
    }
    let Some(group) = Group::new() else { return };
    let gateway = Gateway::start();
    let builder = Supervisor::new();
    std::fs::create_dir(builder.path("link")).expect("our own directory");
    let token = builder.path("link/token");
    std::fs::write(&token, token_of("a")).expect("our own directory");
    let supervisor = builder
        .first()
        .token()
        // A disk of its own, and samples that need no minute.
        .tmpfs("workspace", 256 * 1024)
        .set("link-samples", "100ms")
        .set("gateway-url", format!("ws://{}", gateway.address))
        .set("link-token-file", token)
        .set("agent-id", "a")
        .agent(["sleep", "1000"])
        .start();
    supervisor.wait_ready();
    wait_until("the session", || link_state(&supervisor) == "connected");
    group.take(supervisor.processes());
    let api = Api::of(&supervisor);

    // Supervisor, shim and agent, and nobody does anything.
    let quiet = sample(&gateway, "an idle sandbox", |body| {
        body["idle_s"].as_i64() >= Some(2) && body["processes"].as_i64() >= Some(3)
    });
    assert!((3..20).contains(&number(&quiet, "processes")), "{quiet}");
    assert!(number(&quiet, "memory_bytes") < 100 * MB, "{quiet}");
    assert!(number(&quiet, "workspace_bytes") < MB, "{quiet}");
    let ago = quiet["wall_ms"].as_i64().expect("a date") - number(&quiet, "last_activity_ms");
    assert!((ago / 1000 - number(&quiet, "idle_s")).abs() <= 1, "{quiet}");

    // A task that only writes is no new state of anything, and activity all the same.
    api.start(json!({"task_id": "writes", "script": "read go; echo out; read end", "stdin_open": true}));
    api.wait_state("writes", "running");
    let waiting = sample(&gateway, "it waits for its input", |body| {
        body["idle_s"].as_i64() >= Some(2)
            && body["last_activity_ms"].as_i64() > Some(number(&quiet, "last_activity_ms"))
    });
    assert_eq!(api.post("/dev-tasks/writes/stdin", "\n").status(), 204);
    let later = number(&waiting, "last_activity_ms") + 1000;
    sample(&gateway, "what it wrote", |body| body["last_activity_ms"].as_i64() >= Some(later));

    // tail(1) keeps a line until it has ended.
    api.start(json!({ "task_id": "memory", "script": "(head -c 150000000 /dev/zero; sleep 1000) | tail" }));
    let of = |sample: &Value, name| number(sample, name);
    let fat = sample(&gateway, "what is eaten", |body| {
        body["memory_bytes"].as_i64() >= Some(of(&quiet, "memory_bytes") + 140 * MB)
    });
    assert!(of(&fat, "processes") >= of(&quiet, "processes") + 3, "{fat} after {quiet}");
    assert!(of(&fat, "last_activity_ms") > of(&quiet, "last_activity_ms"), "{fat} after {quiet}");

    api.start(json!({ "task_id": "disk", "script": "head -c 60000000 /dev/zero > file" }));
    let full = sample(&gateway, "what is written", |body| body["workspace_bytes"].as_i64() >= Some(60 * MB));
    assert!(of(&full, "workspace_free_bytes") <= of(&quiet, "workspace_free_bytes") - 60 * MB, "{full} after {quiet}");

    let begun = sample(&gateway, "any", |_| true);
    api.start(json!({ "task_id": "busy", "script": "while :; do :; done" }));
    let used = |sample: &Value| of(sample, "cpu_us") - of(&begun, "cpu_us");
    let busy =
        sample(&gateway, "a second of a processor", |body| body["cpu_us"].as_i64() >= Some(of(&begun, "cpu_us") + MB));
    let passed = 1000 * (busy["boot_ms"].as_i64().expect("ms") - begun["boot_ms"].as_i64().expect("ms"));
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as i64;
    assert!(used(&busy) <= passed * cores + MB, "{} µs in {passed} µs", used(&busy));
}
