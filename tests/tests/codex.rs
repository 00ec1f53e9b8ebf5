//! A real coding agent as a dev-task on this machine, without Kubernetes: seeded with a real git repository, followed
//! live, its patch shown, approved and applied back through a real relay. The model is a script.

use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine;
use serde_json::json;
use tests::binaries::scratch;
use tests::relay::Relay;
use tests::scripted_model;
use tests::supervisor::Supervisor;
use tests::tasks::Api;
use tests::wait::wait_until;

const RELAY_TOKEN: &str = "CANARY-relay-token";

#[track_caller]
fn run(at: &Path, program: &str, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new(program).args(arguments).current_dir(at).stdin(Stdio::null()).output().expect(program);
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// A repository with a program that is to be changed.
fn repository(at: &Path) -> PathBuf {
    let path = at.join("repository");
    fs::create_dir_all(path.join("src")).expect("our own directory");
    fs::write(path.join("src/main.rs"), "fn main() {}\n").expect("our own file");
    run(&path, "git", &["init", "-q", "."]);
    run(&path, "git", &["add", "-A"]);
    run(&path, "git", &["-c", "user.name=t", "-c", "user.email=t@example.com", "commit", "-qm", "first commit"]);
    path
}

fn relay(repository: &Path) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    let relay = Relay::new(RELAY_TOKEN, repository);
    std::thread::spawn(move || relay.serve(&listener));
    address
}

#[test]
fn codex_changes_a_seeded_repository_and_its_approved_patch_is_applied_back() {
    let Some(codex) = tests::codex::program() else { return };
    let directory = scratch();
    let repository = repository(directory.path());
    let builder = Supervisor::new().token();
    let go_on = builder.path("workspace/go-on");
    let model = scripted_model::start(&[
        "git log --oneline && printf 'fn main() { println!(\"hello\") }\\n' > src/main.rs".into(),
        "git status --short".into(),
        format!("echo waits for you; until test -e {}; do sleep 0.1; done; echo went on", go_on.display()),
    ]);
    let supervisor = builder
        .env("HIVE_SANDBOX_CODEX_MODEL", "scripted")
        .env("HIVE_SANDBOX_CODEX_PROVIDER_ID", "scripted")
        .env("HIVE_SANDBOX_CODEX_PROVIDER_NAME", "Scripted")
        .env("HIVE_SANDBOX_CODEX_BASE_URL", format!("http://{model}/v1"))
        .env("HIVE_SANDBOX_CODEX_WIRE_API", "responses")
        .env("HIVE_SANDBOX_CODEX_REQUIRES_OPENAI_AUTH", "false")
        .env("HIVE_SANDBOX_WORKSPACE_APPLY_RELAY_URL", format!("http://{}/apply", relay(&repository)))
        .env("HIVE_SANDBOX_WORKSPACE_APPLY_RELAY_TOKEN", RELAY_TOKEN)
        .start();
    supervisor.wait_ready();
    let api = Api::of(&supervisor);
    let seed = base64::engine::general_purpose::STANDARD.encode(run(&repository, "tar", &["-cz", "."]));
    let words = ["exec", "--sandbox", "danger-full-access", "--skip-git-repo-check", "Let it say hello."];
    let argv: Vec<String> = std::iter::once(codex.display().to_string()).chain(words.map(str::to_owned)).collect();
    let id = api.start(json!({
        "task_id": "codex", "argv": argv, "execution_class": "networked", "workspace_archive_b64": seed,
    }));

    // Live: the repository's history and the change are read while the agent waits for us.
    let (head, mut body) =
        api.open("GET", &format!("/dev-tasks/{id}/logs?stream=stderr&follow=true"), &[], b"").expect("an answer");
    assert_eq!(head.status, 200);
    let mut seen = Vec::new();
    let mut piece = [0; 4096];
    let mut told = false;
    loop {
        let count = body.read(&mut piece).expect("all of the output");
        if count == 0 {
            break;
        }
        seen.extend_from_slice(&piece[..count]);
        let text = String::from_utf8_lossy(&seen);
        if !told && text.contains("M src/main.rs") {
            assert_eq!(api.task(&id)["state"], "running");
            fs::write(&go_on, "").expect("our own directory");
            told = true;
        }
    }
    let text = String::from_utf8_lossy(&seen);
    assert!(told && text.contains("first commit") && text.contains("went on"), "{text}");
    let task = api.wait_end(&id);
    assert_eq!((&task["state"], &task["exit_code"]), (&json!("succeeded"), &json!(0)), "{task}\n{text}");
    let said = String::from_utf8_lossy(&api.output(&id, "stdout")).into_owned();
    assert!(said.contains("The work is done."), "{said}");

    let diff = api.get(&format!("/dev-tasks/{id}/diff"));
    let patch = String::from_utf8_lossy(&diff.body).into_owned();
    assert!(patch.contains("+fn main() { println!(\"hello\") }"), "{patch}");
    assert_eq!(fs::read_to_string(repository.join("src/main.rs")).expect("it is there"), "fn main() {}\n");
    let approval = json!({"sha256": diff.header("patch-sha256")}).to_string();
    let answer = api.post(&format!("/dev-tasks/{id}/patch/approve"), approval);
    assert_eq!((answer.status(), &answer.json()["state"]), (200, &json!("applied")), "{}", answer.json());
    wait_until("the patch in the repository", || {
        fs::read_to_string(repository.join("src/main.rs")).is_ok_and(|text| text.contains("hello"))
    });
    assert_eq!(run(&repository, "git", &["status", "--short"]), b" M src/main.rs\n");
}
