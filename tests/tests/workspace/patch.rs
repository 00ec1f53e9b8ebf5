//! What a task changed: shown, frozen, approved, applied through a relay that is really called.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};
use tests::binaries::scratch;
use tests::stage::Profile;
use tests::tasks::Api;
use tests::tls::Authority;
use tests::wait::wait_until;

use super::{archive, base64, repository, run, supervisor};

const TOKEN: &str = "CANARY-relay-token";

/// One call that the relay got.
#[derive(Clone, Debug, Default)]
struct Call {
    line: String,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

/// A relay on this machine: answers each call with the next of these, then closes.
struct Relay {
    address: SocketAddr,
    calls: Arc<Mutex<Vec<Call>>>,
}

/// TLS over TCP, or TCP alone.
trait Line: Read + Write + Send {}

impl<S: Read + Write + Send> Line for S {}

impl Relay {
    /// An answer of no bytes closes the connection without one; `hold` never answers.
    fn new(answers: &[&'static str]) -> Relay {
        Relay::over(|stream| Box::new(stream), answers)
    }

    fn over(line: impl Fn(TcpStream) -> Box<dyn Line> + Send + 'static, answers: &[&'static str]) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let calls: Arc<Mutex<Vec<Call>>> = Arc::default();
        let (known, answers) = (calls.clone(), answers.to_vec());
        thread::spawn(move || {
            let mut held = Vec::new();
            for answer in answers {
                let Ok((stream, _)) = listener.accept() else { return };
                let mut from = BufReader::new(line(stream));
                let mut call = Call::default();
                if from.read_line(&mut call.line).is_err() {
                    // Hung up on in the handshake.
                    continue;
                }
                loop {
                    let mut line = String::new();
                    let _ = from.read_line(&mut line);
                    let Some((name, value)) = line.trim_end().split_once(": ") else { break };
                    call.headers.insert(name.to_lowercase(), value.into());
                }
                let length = call.headers.get("content-length").and_then(|l| l.parse().ok()).unwrap_or(0);
                call.body = vec![0; length];
                let _ = from.read_exact(&mut call.body);
                known.lock().expect("calls").push(call);
                let mut stream = from.into_inner();
                match answer {
                    "hold" => held.push(stream),
                    answer => drop(stream.write_all(answer.as_bytes()).and_then(|()| stream.flush())),
                }
            }
        });
        Relay { address, calls }
    }

    fn calls(&self) -> Vec<Call> {
        self.calls.lock().expect("calls").clone()
    }

    /// A supervisor that knows it.
    fn supervisor(&self) -> tests::supervisor::Builder {
        supervisor()
            .env("HIVE_SANDBOX_WORKSPACE_APPLY_RELAY_URL", format!("http://{}/apply?x=1", self.address))
            .env("HIVE_SANDBOX_WORKSPACE_APPLY_RELAY_TOKEN", TOKEN)
    }
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone";
const NO: &str = "HTTP/1.1 409 Conflict\r\nContent-Length: 14\r\n\r\ndoes not apply";
const AWAY: &str = "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n";
const BROKEN: &str = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";

const CHANGES: &str = "sed -i s/two/2/ README.md; printf '\\0\\1new' > src/data.bin; rm src/gone.txt; \
                       printf 'no newline' > 'a b'; ln -s README.md l; chmod +x README.md";

/// Run a seeded task that changes something; its repository.
fn changed(api: &Api, at: &Path) -> std::path::PathBuf {
    let repository = repository(at);
    let seed = base64(&archive(&repository));
    let task = api.run(json!({"task_id": "t", "script": CHANGES, "workspace_archive_b64": seed}));
    assert_eq!(task["state"], "succeeded", "{task}");
    repository
}

fn shown(api: &Api) -> (String, Vec<u8>) {
    let answer = api.get("/dev-tasks/t/diff");
    assert_eq!(answer.status(), 200, "{}", answer.json());
    (answer.header("patch-sha256").into(), answer.body)
}

fn approve(api: &Api, sha256: &str) -> (u16, Value) {
    let answer = api.post("/dev-tasks/t/patch/approve", json!({"sha256": sha256}).to_string());
    (answer.status(), answer.json())
}

fn apply(at: &Path, patch: &[u8]) {
    let mut git = Command::new("git").args(["apply", "-"]).current_dir(at).stdin(Stdio::piped()).spawn().expect("git");
    git.stdin.take().expect("a pipe").write_all(patch).expect("git reads it");
    assert!(git.wait().expect("git ends").success());
}

#[test]
fn the_patch_of_a_real_repository_is_applied_back_through_the_relay() {
    if !tests::needs::commands(&["git"]) {
        return;
    }
    let relay = Relay::new(&[OK]);
    let supervisor = relay.supervisor().start();
    let api = Api::of(&supervisor);
    let dir = scratch();
    let repository = changed(&api, dir.path());
    let (sha256, patch) = shown(&api);
    let (status, applied) = approve(&api, &sha256);
    assert_eq!((status, &applied["state"]), (200, &json!("applied")), "{applied}");
    assert_eq!(applied["detail"], "200 OK: done");

    let call = relay.calls().remove(0);
    assert_eq!(call.line.trim_end(), "POST /apply?x=1 HTTP/1.1");
    assert_eq!(call.headers["authorization"], format!("Bearer {TOKEN}"));
    assert_eq!(call.headers["patch-sha256"], sha256);
    assert_eq!(call.headers["idempotency-key"], applied["idempotency_key"].as_str().expect("a key"));
    assert_eq!(call.body, patch);
    apply(&repository, &call.body);
    assert_eq!(fs::read_to_string(repository.join("README.md")).expect("there"), "one\n2\nthree\n");
    assert_eq!(fs::read(repository.join("src/data.bin")).expect("there"), b"\0\x01new");
    assert!(!repository.join("src/gone.txt").exists());
    assert_eq!(fs::read_link(repository.join("l")).expect("there"), Path::new("README.md"));
    let status = String::from_utf8(run(&repository, "git", &["status", "--short"])).expect("text");
    assert_eq!(status, " M README.md\n M src/data.bin\n D src/gone.txt\n?? \"a b\"\n?? l\n");

    let (status, again) = approve(&api, &sha256);
    assert_eq!((status, again), (200, applied), "applied once, told again");
    assert_eq!(relay.calls().len(), 1);
    for text in [supervisor.stderr.text(), api.task("t").to_string(), supervisor.get("/metrics").body] {
        assert!(!text.contains(TOKEN), "{text}");
    }
}

#[test]
fn only_the_patch_that_was_shown_last_can_be_approved_and_it_is_frozen() {
    let relay = Relay::new(&[OK]);
    let supervisor = relay.supervisor().start();
    let api = Api::of(&supervisor);
    let dir = scratch();
    let seed = base64(&archive(&repository(dir.path())));
    api.start(json!({"task_id": "t", "script": "echo first >> README.md; read x; echo second >> README.md; echo x; sleep 1000", "stdin_open": true, "workspace_archive_b64": seed}));
    wait_until("the first change", || api.get("/dev-tasks/t/diff").body.ends_with(b"+first\n"));
    let (first, patch) = shown(&api);
    assert_eq!(approve(&api, &"0".repeat(64)).0, 409);
    api.post("/dev-tasks/t/stdin", "go\n");
    api.wait_output("t", "x");
    let kept = api.get(&format!("/dev-tasks/t/diff?sha256={first}"));
    assert_eq!((kept.status(), kept.body), (200, patch.clone()), "it does not change with the workspace");
    let json = api.call("GET", "/dev-tasks/t/diff", &[("Accept", "application/json")], b"").json();
    let second = json["sha256"].as_str().expect("a digest").to_string();
    assert_ne!(first, second);
    assert_eq!(approve(&api, &first).0, 409, "a later one was shown");
    assert!(relay.calls().is_empty());
    assert_eq!(approve(&api, &second).1["state"], "applied");
    assert_eq!(relay.calls()[0].body.len() as u64, json["bytes"].as_u64().expect("a length"));
}

#[test]
fn a_refusal_is_told_and_may_be_asked_again_with_the_same_key() {
    let relay = Relay::new(&[NO, AWAY, BROKEN, "", OK]);
    let supervisor = relay.supervisor().start();
    let api = Api::of(&supervisor);
    let dir = scratch();
    changed(&api, dir.path());
    let (sha256, _) = shown(&api);
    for state in ["refused", "refused", "unknown", "unknown", "applied"] {
        let (status, apply) = approve(&api, &sha256);
        assert_eq!((status, &apply["state"]), (200, &json!(state)), "{apply}");
    }
    let keys: Vec<String> = relay.calls().iter().map(|c| c.headers["idempotency-key"].clone()).collect();
    assert_eq!(keys.len(), 5);
    assert!(keys.iter().all(|key| *key == keys[0]), "{keys:?}");
}

#[test]
fn a_relay_that_is_not_there_was_sent_nothing() {
    let relay = Relay::new(&[]);
    let supervisor = relay.supervisor().start();
    let api = Api::of(&supervisor);
    let dir = scratch();
    changed(&api, dir.path());
    wait_until("the relay's end", || std::net::TcpStream::connect(relay.address).is_err());
    let (status, apply) = approve(&api, &shown(&api).0);
    assert_eq!((status, &apply["state"]), (200, &json!("refused")), "{apply}");
    assert!(apply["detail"].as_str().is_some_and(|d| d.contains("nothing was sent")), "{apply}");
}

#[test]
fn after_a_crash_between_call_and_answer_it_is_unknown_until_asked_again() {
    let relay = Relay::new(&["hold", OK]);
    let dir = scratch();
    std::os::unix::fs::chown(dir.path(), Some(Profile::Restricted.uid()), None).expect("our own directory");
    let start = || relay.supervisor().set("state-dir", dir.path().join("state")).start();
    let mut first = start();
    let api = Api::of(&first);
    let source = scratch();
    changed(&api, source.path());
    let (sha256, patch) = shown(&api);
    let asking = thread::spawn({
        let (api, sha256) = (api.clone(), sha256.clone());
        move || {
            api.try_call("POST", "/dev-tasks/t/patch/approve", &[], json!({"sha256": sha256}).to_string().as_bytes())
        }
    });
    wait_until("the call", || relay.calls().len() == 1);
    assert_eq!(api.task("t")["apply"]["state"], "applying", "told before the relay was called");
    assert_eq!(approve(&api, &sha256).0, 409, "one at a time");
    first.signal(nix::sys::signal::Signal::SIGKILL);
    first.wait_exit();
    assert!(asking.join().expect("a client").is_err());

    let second = start();
    let api = Api::of(&second);
    assert_eq!(api.task("t")["apply"]["state"], "unknown");
    let (status, apply) = approve(&api, &sha256);
    assert_eq!((status, &apply["state"]), (200, &json!("applied")), "{apply}");
    let calls = relay.calls();
    assert_eq!(calls[0].headers["idempotency-key"], calls[1].headers["idempotency-key"]);
    assert_eq!(calls[1].body, patch);
}

#[test]
fn a_relay_that_is_not_set_is_501_and_one_in_the_open_or_with_a_missing_ca_file_is_78() {
    let supervisor = supervisor().start();
    let api = Api::of(&supervisor);
    let dir = scratch();
    changed(&api, dir.path());
    assert_eq!(approve(&api, &shown(&api).0).0, 501);
    assert!(api.task("t")["apply"].is_null());
    let mut open = self::supervisor()
        .set("relay-url", "http://relay.example/apply")
        .set("relay-ca-file", dir.path().join("missing"))
        .start();
    assert_eq!(open.wait_code(), 78);
    open.stderr.to_end();
    let told = open.stderr.text();
    assert!(told.contains("--relay-url") && told.contains("--relay-ca-file"), "{told}");
}

#[test]
fn a_relay_is_called_by_https_and_only_where_its_certificate_is_right() {
    let dir = scratch();
    let (ours, strange) = (Authority::new(dir.path(), "ours.pem"), Authority::new(dir.path(), "strange.pem"));
    // (who signed, for which name) and what becomes of it
    for (authority, name, expected) in [
        (&strange, "127.0.0.1", "refused"),
        (&ours, "relay.example", "refused"),
        (&ours, "127.0.0.2", "refused"),
        (&ours, "127.0.0.1", "applied"),
    ] {
        let server = authority.server(name);
        let relay = Relay::over(move |stream| Box::new(server.take(stream)), &[OK]);
        let supervisor = self::supervisor()
            .set("relay-url", format!("https://{}/apply", relay.address))
            .set("relay-ca-file", ours.file())
            .env("SUPERVISOR_RELAY_TOKEN", TOKEN)
            .start();
        let api = Api::of(&supervisor);
        changed(&api, &dir.path().join(supervisor.pid().to_string()));
        let (sha256, patch) = shown(&api);
        let (status, apply) = approve(&api, &sha256);
        assert_eq!((status, apply["state"].as_str()), (200, Some(expected)), "{name}: {apply}");
        let calls = relay.calls();
        if expected == "refused" {
            let detail = apply["detail"].as_str().unwrap_or_default();
            assert!(detail.contains("nothing was sent") && detail.contains("certificate"), "{apply}");
            assert!(calls.is_empty(), "the token goes to nobody else");
        } else {
            assert_eq!(
                (calls[0].headers["authorization"].as_str(), &calls[0].body),
                ("Bearer CANARY-relay-token", &patch)
            );
        }
    }
}

#[test]
fn an_empty_patch_is_shown_and_cannot_be_approved() {
    let relay = Relay::new(&[]);
    let supervisor = relay.supervisor().start();
    let api = Api::of(&supervisor);
    let dir = scratch();
    api.run(
        json!({"task_id": "t", "script": "true", "workspace_archive_b64": base64(&archive(&repository(dir.path())))}),
    );
    let (sha256, patch) = shown(&api);
    assert!(patch.is_empty());
    assert_eq!(approve(&api, &sha256).0, 409);
}
