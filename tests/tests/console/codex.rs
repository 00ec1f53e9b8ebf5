//! A real coding agent as a task through the gateway, which is killed in its middle. The model is a script.

use std::fs;
use std::process::Stdio;

use nix::sys::signal::Signal;
use serde_json::Value;
use tests::dev::Home;
use tests::output::Output;
use tests::scripted_model;
use tests::wait::wait_for;

#[test]
fn a_coding_agent_is_followed_through_a_gateway_that_is_killed_in_its_middle() {
    let Some(codex) = tests::codex::program() else { return };
    let codex = codex.display().to_string();
    let mut home = Home::new();
    let workspace = home.directory().join("sandboxes/dev/workspace");
    let go_on = workspace.join("go-on");
    let model = scripted_model::start(&[
        "printf 'fn main() {}\\n' > main.rs && echo wrote it".into(),
        format!("echo waits for you; until test -e {}; do sleep 0.05; done; echo went on", go_on.display()),
    ]);
    for (name, value) in [
        ("HIVE_SANDBOX_CODEX_MODEL", "scripted"),
        ("HIVE_SANDBOX_CODEX_PROVIDER_ID", "scripted"),
        ("HIVE_SANDBOX_CODEX_PROVIDER_NAME", "Scripted"),
        ("HIVE_SANDBOX_CODEX_BASE_URL", &format!("http://{model}/v1")),
        ("HIVE_SANDBOX_CODEX_WIRE_API", "responses"),
        ("HIVE_SANDBOX_CODEX_REQUIRES_OPENAI_AUTH", "false"),
    ] {
        home.set(name, value);
    }
    home.start(&[]);
    let address = fs::read_to_string(home.directory().join("address")).expect("written down");
    let words = ["exec", "--sandbox", "danger-full-access", "--skip-git-repo-check", "Write a program."];
    let mut arguments = vec!["task", "run", "--class", "networked", "--", &codex];
    arguments.extend(words);
    let mut command = home.command(&arguments);
    let mut run = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the gateway runs");
    let stdout = Output::read(run.stdout.take().expect("piped"), false);
    let stderr = Output::read(run.stderr.take().expect("piped"), false);
    stderr.wait_text("wrote it");
    home.end(Signal::SIGKILL);
    fs::write(&go_on, "").expect("our own file");
    home.start(&["--listen", &address]);
    let status = wait_for("the end of the command", || run.try_wait().expect("our own child"));
    assert_eq!(status.code(), Some(0), "{}", stderr.text());
    let said = String::from_utf8_lossy(&stdout.to_end()).into_owned();
    assert_eq!(said.matches("The work is done.").count(), 1, "{said}");
    stderr.wait_text("went on");
    assert!(workspace.join("main.rs").exists());
    // What the gateway has of it: each step once, and one result.
    let events = wait_for("the result among the events", || {
        let events = home.events("dev");
        events.iter().any(|event| event["record"]["kind"] == "task.result").then_some(events)
    });
    let lost = events.iter().find(|event| event["class"] != "logs" && !event["gap"].is_null());
    assert_eq!(lost, None);
    let of_task = |event: &&Value| event["record"]["kind"].as_str().is_some_and(|kind| kind.starts_with("task."));
    let mut kinds: Vec<_> = events.iter().filter(of_task).map(|event| event["record"]["kind"].clone()).collect();
    kinds.sort_by_key(Value::to_string);
    assert_eq!(kinds, ["task.result", "task.running", "task.starting", "task.succeeded"]);
}
