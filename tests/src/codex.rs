//! A real coding agent, as npm has it, and the work that it is given: the same on this machine and on a node.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine;
use serde_json::json;

use crate::repository::{self, run};
use crate::tasks::Api;
use crate::wait::wait_until;

/// The words behind its name that start it, without asking anybody and without a second sandbox around it.
const WORDS: [&str; 5] = ["exec", "--sandbox", "danger-full-access", "--skip-git-repo-check", "Let it say hello."];

/// Codex where `just images` puts it, fetched where it is not; `None`, and why, where npm cannot be reached.
pub fn program() -> Option<PathBuf> {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let recipes = fs::read_to_string(root.join("justfile")).expect("the justfile");
    let line = recipes.lines().find_map(|line| line.strip_prefix("codex_version := ")).expect("a pinned version");
    let fetched = Command::new(root.join("images/sandbox/fetch-codex"))
        .args([line.trim_matches('"'), "dist/codex"])
        .current_dir(root)
        .stdin(Stdio::null())
        .output()
        .expect("bash");
    if !fetched.status.success() {
        println!("skipped: codex cannot be fetched: {}", String::from_utf8_lossy(&fetched.stderr));
        return None;
    }
    Some(root.join("dist/codex/bin/codex").canonicalize().expect("it was just fetched"))
}

/// A git repository with a program that is to be changed.
pub fn repository(at: &Path) -> PathBuf {
    let path = at.join("repository");
    fs::create_dir_all(path.join("src")).expect("our own directory");
    fs::write(path.join("src/main.rs"), "fn main() {}\n").expect("our own file");
    repository::commit(&path);
    path
}

/// What the model has to ask for, so that [`change_seeded`] comes out well in a sandbox with this workspace.
pub fn commands(workspace: &Path) -> [String; 3] {
    let go_on = workspace.join("go-on");
    [
        "git log --oneline && printf 'fn main() { println!(\"hello\") }\\n' > src/main.rs".into(),
        "git status --short".into(),
        format!("echo waits for you; until test -e {}; do sleep 0.1; done; echo went on", go_on.display()),
    ]
}

/// The agent as a dev-task that is seeded with `repository`: its work is followed live, its patch shown, approved, and
/// applied back by the relay that the supervisor knows.
#[track_caller]
pub fn change_seeded(api: &Api, codex: &str, repository: &Path) {
    let seed = base64::engine::general_purpose::STANDARD.encode(run(repository, "tar", &["-cz", "."]));
    let argv: Vec<&str> = std::iter::once(codex).chain(WORDS).collect();
    let id = api.start(json!({
        "task_id": "codex", "argv": argv, "execution_class": "networked", "workspace_archive_b64": seed,
    }));
    let text = follow(api, &id);
    assert!(text.contains("first commit") && text.contains("went on"), "{text}");
    let task = api.wait_end(&id);
    assert_eq!((&task["state"], &task["exit_code"]), (&json!("succeeded"), &json!(0)), "{task}\n{text}");
    let said = String::from_utf8_lossy(&api.output(&id, "stdout")).into_owned();
    assert!(said.contains("The work is done."), "{said}");

    let diff = api.get(&format!("/dev-tasks/{id}/diff"));
    let patch = String::from_utf8_lossy(&diff.body).into_owned();
    assert!(patch.contains("+fn main() { println!(\"hello\") }"), "{patch}");
    let program = || fs::read_to_string(repository.join("src/main.rs")).expect("it is there");
    assert_eq!(program(), "fn main() {}\n", "nothing is applied that was not approved");
    let approval = json!({"sha256": diff.header("patch-sha256")}).to_string();
    let answer = api.post(&format!("/dev-tasks/{id}/patch/approve"), approval);
    assert_eq!((answer.status(), &answer.json()["state"]), (200, &json!("applied")), "{}", answer.json());
    wait_until("the patch in the repository", || program().contains("hello"));
    assert_eq!(run(repository, "git", &["status", "--short"]), b" M src/main.rs\n");
}

/// Read along to the end. The change is seen while the agent waits, and only then it may go on.
fn follow(api: &Api, id: &str) -> String {
    let logs = format!("/dev-tasks/{id}/logs?stream=stderr&follow=true");
    let (head, mut body) = api.open("GET", &logs, &[], b"").expect("an answer");
    assert_eq!(head.status, 200);
    let (mut seen, mut piece, mut told) = (Vec::new(), [0; 4096], false);
    loop {
        let count = body.read(&mut piece).expect("all of the output");
        if count == 0 {
            break;
        }
        seen.extend_from_slice(&piece[..count]);
        if !told && String::from_utf8_lossy(&seen).contains("M src/main.rs") {
            assert_eq!(api.task(id)["state"], "running");
            let written = api.call("PUT", "/files/go-on", &[], b"");
            assert!(matches!(written.status(), 200..=204), "{}", written.status());
            told = true;
        }
    }
    assert!(told, "{}", String::from_utf8_lossy(&seen));
    String::from_utf8_lossy(&seen).into_owned()
}
