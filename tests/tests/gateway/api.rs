//! Sandboxes, their tokens and their events by REST.

use std::io::{BufRead, BufReader};

use protocol::session::{Class, FromSupervisor, Offline, OfflineAction, close};
use serde_json::{Value, json};
use tests::control_plane::{Gateway, token_of};
use tests::dialler::{Dialler, hello};
use tests::wait::wait_until;

fn status(gateway: &Gateway, sandbox: &str) -> String {
    gateway.api().get(&format!("/v1/sandboxes/{sandbox}")).json()["status"].as_str().unwrap_or_default().to_string()
}

/// 001-16.
#[test]
fn the_api_is_for_users_and_health_is_for_all() {
    let gateway = Gateway::start();
    for path in
        ["/v1/sandboxes", "/v1/sandboxes/a", "/v1/sandboxes/a/events", "/v1/sandboxes/a/dev-tasks", "/v1/nothing"]
    {
        assert_eq!(gateway.api().with_token(None).get(path).status(), 401, "{path}");
        let answer = gateway.api().with_token(Some(&token_of("a"))).get(path);
        assert_eq!(answer.status(), 401, "a sandbox is no user: {path}");
        assert_eq!(answer.header("content-type"), "application/problem+json");
    }
    for path in ["/livez", "/readyz", "/healthz", "/metrics"] {
        assert_eq!(gateway.api().with_token(None).get(path).status(), 200, "{path}");
    }
}

#[test]
fn a_token_is_taken_back_by_taking_its_line_out() {
    let gateway = Gateway::start();
    assert_eq!(gateway.api().get("/v1/sandboxes").status(), 200);
    let users = gateway.directory().join("users");
    std::fs::write(&users, "bob other\n").expect("our own file");
    assert_eq!(gateway.api().get("/v1/sandboxes").status(), 401);
    assert_eq!(gateway.api().with_token(Some("other")).get("/v1/sandboxes").status(), 200);
    // A broken file opens nothing, and says so in the log and not in the answer.
    std::fs::write(&users, "nonsense\n").expect("our own file");
    let answer = gateway.api().with_token(Some("other")).get("/v1/sandboxes");
    assert_eq!(answer.status(), 503);
    gateway.stderr.wait_text("line 1");
}

/// Found by reading: it made the sandbox anew.
#[test]
fn a_dial_that_is_under_way_does_not_outlive_the_deletion_of_its_sandbox() {
    let gateway = Gateway::start();
    let registered = gateway.api().call("PUT", "/v1/sandboxes/new-one", &[], b"").json();
    let token = registered["token"].as_str().expect("a token");
    let mut session = Dialler::upgrade(gateway.address, token).expect("an answer").expect("it may come");
    assert_eq!(gateway.api().call("DELETE", "/v1/sandboxes/new-one", &[], b"").status(), 204);
    session.send(&FromSupervisor::Hello(Box::new(hello("new-one"))));
    assert_eq!(session.close_code(), close::UNAUTHENTICATED);
    assert_eq!(gateway.api().get("/v1/sandboxes/new-one").status(), 404);
}

#[test]
fn a_registered_sandbox_gets_a_token_of_which_only_the_hash_is_stored() {
    let gateway = Gateway::start();
    let registered = gateway.api().call("PUT", "/v1/sandboxes/new-one", &[], b"");
    assert_eq!(registered.status(), 201);
    assert_eq!(status(&gateway, "new-one"), "new");
    let token = registered.json()["token"].as_str().expect("a token").to_string();
    let mut session = Dialler::upgrade(gateway.address, &token).expect("an answer").expect("admitted");
    session.send(&FromSupervisor::Hello(Box::new(hello("new-one"))));
    session.receive_until(|_| Some(()));
    assert_eq!(status(&gateway, "new-one"), "connected");
    for entry in std::fs::read_dir(gateway.directory()).expect("our own directory").flatten() {
        let bytes = std::fs::read(entry.path()).unwrap_or_default();
        let found = bytes.windows(token.len()).any(|window| window == token.as_bytes());
        assert!(!found, "the token stands in {}", entry.path().display());
    }
    // A new one ends what the old one was good for.
    assert_eq!(gateway.api().call("PUT", "/v1/sandboxes/new-one", &[], b"").status(), 200);
    let refused = Dialler::upgrade(gateway.address, &token).expect("an answer").err().expect("refused");
    assert_eq!(refused.status, 401);
}

#[test]
fn a_deleted_sandbox_is_forgotten_and_its_session_closed() {
    let gateway = Gateway::start();
    let (mut session, first) = Dialler::begin(&gateway, "a");
    session.send_records(Class::Logs, 1..=3);
    session.until_acknowledged(Class::Logs, 3);
    assert_eq!(gateway.api().call("DELETE", "/v1/sandboxes/a", &[], b"").status(), 204);
    assert_eq!(session.close_code(), close::UNAUTHENTICATED);
    assert_eq!(gateway.api().get("/v1/sandboxes/a").status(), 404);
    assert_eq!(gateway.api().call("DELETE", "/v1/sandboxes/a", &[], b"").status(), 404);
    // Its line is still in the token file, so it may come again; what was there is not.
    let (_session, second) = Dialler::begin(&gateway, "a");
    assert!(second.fence > first.fence && second.next.is_empty(), "{second:?}");
    assert!(gateway.events("a").is_empty());
}

#[test]
fn a_sandbox_is_connected_then_disconnected_then_expired_and_gone_when_it_said_so() {
    let gateway = Gateway::start();
    let with = |sandbox: &str, after_ms| {
        let offline = Some(Offline { after_ms, action: OfflineAction::Stop });
        Dialler::begin_with(&gateway, tests::dialler::hello(sandbox).tap(|hello| hello.offline = offline)).0
    };
    let (short, long, mut leaving) = (with("a", 300), with("b", 3_600_000), with("c", 300));
    assert_eq!([status(&gateway, "a"), status(&gateway, "b")], ["connected", "connected"]);
    leaving.send(&FromSupervisor::Bye { reason: "the sandbox stops".into(), last: true });
    drop((short, long));
    wait_until("c is gone", || status(&gateway, "c") == "gone");
    wait_until("b is away", || status(&gateway, "b") == "disconnected");
    wait_until("a is expired", || status(&gateway, "a") == "expired");
    let listed = |query: &str| {
        let page = gateway.api().get(&format!("/v1/sandboxes{query}")).json();
        let ids = page["sandboxes"].as_array().cloned().unwrap_or_default();
        ids.iter().filter_map(|sandbox| sandbox["id"].as_str().map(str::to_string)).collect::<Vec<_>>()
    };
    assert_eq!(listed("?status=expired"), ["a"]);
    assert_eq!(listed("?status=gone&limit=1"), ["c"]);
    assert_eq!(listed("?cursor=a&limit=1"), ["b"]);
    let (_session, _) = Dialler::begin(&gateway, "a");
    assert_eq!(status(&gateway, "a"), "connected");
}

/// A value, changed.
trait Tap: Sized {
    fn tap(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}

impl Tap for protocol::session::Hello {}

#[test]
fn a_follower_gets_what_was_and_what_comes_and_goes_on_where_it_was() {
    let gateway = Gateway::start();
    let (mut session, _) = Dialler::begin(&gateway, "a");
    session.send_records(Class::Lifecycle, 1..=2);
    session.until_acknowledged(Class::Lifecycle, 2);
    let follow = |headers: &[(&str, &str)]| {
        let (head, body) = gateway
            .api()
            .open("GET", "/v1/sandboxes/a/events?follow=true&class=lifecycle", headers, b"")
            .expect("open");
        assert_eq!((head.status, head.headers["content-type"].as_str()), (200, "text/event-stream"));
        let lines = BufReader::new(body).lines().map_while(Result::ok);
        lines.filter_map(|line| serde_json::from_str::<Value>(line.strip_prefix("data: ")?).ok())
    };
    let mut first = follow(&[]);
    assert_eq!(first.by_ref().take(2).filter_map(|event| event["seq"].as_i64()).collect::<Vec<_>>(), [1, 2]);
    session.send_records(Class::Logs, 1..=1);
    session.send_records(Class::Lifecycle, 3..=3);
    let third = first.next().expect("what comes");
    assert_eq!((third["seq"].as_i64(), third["record"]["kind"].as_str()), (Some(3), Some("test.counted")));
    let cursor = third["cursor"].as_str().expect("a cursor").to_string();
    drop(first);
    session.send_records(Class::Lifecycle, 4..=4);
    let mut again = follow(&[("Last-Event-ID", &cursor)]);
    assert_eq!(again.next().expect("the next")["seq"], json!(4));
}

#[test]
fn what_is_wrong_with_a_request_is_named() {
    let gateway = Gateway::start();
    drop(Dialler::begin(&gateway, "a"));
    for (path, field) in [
        ("/v1/sandboxes?limit=0", "limit"),
        ("/v1/sandboxes?status=tired", "status"),
        ("/v1/sandboxes?limit=1&limit=2", "limit"),
        ("/v1/sandboxes?color=red", "color"),
        ("/v1/sandboxes/a/events?class=poems", "class"),
        ("/v1/sandboxes/a/events?cursor=-1", "cursor"),
        ("/v1/sandboxes/a/events?follow=maybe", "follow"),
        ("/v1/sandboxes/a%20b", "id"),
        ("/v1/sandboxes/a/commands/x", "n"),
    ] {
        let answer = gateway.api().get(path);
        assert_eq!((answer.status(), answer.field().as_str()), (400, field), "{path}: {}", answer.json());
    }
    assert_eq!(gateway.api().post("/v1/sandboxes/a/commands", "{").status(), 400);
    assert_eq!(gateway.api().post("/v1/sandboxes/a/commands", r#"{"do":"a b"}"#).field(), "do");
    assert_eq!(gateway.api().post("/v1/sandboxes/z/commands", r#"{"do":"drain"}"#).status(), 404);
    assert_eq!(gateway.api().get("/v1/sandboxes/z/events").status(), 404);
    assert_eq!(gateway.api().get("/v1/sandboxes/a/nothing").status(), 404);
    assert_eq!(gateway.api().call("PATCH", "/v1/sandboxes", &[], b"").status(), 405);
    assert_eq!(gateway.api().post("/v1/sandboxes", "").status(), 400);
    assert_eq!(gateway.api().post("/v1/sandboxes", r#"{"id":"a b"}"#).field(), "id");
    assert_eq!(gateway.api().post("/v1/sandboxes", r#"{"id":"z"}"#).status(), 501, "it has no backend");
}
