//! What somebody sends to the gateway's API: bodies, queries, paths and headers.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use gateway::tokens::is_name;
use gateway::untrusted;
use protocol::session::{Command, FromGateway, encode};
use serde_json::Value;

use super::{text, texts};
use crate::Target;

pub(crate) const TARGET: Target = Target { name: "bodies", longest: 4096, run, seeds };

/// The sandbox that is called.
const ID: &str = "a";

fn run(data: &[u8]) {
    sandbox(data);
    command(data);
    let Some(text) = text(data) else { return };
    queries(text);
    path(text);
    headers(text);
}

fn sandbox(body: &[u8]) {
    let Some((id, spec)) = untrusted::sandbox(body) else { return };
    let asked: Value = serde_json::from_slice(body).expect("an object");
    assert!(matches!(asked["resources"], Value::Null | Value::Object(_)), "fields without names");
    assert!(asked["tolerations"].as_array().into_iter().flatten().all(Value::is_object), "fields without names");
    assert!(is_name(&id), "it becomes a part of paths and of the names of objects");
    // What is kept of it is compared as text, so that whoever asks for the same gets the same sandbox.
    let mut kept = serde_json::to_value(&spec).expect("JSON");
    kept["id"] = id.as_str().into();
    assert_eq!(untrusted::sandbox(kept.to_string().as_bytes()), Some((id, spec.clone())));
    if spec.check_env().is_ok() {
        let operators = |name: &String| name.starts_with("SUPERVISOR_") || name.contains(['=', '\0', ' ']);
        assert!(!spec.env.keys().any(operators), "a variable that sets up the supervisor, or is none");
    }
}

fn command(body: &[u8]) {
    let Some((verb, text)) = untrusted::command(body) else { return };
    assert!(body.trim_ascii_start().starts_with(b"{"), "fields without names");
    assert!(is_name(&verb));
    let body = serde_json::from_str(&text).expect("what is kept is told");
    let command = Command { n: 1, after: None, verb, body };
    let told = FromGateway::decode(&encode(&FromGateway::Command(Box::new(command.clone()))));
    let Ok(FromGateway::Command(told)) = told else { panic!("the sandbox cannot read it, however often it is told") };
    assert_eq!(told.verb, command.verb);
}

fn queries(text: &str) {
    if let Some(wait) = untrusted::wait(text) {
        assert!(!wait.is_zero() && wait <= Duration::from_secs(3600));
    }
    if let Some(page) = untrusted::page(text) {
        assert!(page.after >= 0 && (1..=1000).contains(&page.limit));
    }
    if let Some(limit) = untrusted::list(text) {
        assert!((1..=1000).contains(&limit));
    }
}

fn path(text: &str) {
    // As the router lets it through.
    let Some(uri) = text.parse::<Uri>().ok().filter(|uri| uri.path().starts_with("/v1/sandboxes/a/")) else { return };
    let inner = untrusted::inner(&uri, ID).expect("its id is written as it is");
    assert!(inner.authority().is_none(), "another server than the sandbox");
    let asked = uri.path_and_query().map(ToString::to_string).unwrap_or_default();
    assert!(asked.ends_with(inner.path_and_query().map_or("", |path| path.as_str())), "a path that was not asked for");
}

fn headers(text: &str) {
    let headers: HeaderMap = text.lines().filter_map(header).collect();
    if let Some(id) = untrusted::last_event(&headers) {
        assert!(id >= 0);
    }
    let seen = untrusted::passed_on(headers.clone());
    assert!(!seen.contains_key(header::AUTHORIZATION) && !seen.contains_key(header::COOKIE), "the user's own token");
    assert!(!seen.contains_key(header::CONNECTION) && !seen.contains_key(header::TRANSFER_ENCODING));
    let of_connection = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    for name in of_connection.flat_map(|value| value.split(',')) {
        assert!(!seen.contains_key(name.trim()), "{name} speaks of one connection");
    }
    assert_eq!(untrusted::passed_on(seen.clone()), seen, "it passes only once");
    assert!(
        seen.iter().all(|(name, value)| headers.get_all(name).iter().any(|sent| sent == value)),
        "nobody has sent it"
    );
}

fn header(line: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = line.split_once(": ")?;
    Some((name.parse().ok()?, value.parse().ok()?))
}

fn seeds() -> Vec<Vec<u8>> {
    texts(&[
        r#"{"id":"a","image":"x","argv":["a","b"],"env":{"A":"1"},"resources":{"requests":{"cpu":"500m"},"limits":{"memory":"1Gi"}},"node_selector":{"a":"b"},"tolerations":[{"key":"a","value":"b","effect":"NoExecute"}],"runtime_class":"r","labels":{"a":"b"},"annotations":{"a":"b"},"image_pull_secrets":["s"],"active_deadline_seconds":60,"workspace_size":"2Gi"}"#,
        r#"{"do":"task.create","body":{"argv":["true"],"limits":{"output_bytes":1e3},"labels":{"a":"\u00e4"}}}"#,
        r#"{"do":"stop","body":[[[[1e999]]]]}"#,
        r#"{"do":"drain"}"#,
        "wait=300s",
        "class=logs&cursor=9223372036854775807&limit=1000&follow=true",
        "status=gone&cursor=a%2Eb&limit=1",
        "http://gateway.example/v1/sandboxes/a/dev-tasks/t/logs?stream=stdout",
        "/v1/sandboxes/a//other.example/files",
        "Authorization: Bearer x\nCookie: a=b\nConnection: close, X-One\nX-One: 1\nTransfer-Encoding: chunked\nLast-Event-ID: 7\nRange: bytes=0-1\nchaperone-passed-on: 1",
    ])
}
