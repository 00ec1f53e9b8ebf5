//! Whichever gateway is asked.

use std::sync::atomic::AtomicU64;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use tests::attach::Attach;
use tests::dialler::response;
use tests::tls::Authority;

use super::*;

#[test]
fn a_call_at_any_gateway_reaches_the_one_that_has_the_session() {
    let Some(server) = Postgres::start() else { return };
    let (owner, other) = (one(&server).start(), one(&server).start());
    let _supervisor = supervisor("a", owner.address);
    wait_until("the other knows of the session", || status(&other, "a") == "connected");
    let by_other = api(&other, "a");
    // Nothing but the owner knows this.
    wait_until("its state is told", || other.api().get("/v1/sandboxes/a").json()["state"].is_object());
    let listed = other.api().get("/v1/sandboxes?status=connected").json();
    assert_eq!(listed["sandboxes"][0]["id"], "a", "{listed}");

    let task = by_other.run(json!({ "argv": ["sh", "-c", "echo made; exit 3"] }));
    assert_eq!(task["exit_code"], 3, "{task}");
    assert_eq!(by_other.call("PUT", "/files/x", &[], b"bytes").status(), 200);
    assert_eq!(by_other.get("/files/x").body, b"bytes");
    // Output is followed while it comes.
    let id = by_other.start(
        json!({ "argv": ["sh", "-c", "echo one; read line; echo $line"], "terminal": { "rows": 24, "cols": 80 } }),
    );
    let mut client = Attach::to(&by_other, &id, "");
    client.wait_text("one");
    client.type_in("two\r");
    client.wait_text("two\r\ntwo");
    assert_eq!(client.to_end(), 1000);
    // Its key is the one that the sandbox was told.
    let token = other.api().post("/v1/sandboxes/a/call-tokens", "").json();
    assert_eq!(token["audience"], "a", "{token}");
    assert!(other.metric("gateway_passed_on_total{outcome=\"answered\"}") >= 6.0);
    assert_eq!(owner.metric("gateway_passed_on_total{outcome=\"answered\"}"), 0.0);

    // Who follows events there misses none and does not wait for long.
    let path = "/v1/sandboxes/a/events?follow=true&class=results&cursor=0";
    let (head, mut events) = other.api().open("GET", path, &[], b"").expect("an answer");
    assert_eq!(head.status, 200);
    by_other.run(json!({ "task_id": "followed", "argv": ["true"] }));
    let ended = Instant::now();
    let mut seen = Vec::new();
    while !seen.contains(&json!("followed")) {
        let event = events.event().expect("the stream").expect("it goes on");
        let data: serde_json::Value =
            serde_json::from_str(event.get("data").map_or("null", String::as_str)).expect("JSON");
        seen.push(data["record"]["body"]["task_id"].clone());
    }
    assert!(ended.elapsed() < Duration::from_secs(5), "{:?}", ended.elapsed());
    // A command that the other takes is told to the owner.
    let given = other.api().post("/v1/sandboxes/a/commands", r#"{"do":"unheard-of"}"#);
    assert_eq!(given.status(), 202);
    wait_until("it has its outcome", || other.api().get("/v1/sandboxes/a/commands/1").json()["status"] == "applied");
}

#[test]
fn a_request_is_passed_on_once_and_a_wrong_token_never() {
    let Some(server) = Postgres::start() else { return };
    let (owner, other) = (one(&server).start(), one(&server).start());
    let (_session, _) = Dialler::begin(&owner, "a");
    let refused = other.api().call("GET", "/v1/sandboxes/a/dev-tasks", &[("chaperone-passed-on", "1")], b"");
    assert_eq!((refused.status(), refused.header("retry-after")), (503, "1"), "{}", refused.json());
    let stranger = other.api().with_token(Some("a-stranger's")).get("/v1/sandboxes/a/dev-tasks");
    assert_eq!(stranger.status(), 401);
    assert_eq!(other.metric("gateway_passed_on_total{outcome=\"answered\"}"), 0.0);
}

#[test]
fn gateways_call_each_other_by_tls_and_check_the_name_that_was_set() {
    let Some(server) = Postgres::start() else { return };
    let place = tests::binaries::scratch();
    let authority = Authority::new(place.path(), "ca.pem");
    let (certificate, key) = authority.issue("localhost", place.path());
    let text = |path: &std::path::Path| path.display().to_string();
    let owner = one(&server).set("tls_cert_file", &text(&certificate)).set("tls_key_file", &text(&key));
    let url = owner.setting("advertise_url").replace("http:", "https:");
    let owner = owner.set("advertise_url", &url).start();
    let dials = builder("a", &format!("wss://localhost:{}", owner.address.port()));
    let _supervisor = dials.set("link-ca-file", authority.file()).start();
    let other = || one(&server).set("advertise_ca_file", &text(authority.file()));
    // Its certificate does not have the address that is in its URL.
    let (named, unnamed) = (other().set("advertise_name", "localhost").start(), other().start());
    wait_until("a call is answered", || api(&named, "a").get("/dev-tasks").status() == 200);
    assert_eq!(api(&unnamed, "a").get("/dev-tasks").status(), 503);
    unnamed.stderr.wait_text("another gateway cannot be reached");
}

/// The session of sandbox `a` at this gateway, which answers each call by this word.
fn session(gateway: &Gateway, word: &'static str) {
    let session = Dialler::begin(gateway, "a").0;
    let answer = move |_: &str| response("200 OK", word.as_bytes());
    thread::spawn(move || session.serve(&AtomicU64::new(0), answer));
}

/// How many connections wait to be accepted there (proc_net_tcp.rst: `rx_queue` of a socket that listens).
fn waiting_at(address: SocketAddr) -> usize {
    let table = std::fs::read_to_string("/proc/net/tcp").expect("proc");
    let own = format!(":{:04X}", address.port());
    let mut sockets = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let listens = sockets.find(|fields| fields[1].ends_with(&own) && fields[3] == "0A").expect("it listens");
    let (_, waiting) = listens[4].split_once(':').expect("two numbers");
    usize::from_str_radix(waiting, 16).expect("hexadecimal")
}

#[test]
fn a_gateway_that_was_stopped_answers_no_call_by_a_session_that_a_newer_one_has_followed() {
    let Some(server) = Postgres::start() else { return };
    let (stopped, other) = (one(&server).start(), one(&server).start());
    session(&stopped, "older");
    assert_eq!(api(&stopped, "a").get("/dev-tasks").body, b"older");
    stopped.signal(Signal::SIGSTOP);
    session(&other, "newer");
    wait_until("the newer one answers", || api(&other, "a").get("/dev-tasks").body == b"newer");
    // What a look that had begun before may still hold back, is over.
    thread::sleep(Duration::from_secs(1));
    // They wait in its listener's queue.
    let waiting = api(&stopped, "a");
    let calls: Vec<_> = (0..100)
        .map(|_| {
            let api = waiting.clone();
            thread::spawn(move || api.get("/dev-tasks"))
        })
        .collect();
    wait_until("all are sent", || waiting_at(stopped.address) == calls.len());
    stopped.signal(Signal::SIGCONT);
    for call in calls {
        let answer = call.join().expect("a client");
        // Or nobody: then it is told to ask again.
        assert!(answer.status() != 200 || answer.body == b"newer", "{}", String::from_utf8_lossy(&answer.body));
    }
}
