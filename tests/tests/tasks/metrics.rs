//! What an operator sees of dev-tasks: numbers by class and state, and a log line for each change.

use serde_json::{Value, json};
use tests::prometheus::Prometheus;
use tests::supervisor::Supervisor;
use tests::tasks::Api;
use tests::wait::{wait_for, wait_until};

use super::supervisor;

/// Waits until its input is closed.
fn waiting(id: &str, class: &str) -> Value {
    json!({"task_id": id, "script": "read line", "stdin_open": true, "execution_class": class})
}

/// One task at a time, so that who waits is known.
fn one_at_a_time() -> (Supervisor, Api) {
    let supervisor = supervisor().set("task-concurrency", "1").start();
    let api = Api::of(&supervisor);
    (supervisor, api)
}

/// The lines of one task, as state and the rest.
fn lines(supervisor: &Supervisor, id: &str) -> Vec<(String, Value)> {
    let ours = |line: &Value| line["message"] == "a task" && line["task_id"] == id;
    let state = |line: Value| (line["state"].as_str().unwrap_or_default().to_string(), line);
    supervisor.log().into_iter().filter(ours).map(state).collect()
}

#[test]
fn tasks_are_counted_by_class_and_state_with_what_they_wrote_and_what_was_cut() {
    let (supervisor, api) = one_at_a_time();
    let metric = |name: &str| supervisor.metric(&format!("supervisor_task_{name}"));
    assert_eq!((metric("queue_depth"), metric("cut_bytes_total")), (Some(0.0), Some(0.0)));
    let states = |class: &str, state: &str| metric(&format!("state{{class=\"{class}\",state=\"{state}\"}}"));
    let ended = |class: &str, state: &str| metric(&format!("ended_total{{class=\"{class}\",state=\"{state}\"}}"));
    for class in ["local", "readonly", "networked"] {
        assert_eq!(metric(&format!("accepted_total{{class=\"{class}\"}}")), Some(0.0), "{class} before any task");
        for state in ["succeeded", "failed", "cancelled", "timed_out", "lost"] {
            assert_eq!(ended(class, state), Some(0.0), "{class} {state} before any task");
        }
    }
    api.run(json!({"argv": ["true"]}));
    api.run(json!({"script": "echo no >&2; exit 3", "execution_class": "readonly"}));
    let script = "head -c 300000 /dev/zero";
    let over = api.run(json!({"script": script, "limits": {"output_bytes": 100_000}}));
    assert_eq!(over["output"]["stdout_bytes"], 300_000);
    api.start(waiting("first", "networked"));
    api.wait_state("first", "running");
    api.start(waiting("second", "local"));
    api.start(waiting("third", "local"));

    wait_until("two wait", || metric("queue_depth") == Some(2.0));
    assert_eq!((states("local", "queued"), states("networked", "running")), (Some(2.0), Some(1.0)));
    assert_eq!((states("local", "succeeded"), states("readonly", "failed")), (Some(2.0), Some(1.0)));

    for id in ["second", "first"] {
        assert_eq!(api.post(&format!("/dev-tasks/{id}/cancel?wait=30s"), "").json()["state"], "cancelled");
    }
    api.wait_state("third", "running");
    api.post("/dev-tasks/third/stdin/close", "");
    assert_eq!(api.wait_end("third")["state"], "failed", "read answers 1 at the end of its input");
    wait_until("nobody waits", || metric("queue_depth") == Some(0.0));
    for (class, accepted) in [("local", 4.0), ("readonly", 1.0), ("networked", 1.0)] {
        assert_eq!(metric(&format!("accepted_total{{class=\"{class}\"}}")), Some(accepted), "{class}");
    }
    for (class, state, count) in [
        ("local", "succeeded", 2.0),
        ("local", "cancelled", 1.0),
        ("local", "failed", 1.0),
        ("readonly", "failed", 1.0),
        ("networked", "cancelled", 1.0),
    ] {
        assert_eq!((states(class, state), ended(class, state)), (Some(count), Some(count)), "{class} {state}");
    }
    for (class, state) in [("local", "queued"), ("local", "running"), ("networked", "running")] {
        assert_eq!(states(class, state), Some(0.0), "{class} {state}");
    }
    // Who was cancelled in the queue was never started.
    assert_eq!(metric("queue_seconds_count{class=\"local\"}"), Some(3.0));
    assert_eq!(metric("run_seconds_count{class=\"local\"}"), Some(3.0));
    assert_eq!(metric("output_bytes_total{stream=\"stdout\"}"), Some(300_000.0));
    assert_eq!(metric("output_bytes_total{stream=\"stderr\"}"), Some(3.0));
    assert_eq!(metric("cut_bytes_total"), over["output"]["cut_bytes"].as_f64());
    assert!(metric("cut_bytes_total") >= Some(200_000.0), "it keeps no more than it may");

    assert_eq!(api.call("DELETE", "/dev-tasks/first", &[], b"").status(), 204);
    assert_eq!((states("networked", "cancelled"), ended("networked", "cancelled")), (Some(0.0), Some(1.0)));
}

#[test]
fn a_real_prometheus_takes_both_durations_as_histograms() {
    let (supervisor, api) = one_at_a_time();
    api.start(waiting("first", "readonly"));
    api.wait_state("first", "running");
    api.start(json!({"task_id": "second", "argv": ["sleep", "0.2"]}));
    // So long it surely waits, and runs.
    std::thread::sleep(std::time::Duration::from_millis(200));
    api.post("/dev-tasks/first/stdin/close", "");
    api.wait_end("second");
    let targets = [("sandboxes", supervisor.address(), json!({}))];
    let Some(prometheus) = Prometheus::start("groups: []", &targets) else { return };
    let value = |expression: &str| {
        let series = wait_for(expression, || prometheus.query(expression).expect("PromQL").first().cloned());
        series["value"][1].as_str().and_then(|text| text.parse::<f64>().ok()).expect("a number")
    };
    for name in ["supervisor_task_queue_seconds", "supervisor_task_run_seconds"] {
        let of = |suffix: &str| value(&format!("{name}_{suffix}"));
        assert_eq!(of("count{class=\"local\"}"), 1.0, "{name}");
        assert_eq!(of("bucket{class=\"local\",le=\"0.1\"}"), 0.0, "{name}");
        assert_eq!(of("bucket{class=\"local\",le=\"+Inf\"}"), 1.0, "{name}");
        assert!(of("sum{class=\"local\"}") >= 0.2, "{name}");
        assert!(value(&format!("histogram_quantile(0.5, {name}_bucket{{class=\"local\"}})")) > 0.1, "{name}");
    }
    assert_eq!(value("supervisor_task_ended_total{class=\"local\",state=\"succeeded\"}"), 1.0);
    assert_eq!(value("supervisor_task_state{class=\"local\",state=\"succeeded\"}"), 1.0);
}

#[test]
fn every_change_of_a_task_is_one_log_line_with_class_state_reason_and_duration() {
    let (supervisor, api) = one_at_a_time();
    let canary = "VALUE-OF-A-VARIABLE";
    // Longer than what is asserted: it begins a moment before the supervisor hears that it runs.
    let script = "echo what-it-writes; sleep 0.3; exit 3";
    let create = json!({"task_id": "ran", "script": script, "execution_class": "readonly", "env": {"A": canary}});
    api.run(create);
    api.run(json!({"task_id": "not-found", "argv": ["/nowhere/program", "an-argument"]}));
    api.run(json!({"task_id": "no-directory", "argv": ["true"], "cwd": "/nowhere/directory"}));
    api.start(waiting("long", "networked"));
    api.wait_state("long", "running");
    api.start(waiting("waits", "local"));
    for id in ["waits", "long"] {
        api.post(&format!("/dev-tasks/{id}/cancel?wait=30s"), "");
    }
    for (id, class, states) in [
        ("ran", "readonly", &["queued", "starting", "running", "failed"][..]),
        ("not-found", "local", &["queued", "starting", "failed"]),
        ("long", "networked", &["queued", "starting", "running", "cancelled"]),
        ("waits", "local", &["queued", "cancelled"]),
    ] {
        let lines = wait_for("all lines of a task", || {
            let lines = lines(&supervisor, id);
            (lines.len() >= states.len()).then_some(lines)
        });
        assert_eq!(lines.iter().map(|(state, _)| state).collect::<Vec<_>>(), states, "{id}");
        for (state, line) in &lines {
            assert_eq!(line["class"], class, "{line}");
            assert_eq!(line["duration_ms"].is_u64(), state != "queued", "{line}");
        }
    }
    let last = |id: &str| lines(&supervisor, id).pop().expect("lines").1;
    let ran = last("ran");
    assert_eq!((&ran["exit_code"], &ran["reason"]), (&json!(3), &Value::Null), "{ran}");
    assert!(ran["duration_ms"].as_u64() >= Some(200), "{ran}");
    let told = api.task("not-found")["reason"].to_string();
    assert!(told.contains("it could not be started: ") && told.contains("/nowhere/program"), "{told}");
    assert_eq!(last("not-found")["reason"], "it could not be started");
    assert_eq!(last("no-directory")["reason"], "it could not be started");
    let text = supervisor.stderr.text();
    for word in [canary, "what-it-writes", "an-argument", "/nowhere"] {
        assert!(!text.contains(word), "{word}");
    }
}

#[test]
fn a_task_that_was_lost_is_counted_and_logged_by_the_supervisor_that_finds_it() {
    let home = super::journal::Home::new();
    let first = home.supervisor().start();
    let api = Api::of(&first);
    api.start(waiting("lost", "local"));
    api.wait_state("lost", "running");
    first.signal(nix::sys::signal::Signal::SIGKILL);
    drop(first);
    let second = home.supervisor().start();
    Api::of(&second).wait_state("lost", "lost");
    for name in ["state", "ended_total"] {
        let name = format!("supervisor_task_{name}{{class=\"local\",state=\"lost\"}}");
        assert_eq!(second.metric(&name), Some(1.0), "{name}");
    }
    // Its log is read by a thread of its own.
    wait_until("a line of the task", || !lines(&second, "lost").is_empty());
    let lines = lines(&second, "lost");
    assert_eq!(lines.iter().map(|(state, _)| state.as_str()).collect::<Vec<_>>(), ["lost"]);
    assert!(lines[0].1["reason"].as_str().is_some_and(|reason| reason.contains("the supervisor ended")), "{lines:?}");
    // Told once, so it is not counted again.
    drop(second);
    let third = home.supervisor().start();
    Api::of(&third).wait_state("lost", "lost");
    assert_eq!(third.metric("supervisor_task_state{class=\"local\",state=\"lost\"}"), Some(1.0));
    assert_eq!(third.metric("supervisor_task_ended_total{class=\"local\",state=\"lost\"}"), Some(0.0));
}
