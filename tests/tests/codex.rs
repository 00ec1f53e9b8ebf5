//! A real coding agent as a dev-task on this machine, without Kubernetes: seeded with a real git repository, followed
//! live, its patch shown, approved and applied back through a real relay. The model is a script.

use std::net::TcpListener;

use tests::binaries::scratch;
use tests::codex;
use tests::relay::Relay;
use tests::scripted_model;
use tests::supervisor::Supervisor;
use tests::tasks::Api;

const RELAY_TOKEN: &str = "CANARY-relay-token";

#[test]
fn codex_changes_a_seeded_repository_and_its_approved_patch_is_applied_back() {
    if !tests::needs::commands(&["git"]) {
        return;
    }
    let Some(program) = codex::program() else { return };
    let directory = scratch();
    let repository = codex::repository(directory.path());
    let builder = Supervisor::new().token();
    let model = scripted_model::start(&codex::commands(&builder.path("workspace")));
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let relay = Relay::new(RELAY_TOKEN, &repository);
    std::thread::spawn(move || relay.serve(&listener));
    let supervisor = builder
        .env("HIVE_SANDBOX_CODEX_MODEL", "scripted")
        .env("HIVE_SANDBOX_CODEX_PROVIDER_ID", "scripted")
        .env("HIVE_SANDBOX_CODEX_PROVIDER_NAME", "Scripted")
        .env("HIVE_SANDBOX_CODEX_BASE_URL", format!("http://{model}/v1"))
        .env("HIVE_SANDBOX_CODEX_WIRE_API", "responses")
        .env("HIVE_SANDBOX_CODEX_REQUIRES_OPENAI_AUTH", "false")
        .env("HIVE_SANDBOX_WORKSPACE_APPLY_RELAY_URL", format!("http://{address}/apply"))
        .env("HIVE_SANDBOX_WORKSPACE_APPLY_RELAY_TOKEN", RELAY_TOKEN)
        .start();
    supervisor.wait_ready();
    codex::change_seeded(&Api::of(&supervisor), &program.display().to_string(), &repository);
}
