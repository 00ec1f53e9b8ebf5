//! A task's own workspace, from the archive that came with it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::json;
use tests::binaries::scratch;
use tests::stage::Profile;
use tests::supervisor::Supervisor;
use tests::tasks::Api;
use tests::wait::wait_until;

use super::{api, archive, base64, repository, run, supervisor};

#[test]
fn a_task_works_in_the_repository_that_it_was_given() {
    if !tests::needs::commands(&["git"]) {
        return;
    }
    let (supervisor, api) = api();
    let dir = scratch();
    let seed = base64(&archive(&repository(dir.path())));
    let script = "pwd; echo $TASK_WORKSPACE; git -c safe.directory=* status --short; cat src/link; echo x > new";
    let task = api.run(json!({"task_id": "t", "script": script, "workspace_archive_b64": seed}));
    assert_eq!(task["state"], "succeeded", "{task}");
    let root = task["runtime"]["workspace_root"].as_str().expect("a root of its own");
    let output = String::from_utf8_lossy(&api.output("t", "stdout")).into_owned();
    assert_eq!(output, format!("{root}\n{root}\none\ntwo\nthree\n"), "nothing differs from the commit");
    assert!(
        fs::read_dir(&supervisor.paths().workspace).expect("there").next().is_none(),
        "the shared one is untouched"
    );

    let back = api.get("/dev-tasks/t/workspace");
    assert_eq!((back.status(), back.header("content-type")), (200, "application/gzip"));
    let out = dir.path().join("back");
    fs::create_dir(&out).expect("our own directory");
    fs::write(dir.path().join("back.tar.gz"), &back.body).expect("our own file");
    run(&out, "tar", &["-xzf", "../back.tar.gz"]);
    assert_eq!(fs::read_to_string(out.join("new")).expect("came back"), "x\n");
    assert_eq!(run(&out, "git", &["-c", "safe.directory=*", "status", "--short"]), b"?? new\n");
}

#[test]
fn a_readonly_task_can_read_its_workspace_and_not_write_it() {
    let (_supervisor, api) = api();
    let dir = scratch();
    let seed = base64(&archive(&repository(dir.path())));
    let script =
        "cat README.md; echo x > README.md; echo y > new; rm src/gone.txt; echo z > $TASK_ARTIFACTS/z && echo fine";
    let task = json!({"task_id": "t", "script": script, "execution_class": "readonly", "workspace_archive_b64": seed});
    api.run(task);
    assert_eq!(api.output("t", "stdout"), b"one\ntwo\nthree\nfine\n");
    assert_eq!(api.get("/dev-tasks/t/diff").body, b"");
}

#[test]
fn tasks_cannot_read_each_others_workspaces() {
    let (_supervisor, api) = api();
    let dir = scratch();
    let seed = base64(&archive(&repository(dir.path())));
    let first = api.run(json!({"script": "true", "workspace_archive_b64": seed}));
    let root = first["runtime"]["workspace_root"].as_str().expect("a root");
    let second = api.run(json!({"script": format!("cat {root}/README.md || echo closed")}));
    assert_eq!(api.output(second["task_id"].as_str().expect("an id"), "stdout"), b"closed\n");
}

#[test]
fn an_upload_seeds_any_number_of_tasks_until_it_is_deleted() {
    let (_supervisor, api) = api();
    let dir = scratch();
    let body = archive(&repository(dir.path()));
    let uploaded = api.call("PUT", "/workspace-archives/repo-1", &[], &body);
    assert_eq!(uploaded.status(), 201, "{}", uploaded.json());
    assert_eq!(uploaded.json(), json!({"workspace_archive": "repo-1", "bytes": body.len()}));
    for _ in 0..2 {
        let task = api.run(json!({"script": "test -f README.md", "workspace_archive": "repo-1"}));
        assert_eq!(task["state"], "succeeded", "{task}");
    }
    assert_eq!(api.call("DELETE", "/workspace-archives/repo-1", &[], b"").status(), 204);
    assert_eq!(api.call("DELETE", "/workspace-archives/repo-1", &[], b"").status(), 404);
    let gone = api.post("/dev-tasks", json!({"argv": ["true"], "workspace_archive": "repo-1"}).to_string());
    assert_eq!((gone.status(), gone.field().as_str()), (400, "workspace_archive"));
}

#[test]
fn a_hostile_archive_fails_the_create_names_the_entry_and_leaves_nothing() {
    let (supervisor, api) = api();
    let dir = scratch();
    let made = |name: &str, make: &dyn Fn(&std::path::Path), arguments: &[&str]| {
        let at = dir.path().join(name);
        fs::create_dir(&at).expect("our own directory");
        make(&at);
        run(&at, "tar", &[&["-cz"], arguments].concat())
    };
    let link = made("link", &|at| symlink("/etc/passwd", at.join("way-out")).expect("our own link"), &["."]);
    let up =
        made("up", &|at| fs::write(at.join("f"), "x").expect("our own file"), &["--transform=s,f,../evil,", "-P", "f"]);
    let absolute = made(
        "absolute",
        &|at| fs::write(at.join("f"), "x").expect("our own file"),
        &["--transform=s,f,/evil,", "-P", "f"],
    );
    let hard = made(
        "hard",
        &|at| {
            fs::write(at.join("a"), "x").expect("our own file");
            fs::hard_link(at.join("a"), at.join("twin")).expect("our own file");
        },
        &["a", "twin"],
    );
    let fifo = made("fifo", &|at| drop(run(at, "mkfifo", &["pipe"])), &["pipe"]);
    for (archive, words) in [(link, "way-out"), (up, "evil"), (absolute, "evil"), (hard, "twin"), (fifo, "pipe")] {
        let body = json!({"task_id": "t", "argv": ["true"], "workspace_archive_b64": base64(&archive)});
        let answer = api.post("/dev-tasks", body.to_string());
        assert_eq!((answer.status(), answer.field().as_str()), (400, "workspace_archive_b64"), "{}", answer.json());
        assert!(answer.json()["detail"].as_str().is_some_and(|d| d.contains(words)), "{words}: {}", answer.json());
        let uploaded = api.call("PUT", "/workspace-archives/a", &[], &archive);
        assert_eq!(uploaded.status(), 400, "{}", uploaded.json());
    }
    assert_eq!(api.get("/dev-tasks/t").status(), 404);
    let left = run(&supervisor.paths().state, "find", &[".", "-type", "f", "-not", "-name", "*.json"]);
    let left = String::from_utf8_lossy(&left).into_owned();
    assert!(!left.contains("archives/") && !left.contains("tasks/t/"), "{left}");
}

#[test]
fn an_archive_that_unpacks_to_too_much_is_413() {
    let supervisor = supervisor().set("archive-unpacked", "1MiB").set("archive-upload", "64KiB").start();
    let api = Api::of(&supervisor);
    let dir = scratch();
    fs::write(dir.path().join("zeros"), vec![0; 2 * 1024 * 1024]).expect("our own file");
    let bomb = archive(dir.path());
    let answer = api.post("/dev-tasks", json!({"argv": ["true"], "workspace_archive_b64": base64(&bomb)}).to_string());
    assert_eq!((answer.status(), answer.field().as_str()), (413, "workspace_archive_b64"), "{}", answer.json());
    let large = base64(&vec![7; 65 * 1024]);
    let answer = api.post("/dev-tasks", json!({"argv": ["true"], "workspace_archive_b64": large}).to_string());
    assert_eq!((answer.status(), answer.field().as_str()), (413, "workspace_archive_b64"), "{}", answer.json());
    assert_eq!(api.call("PUT", "/workspace-archives/a", &[], &vec![7; 65 * 1024]).status(), 413);
}

#[test]
fn bad_fields_around_archives_are_named_and_nothing_starts() {
    let (_supervisor, api) = api();
    for (body, field) in [
        (json!({"argv": ["true"], "workspace_archive_b64": "?"}), "workspace_archive_b64"),
        (json!({"argv": ["true"], "workspace_archive_b64": "aGVsbG8="}), "workspace_archive_b64"),
        (json!({"argv": ["true"], "workspace_archive_b64": ""}), "workspace_archive_b64"),
        (json!({"argv": ["true"], "workspace_archive": "../x"}), "workspace_archive"),
        (json!({"argv": ["true"], "workspace_archive": "a", "workspace_archive_b64": "b"}), "workspace_archive"),
    ] {
        let answer = api.post("/dev-tasks", body.to_string());
        assert_eq!((answer.status(), answer.field().as_str()), (400, field), "{body}: {}", answer.json());
    }
    assert_eq!(api.call("PUT", "/workspace-archives/.x", &[], b"x").status(), 400);
    assert_eq!(api.list("").len(), 0);
}

#[test]
fn a_create_that_is_repeated_with_its_archive_is_the_same_task() {
    let (_supervisor, api) = api();
    let dir = scratch();
    let body = json!({"script": "echo ran >> count; cat count", "workspace_archive_b64": base64(&archive(&repository(dir.path())))});
    let create = || api.call("POST", "/dev-tasks?wait=60s", &[("Idempotency-Key", "k")], body.to_string().as_bytes());
    let (first, second) = (create(), create());
    assert_eq!((first.status(), second.status()), (201, 200));
    let id = first.json()["task_id"].as_str().expect("an id").to_string();
    assert_eq!(second.json()["task_id"], id.as_str());
    assert_eq!(api.output(&id, "stdout"), b"ran\n");
}

#[test]
fn a_queued_task_keeps_its_seed_over_a_crash() {
    let dir = scratch();
    std::os::unix::fs::chown(dir.path(), Some(Profile::Restricted.uid()), None).expect("our own directory");
    let start = || supervisor().set("state-dir", dir.path().join("state")).set("task-concurrency", "1").start();
    let mut first = start();
    let api = Api::of(&first);
    api.start(json!({"task_id": "long", "script": "sleep 1000"}));
    let source = scratch();
    let seed = base64(&archive(&repository(source.path())));
    api.start(
        json!({"task_id": "next", "script": "cat README.md; echo more >> README.md", "workspace_archive_b64": seed}),
    );
    first.signal(nix::sys::signal::Signal::SIGKILL);
    first.wait_exit();
    let second = start();
    let api = Api::of(&second);
    assert_eq!(api.wait_end("next")["state"], "succeeded");
    assert_eq!(api.output("next", "stdout"), b"one\ntwo\nthree\n");
    assert!(String::from_utf8_lossy(&api.get("/dev-tasks/next/diff").body).contains("+more"));
}

#[test]
fn deleting_a_task_removes_its_workspace_and_its_seed() {
    let (supervisor, api) = api();
    let dir = scratch();
    api.run(json!({"task_id": "t", "script": "mkdir shut; touch shut/x; chmod 0 shut", "workspace_archive_b64": base64(&archive(&repository(dir.path())))}));
    let folder = supervisor.paths().state.join("tasks/t");
    assert!(folder.join("workspace/README.md").exists() && folder.join("seed.tar.gz").exists());
    assert_eq!(api.call("DELETE", "/dev-tasks/t", &[], b"").status(), 204);
    wait_until("everything of it to go", || left(folder.parent().expect("the tasks' folder")).is_empty());
}

#[test]
fn another_uid_seeds_where_the_task_directory_is_open_to_it() {
    let builder = Supervisor::new().token().profile(Profile::Baseline);
    let tasks = builder.path("tasks");
    fs::create_dir(&tasks).expect("our own directory");
    let supervisor = builder.set("task-dir", tasks).start();
    let api = Api::of(&supervisor);
    let dir = scratch();
    let script = "id -u; echo more >> README.md; mkdir $TASK_ARTIFACTS/d; touch $TASK_ARTIFACTS/d/x; echo art > $TASK_ARTIFACTS/a";
    api.run(
        json!({"task_id": "t", "script": script, "workspace_archive_b64": base64(&archive(&repository(dir.path())))}),
    );
    assert_eq!(api.output("t", "stdout"), b"20001\n");
    assert_eq!(api.get("/dev-tasks/t/artifacts/a").body, b"art\n");
    assert!(String::from_utf8_lossy(&api.get("/dev-tasks/t/diff").body).contains("+more"));
    let folder = supervisor.path("tasks/t");
    assert!(folder.exists());
    assert_eq!(api.call("DELETE", "/dev-tasks/t", &[], b"").status(), 204);
    wait_until("everything of it to go", || left(folder.parent().expect("the tasks' folder")).is_empty());
}

#[test]
fn another_uid_passes_through_the_state_directory_to_its_tasks_folder_and_nowhere_else() {
    use std::os::unix::fs::PermissionsExt;
    let supervisor = Supervisor::new().token().profile(Profile::Baseline).start();
    let api = Api::of(&supervisor);
    let dir = scratch();
    let seed = base64(&archive(&repository(dir.path())));
    let script = "id -u; cat README.md > $TASK_ARTIFACTS/a && touch $TMPDIR/b";
    let task = api.run(json!({"task_id": "t", "script": script, "workspace_archive_b64": seed}));
    assert_eq!(task["state"], "succeeded", "{task}");
    assert_eq!(api.output("t", "stdout"), b"20001\n");
    assert_eq!(api.get("/dev-tasks/t/artifacts/a").body, b"one\ntwo\nthree\n");
    let state = &supervisor.paths().state;
    let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode(state), 0o711);
    for entry in fs::read_dir(state).expect("root reads it").flatten() {
        let open_to_others = mode(&entry.path()) & 0o077;
        let expected = if entry.file_name() == "task-directories" { 0o011 } else { 0 };
        assert_eq!(open_to_others, expected, "{}", entry.path().display());
    }
    assert_eq!(api.call("DELETE", "/dev-tasks/t", &[], b"").status(), 204);
    wait_until("everything of it to go", || left(&state.join("task-directories")).is_empty());
}

/// Folders of tasks, also of removed ones.
fn left(tasks: &Path) -> Vec<String> {
    let entries = fs::read_dir(tasks).expect("our own directory").flatten();
    let folders = entries.filter(|entry| entry.path().is_dir());
    folders.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}
