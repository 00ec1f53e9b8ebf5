//! Standard input: at once, streamed, closed; and signals.

use serde_json::json;
use tests::output::noise;

use super::api;

#[test]
fn standard_input_comes_with_the_task_and_is_closed_after_it() {
    let (_supervisor, api) = api();
    let task = api.run(json!({"argv": ["cat"], "stdin": "hello\n"}));
    assert_eq!(api.output(task["task_id"].as_str().expect("an id"), "stdout"), b"hello\n");
    let task = api.run(json!({"argv": ["od", "-An", "-tx1"], "stdin_b64": "AP8K"}));
    assert_eq!(api.output(task["task_id"].as_str().expect("an id"), "stdout"), b" 00 ff 0a\n");
    let task = api.run(json!({"argv": ["cat"]}));
    assert_eq!(task["state"], "succeeded", "without any it is at its end");
}

#[test]
fn standard_input_is_streamed_until_it_is_closed() {
    let (_supervisor, api) = api();
    let id = api.start(json!({"argv": ["cat"], "stdin": "first ", "stdin_open": true}));
    api.wait_state(&id, "running");
    let bytes = noise(900_000);
    for _ in 0..3 {
        assert_eq!(api.post(&format!("/dev-tasks/{id}/stdin"), &bytes).status(), 204);
    }
    assert_eq!(api.post(&format!("/dev-tasks/{id}/stdin/close"), "").status(), 204);
    assert_eq!(api.wait_end(&id)["state"], "succeeded");
    let expected = [b"first ".as_slice(), &bytes, &bytes, &bytes].concat();
    assert!(api.output(&id, "stdout") == expected, "every byte in order");
    assert_eq!(api.post(&format!("/dev-tasks/{id}/stdin"), "late").status(), 409);
}

#[test]
fn input_that_nobody_reads_waits_and_is_refused_when_the_task_ends() {
    let (_supervisor, api) = api();
    let id = api.start(json!({"script": "echo up; sleep 1000", "stdin_open": true}));
    api.wait_output(&id, "up");
    let (api_2, id_2) = (api.clone(), id.clone());
    let writer = std::thread::spawn(move || api_2.post(&format!("/dev-tasks/{id_2}/stdin"), noise(500_000)).status());
    assert_eq!(api.task(&id)["state"], "running", "it waits for its reader without keeping others waiting");
    api.post(&format!("/dev-tasks/{id}/cancel?wait=60s"), "");
    assert_eq!(writer.join().expect("an answer"), 409);
    let closed = api.start(json!({"script": "sleep 1000"}));
    api.wait_state(&closed, "running");
    assert_eq!(api.post(&format!("/dev-tasks/{closed}/stdin"), "x").status(), 409, "it was never open");
}

#[test]
fn a_signal_reaches_the_main_program() {
    let (_supervisor, api) = api();
    let id = api.start(json!({"script": "trap 'echo usr1; exit 5' USR1; echo up; while :; do sleep 0.05; done"}));
    api.wait_output(&id, "up");
    assert_eq!(api.post(&format!("/dev-tasks/{id}/signal"), r#"{"signal":10}"#).status(), 200);
    let task = api.wait_end(&id);
    assert_eq!((&task["state"], &task["exit_code"]), (&json!("failed"), &json!(5)));
    assert_eq!(api.output(&id, "stdout"), b"up\nusr1\n");
    assert_eq!(api.post(&format!("/dev-tasks/{id}/signal"), r#"{"signal":10}"#).status(), 409, "it has ended");
}
