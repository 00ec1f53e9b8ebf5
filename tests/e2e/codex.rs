//! The whole of it: a real coding agent does real work in a restricted Pod under the supervisor, and exit code, logs,
//! health and metrics tell the same story.
//!
//! The model is a script (`scripted-model`) in a native sidecar, so the agent needs no network beyond the Pod.

use k8s_openapi::api::core::v1::{Container, HTTPGetAction, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use protocol::health::Status;

use crate::cluster::{Level, in_namespace, until};
use crate::pod::{SOON, message};
use crate::sandbox::{Sandbox, container_security, pull_policy, tests_image};

const MODEL: &str = "model";

/// Edits a file, reads it back, looks at the repository, then waits until the test has looked around.
const COMMANDS: [&str; 3] = [
    "git init -q . && printf 'fn main() {}\\n' > main.rs && cat main.rs",
    "git status --short",
    "until test -e /workspace/go-on; do sleep 0.1; done; rm /workspace/go-on; echo went on",
];

/// The words that start it, without asking anybody and without a second sandbox around it.
pub(crate) const CODEX: [&str; 6] =
    ["codex", "exec", "--sandbox", "danger-full-access", "--skip-git-repo-check", "Write a program."];

/// The provider's config.toml is written once, from these (000-66, 000-67).
pub(crate) const PROVIDER: [(&str, &str); 7] = [
    ("HIVE_SANDBOX_CODEX_MODEL", "scripted"),
    ("HIVE_SANDBOX_CODEX_PROVIDER_ID", "scripted"),
    ("HIVE_SANDBOX_CODEX_PROVIDER_NAME", "Scripted"),
    ("HIVE_SANDBOX_CODEX_BASE_URL", "http://127.0.0.1:8099/v1"),
    ("HIVE_SANDBOX_CODEX_WIRE_API", "responses"),
    ("HIVE_SANDBOX_CODEX_REQUIRES_OPENAI_AUTH", "false"),
    ("HOME", "/home/codex"),
];

/// The model, which asks for these commands.
pub(crate) fn model(commands: &[&str]) -> Container {
    let mut args = vec!["--listen".to_owned(), "[::]:8099".to_owned()];
    for command in commands {
        args.extend(["--cmd", command].map(str::to_owned));
    }
    args.extend(["--message", "The work is done."].map(str::to_owned));
    let get = HTTPGetAction { path: Some("/healthz".into()), port: IntOrString::Int(8099), ..HTTPGetAction::default() };
    Container {
        name: MODEL.to_owned(),
        image: Some(tests_image()),
        image_pull_policy: pull_policy(&tests_image()),
        args: Some(args),
        // A native sidecar: up before the agent starts, and no reason for the Pod to go on after it.
        restart_policy: Some("Always".to_owned()),
        startup_probe: Some(Probe { http_get: Some(get), period_seconds: Some(1), ..Probe::default() }),
        security_context: Some(container_security(Level::Restricted)),
        ..Container::default()
    }
}

#[test]
fn codex_works_in_a_restricted_pod_and_every_account_of_it_agrees() {
    in_namespace(Level::Restricted, async |scene| {
        let pod = Sandbox::agent(&CODEX)
            .envs(&PROVIDER)
            .change(|spec| spec.init_containers.get_or_insert_default().push(model(&COMMANDS)))
            .container(|c| {
                let get = HTTPGetAction {
                    path: Some("/readyz".into()),
                    port: IntOrString::Int(8091),
                    ..HTTPGetAction::default()
                };
                c.readiness_probe = Some(Probe { http_get: Some(get), period_seconds: Some(1), ..Probe::default() });
            })
            .start(scene)
            .await;

        // In the middle of the work: ready, running, one agent.
        pod.ready().await;
        until("the agent has edited the file", SOON, async || {
            (pod.exec(&["cat", "/workspace/main.rs"]).await.stdout == "fn main() {}\n").then_some(())
        })
        .await;
        let health = pod.health().await;
        assert_eq!(health.status, Status::Ready);
        assert_eq!((health.agent.state.as_str(), health.agent.restarts), ("running", 0));
        assert!(!health.confinement.guarantees.is_empty());
        assert_eq!(pod.metric("supervisor_agent_restarts_total").await, Some(0.0));
        assert_eq!(pod.metric("supervisor_agent_state{state=\"running\"}").await, Some(1.0));
        pod.shell("touch /workspace/go-on").await;

        // At the end: its own exit code, its own words, nothing restarted.
        let ended = pod.ended().await;
        assert_eq!(ended.exit_code, 0);
        assert_eq!(message(&ended)["exit"], 0);
        let output = pod.agent_output().await.concat();
        assert!(output.contains("The work is done."), "{output}");
        assert!(output.contains("?? main.rs"), "{output}");
        // The model saw what the commands printed, so the agent really ran them.
        let turns = pod.logs_of(MODEL).await;
        assert!(turns.contains("?? main.rs") && turns.contains("went on"), "{turns}");
        assert_eq!(pod.outcome().await, "Succeeded");
    });
}
