//! Every success that the page describes, really answered, and as it is described.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::Path;

use base64::Engine;
use serde_json::{Value, json};
use tests::attach::{Attach, UPGRADE, handshake};
use tests::needs;
use tests::openapi::{Call, Page, schema};
use tests::processes;
use tests::relay::Relay;
use tests::repository::run;
use tests::supervisor::Supervisor;
use tests::tasks::{Answer, Api};
use tests::wait::wait_until;

use super::page;

/// A client that holds each answer against the page.
struct Client {
    api: Api,
    page: Page,
    seen: BTreeSet<(Call, u16)>,
    wrong: Vec<String>,
}

impl Client {
    /// Call `path` of the page with these values in it and this query.
    #[track_caller]
    fn call(
        &mut self,
        method: &str,
        path: &str,
        (id, rest): (&str, &str),
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        let real = path.replace("{id}", id).replace("{path}", "notes/a");
        let answer = self.api.call(method, &format!("{real}{rest}"), headers, body);
        self.judge(method, path, &answer);
        answer
    }

    #[track_caller]
    fn get(&mut self, path: &str, id: &str, query: &str) -> Answer {
        self.call("GET", path, (id, query), &[], b"")
    }

    #[track_caller]
    fn post(&mut self, path: &str, id: &str, query: &str, body: &Value) -> Answer {
        self.call("POST", path, (id, query), &[], body.to_string().as_bytes())
    }

    fn judge(&mut self, method: &str, path: &str, answer: &Answer) {
        let call = (path.to_string(), method.to_string());
        let problems = self.page.problems(&call, answer);
        self.wrong
            .extend(problems.into_iter().map(|problem| format!("{method} {path} {}: {problem}", answer.status())));
        self.seen.insert((call, answer.status()));
    }
}

/// A directory with two files as `tar.gz`.
pub(super) fn archive(at: &Path) -> Vec<u8> {
    std::fs::write(at.join("a"), "one\n").expect("our own directory");
    run(at, "tar", &["-cz", "a"])
}

/// A supervisor whose relay takes patches for a repository of its own, with the token of the relay's test.
fn supervisor(repository: &Path) -> Supervisor {
    run(repository, "git", &["init", "-q", "."]);
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let address = listener.local_addr().expect("bound");
    let relay = Relay::new("relay-token", repository);
    std::thread::spawn(move || relay.serve(&listener));
    Supervisor::new()
        .token()
        .env("HIVE_SANDBOX_WORKSPACE_APPLY_RELAY_URL", format!("http://{address}/apply"))
        .env("HIVE_SANDBOX_WORKSPACE_APPLY_RELAY_TOKEN", "relay-token")
        .start()
}

#[test]
fn every_success_that_is_described_is_answered_as_it_is_described() {
    if !needs::commands(&["git"]) {
        return;
    }
    let directory = tempfile::tempdir().expect("a scratch directory");
    let seed = archive(directory.path());
    let supervisor = supervisor(directory.path());
    supervisor.wait_ready();
    let mut client = Client { api: Api::of(&supervisor), page: page(), seen: BTreeSet::new(), wrong: Vec::new() };
    tasks(&mut client);
    workspace(&mut client, &seed);
    files(&mut client);
    for path in ["/livez", "/readyz", "/startupz", "/healthz", "/alive", "/metrics"] {
        client.get(path, "", "");
    }
    unready(&mut client);

    assert!(client.wrong.is_empty(), "{}", client.wrong.join("\n"));
    let described = client.page.calls().into_iter().flat_map(|(call, statuses)| {
        statuses.into_iter().filter(|status| *status < 400).map(move |status| (call.clone(), status))
    });
    let missing: Vec<_> = described.filter(|success| !client.seen.contains(success)).collect();
    assert!(missing.is_empty(), "described and never answered here: {missing:?}");
}

/// Tasks from their creation to the end of their record.
fn tasks(client: &mut Client) {
    let all = json!({"task_id": "all", "script": "echo out; echo err >&2; echo file > $TASK_ARTIFACTS/a; exit 3",
        "labels": {"a": "b"}, "setup": ["true"], "teardown": ["true"], "env": {"A": "b"}, "stdin": "x", "timeout": "1m",
        "execution_class": "readonly", "limits": {"output_bytes": 1_000_000, "open_files": 100}, "priority": 1});
    for _ in 0..2 {
        client.post("/dev-tasks", "", "?wait=30s", &all);
    }
    let terminal = json!({"rows": 24, "cols": 80});
    client.post("/dev-tasks", "", "", &json!({"task_id": "shell", "argv": ["cat"], "terminal": terminal}));
    client.post("/dev-tasks", "", "", &json!({"task_id": "cat", "argv": ["cat"], "stdin_open": true}));
    for id in ["shell", "cat"] {
        client.api.wait_state(id, "running");
        client.get("/dev-tasks/{id}", id, "");
        attach(client, id);
    }
    client.call("POST", "/dev-tasks/{id}/stdin", ("cat", ""), &[], b"typed\n");
    client.post("/dev-tasks/{id}/signal", "shell", "", &json!({"signal": 9}));
    client.post("/dev-tasks/{id}/stdin/close", "cat", "", &Value::Null);
    client.get("/dev-tasks/{id}", "cat", "?wait=30s");
    client.post("/dev-tasks/{id}/cancel", "shell", "?wait=30s", &Value::Null);
    client.get("/dev-tasks", "", "?limit=1");
    client.get("/dev-tasks", "", "?limit=1000");
    client.get("/dev-tasks/{id}/logs", "all", "?stream=stderr&cursor=1&limit=1");
    client.call("GET", "/dev-tasks/{id}/logs", ("all", ""), &[("Accept", "text/event-stream")], b"");
    client.get("/dev-tasks/{id}/artifacts", "all", "");
    client.get("/dev-tasks/{id}/artifacts", "all", "?limit=10000");
    client.get("/dev-tasks/{id}/artifacts", "all", "?format=tar");
    client.get("/dev-tasks/{id}/artifacts", "all", "?format=tar.gz");
    let artifact = client.api.call("GET", "/dev-tasks/all/artifacts/a", &[], b"");
    client.judge("GET", "/dev-tasks/{id}/artifacts/{path}", &artifact);
    let artifact = client.api.call("GET", "/dev-tasks/all/artifacts/a", &[("Range", "bytes=1-2")], b"");
    client.judge("GET", "/dev-tasks/{id}/artifacts/{path}", &artifact);
    client.call("DELETE", "/dev-tasks/{id}", ("shell", ""), &[], b"");
}

/// The head, and every word that is said.
fn attach(client: &mut Client, id: &str) {
    let path = format!("/dev-tasks/{id}/attach");
    let (head, _) = handshake(&client.api, &path, &UPGRADE).expect("an answer");
    client.seen.insert((("/dev-tasks/{id}/attach".into(), "GET".into()), head.status));
    let mut attached = Attach::to(&client.api, id, "");
    attached.say(json!({"resize": {"rows": 50, "cols": 132}}));
    attached.type_in("to be echoed\n");
    attached.wait_text("to be echoed");
    attached.say(json!({"detach": true}));
    assert_eq!(attached.to_end(), 1000);
    let told = json!({"$ref": "#/components/schemas/Told"});
    for word in &attached.words {
        client.wrong.extend(schema::problems(client.page.whole(), &told, word));
    }
    assert!(attached.words.len() >= 2, "{:?}", attached.words);
}

/// A seeded workspace, its patch, and the relay.
fn workspace(client: &mut Client, seed: &[u8]) {
    client.call("PUT", "/workspace-archives/{id}", ("seed", ""), &[], seed);
    let seeded = json!({"task_id": "seeded", "script": "echo two >> a", "workspace_archive": "seed"});
    client.post("/dev-tasks", "", "?wait=30s", &seeded);
    let b64 = base64::engine::general_purpose::STANDARD.encode(seed);
    client.post("/dev-tasks", "", "?wait=30s", &json!({"argv": ["true"], "workspace_archive_b64": b64}));
    client.call("DELETE", "/workspace-archives/{id}", ("seed", ""), &[], b"");
    client.get("/dev-tasks/{id}/workspace", "seeded", "");
    let diff = client.get("/dev-tasks/{id}/diff", "seeded", "");
    let sha256 = diff.header("patch-sha256").to_string();
    client.get("/dev-tasks/{id}/diff", "seeded", &format!("?sha256={sha256}"));
    client.call("GET", "/dev-tasks/{id}/diff", ("seeded", ""), &[("Accept", "application/json")], b"");
    client.get("/dev-tasks/{id}", "seeded", "");
    let applied = client.post("/dev-tasks/{id}/patch/approve", "seeded", "", &json!({"sha256": sha256})).json();
    assert_eq!(applied["state"], "applied", "{applied}");
    client.get("/dev-tasks/{id}", "seeded", "");
}

/// The shared workspace.
fn files(client: &mut Client) {
    for query in ["?parents=true&mode=600", "?parents=true"] {
        client.call("PUT", "/files/{path}", ("", query), &[], b"bytes");
    }
    for query in ["", "?stat=true"] {
        client.get("/files/{path}", "", query);
    }
    client.call("GET", "/files/{path}", ("", ""), &[("Range", "bytes=1-2")], b"");
    for path in ["/files", "/files/"] {
        for query in ["?list=true", "?list=true&recursive=true&limit=1", "?stat=true"] {
            client.get(path, "", query);
        }
    }
    let list = client.api.get("/files/notes?list=true");
    client.judge("GET", "/files/{path}", &list);
    client.call("DELETE", "/files/{path}", ("", ""), &[], b"");
}

/// Health of a supervisor whose agent does not start.
fn unready(client: &mut Client) {
    let supervisor = Supervisor::new().agent(["sleep", "1000"]).set("agent-ready", "notify").start();
    supervisor.wait_state("running");
    let mut ended = Supervisor::new().agent(["false"]).set("agent-restart", "always").set("agent-restart-min", "1h");
    ended = ended.set("agent-restart-max", "1h");
    let ended = ended.start();
    ended.wait_state("waiting");
    for supervisor in [&supervisor, &ended] {
        let api = Api::at(supervisor.address(), "none");
        for path in ["/readyz", "/alive", "/healthz", "/startupz"] {
            let answer = api.get(path);
            client.judge("GET", path, &answer);
        }
    }
}

/// The calls that open what agents can change; a few at a time may.
const WITH_WORKERS: [(&str, &str); 11] = [
    ("GET", "/dev-tasks/{id}/artifacts"),
    ("GET", "/dev-tasks/{id}/artifacts/{path}"),
    ("GET", "/dev-tasks/{id}/workspace"),
    ("GET", "/dev-tasks/{id}/diff"),
    ("PUT", "/workspace-archives/{id}"),
    ("GET", "/files"),
    ("GET", "/files/"),
    ("GET", "/files/{path}"),
    ("PUT", "/files/{path}"),
    ("DELETE", "/files/{path}"),
    ("POST", "/dev-tasks"),
];

#[test]
fn while_too_many_files_are_being_read_the_others_are_told_to_come_back() {
    let directory = tempfile::tempdir().expect("a scratch directory");
    let seed = archive(directory.path());
    let supervisor = Supervisor::new().token().start();
    let api = Api::of(&supervisor);
    let b64 = base64::engine::general_purpose::STANDARD.encode(&seed);
    api.run(json!({"task_id": "t", "argv": ["true"], "workspace_archive_b64": b64}));
    // Uploads that do not come hold their workers for as long as a body may take.
    let held: Vec<TcpStream> = (0..8)
        .map(|number| {
            let mut stream = TcpStream::connect(api.address).expect("it listens");
            let token = api.authorization();
            write!(stream, "PUT /files/{number} HTTP/1.1\r\nHost: x\r\n{token}Content-Length: 9\r\n\r\n")
                .expect("fresh");
            stream
        })
        .collect();
    wait_until("all workers are busy", || {
        let children = processes::descendants(supervisor.pid());
        children.into_iter().filter(|&pid| processes::name(pid) == "supervisor").count() >= held.len()
    });
    let page = page();
    std::thread::scope(|scope| {
        for (method, path) in WITH_WORKERS {
            let (api, page, seed, b64) = (&api, &page, &seed, &b64);
            scope.spawn(move || {
                let create = json!({"argv": ["true"], "workspace_archive_b64": b64}).to_string();
                let body = if method == "POST" { create.as_bytes() } else { &seed[..] };
                let query = if path.trim_end_matches('/') == "/files" { "?list=true" } else { "" };
                let real = format!("{}{query}", path.replace("{id}", "t").replace("{path}", "a"));
                let answer = api.call(method, &real, &[], body);
                assert_eq!(answer.status(), 429, "{method} {path}: {}", answer.json());
                assert!(answer.header("retry-after").parse::<u32>().is_ok(), "{method} {path}");
                let problems = page.problems(&(path.into(), method.into()), &answer);
                assert_eq!(problems, Vec::<String>::new(), "{method} {path}");
            });
        }
    });
}
