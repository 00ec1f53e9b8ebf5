//! Calls of the gateway on streams of the session.

use protocol::session::close;
use tests::gateway::Gateway;

use super::{FAST, linked, post};

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: sandbox\r\nconnection: close\r\n\r\n").into_bytes()
}

#[test]
fn the_gateway_calls_the_api_on_streams_without_a_token_and_without_a_port() {
    let gateway = Gateway::new();
    // No token file: from the network the API is closed to everybody.
    let supervisor = linked(&gateway).start();
    supervisor.wait_ready();
    let mut session = gateway.welcome(FAST);
    assert_eq!(session.hello().capabilities, ["stream"]);
    let answer = String::from_utf8(session.call(&get("/readyz"))).expect("text");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let answer = session.call(&post("/dev-tasks?wait=30s", r#"{"argv":["echo","over the session"]}"#));
    let answer = String::from_utf8(answer).expect("text");
    assert!(answer.starts_with("HTTP/1.1 201 ") && answer.contains("\"succeeded\""), "{answer}");
    assert_eq!(supervisor.get("/dev-tasks").status, 403);
}

#[test]
fn a_large_answer_comes_whole_in_pieces_within_its_credit_and_beats_go_between() {
    let gateway = Gateway::new();
    let _supervisor = linked(&gateway).start();
    let mut session = gateway.welcome(FAST);
    let script = r#"{"task_id":"large","script":"head -c 3000000 /dev/zero"}"#;
    session.call(&post("/dev-tasks?wait=30s", script));
    let answer = session.call(&get("/dev-tasks/large/logs?stream=stdout"));
    let zeros = answer.iter().filter(|byte| **byte == 0).count();
    assert_eq!(zeros, 3_000_000);
    session.beat();
}

#[test]
fn a_binary_message_that_is_no_frame_ends_the_session_and_one_of_a_later_protocol_does_not() {
    let gateway = Gateway::new();
    let _supervisor = linked(&gateway).start();
    let mut session = gateway.welcome(FAST);
    session.send_binary(&[99, 1, 0, 0, 0]);
    session.beat();
    session.send_binary(&[3, 1]);
    assert_eq!(session.rest().1, Some(close::MALFORMED));
}
