//! Output by cursor, by limit, followed, resumed and cut; slow readers and floods.

use std::io::Read;

use serde_json::{Value, json};
use tests::output::noise;
use tests::processes;
use tests::supervisor::Supervisor;
use tests::tasks::Api;
use tests::wait::wait_until;

use super::{api, supervisor};

#[track_caller]
fn id(task: &Value) -> String {
    task["task_id"].as_str().expect("an id").to_string()
}

/// Base64 of the RFC, decoded by the program that everybody has.
fn decoded(text: &str) -> Vec<u8> {
    use std::io::Write;
    use std::process::{Command, Stdio};
    let mut child =
        Command::new("base64").arg("-d").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("base64");
    let mut input = child.stdin.take().expect("a pipe");
    let text = text.to_string();
    std::thread::spawn(move || input.write_all(text.as_bytes()));
    child.wait_with_output().expect("its output").stdout
}

#[test]
fn every_byte_comes_back_by_stream_cursor_and_limit() {
    let (supervisor, api) = api();
    let bytes = noise(3_000_000);
    std::fs::write(supervisor.paths().workspace.join("noise"), &bytes).expect("our own directory");
    let task = api.run(json!({"script": "cat noise; head -c 10 noise >&2"}));
    let logs = format!("/dev-tasks/{}/logs", id(&task));
    assert_eq!(task["output"], json!({"stdout_bytes": 3_000_000, "stderr_bytes": 10, "cut_bytes": 0}));
    assert!(api.get(&logs).body == bytes);
    assert!(api.get(&format!("{logs}?stream=stderr")).body == bytes[..10]);
    for (cursor, limit) in [(0, 1), (1, 0), (65_535, 2), (2_999_999, 5), (3_000_000, 5), (123_456, 1_500_000)] {
        let answer = api.get(&format!("{logs}?cursor={cursor}&limit={limit}"));
        let end = (cursor + limit).min(bytes.len());
        assert!(answer.body == bytes[cursor..end], "{limit} from {cursor}");
        assert_eq!(answer.header("output-cursor"), cursor.to_string());
        assert_eq!((answer.header("output-total"), answer.header("output-cut")), ("3000000", "0"));
    }
}

#[test]
fn a_follower_sees_output_as_it_comes_until_the_task_ends() {
    let (_supervisor, api) = api();
    let script = "while read line; do echo \"$line\"; done";
    let id = api.start(json!({"script": script, "stdin_open": true}));
    api.wait_state(&id, "running");
    let (head, mut body) = api.open("GET", &format!("/dev-tasks/{id}/logs?follow=true"), &[], b"").expect("an answer");
    assert_eq!((head.status, head.headers["content-type"].as_str()), (200, "application/octet-stream"));
    for number in 0..5 {
        api.post(&format!("/dev-tasks/{id}/stdin"), format!("line {number}\n"));
        assert_eq!(body.line().expect("open").as_deref(), Some(format!("line {number}").as_str()));
    }
    api.post(&format!("/dev-tasks/{id}/stdin/close"), "");
    assert_eq!(body.line().expect("a proper end"), None);
}

#[test]
fn events_carry_bytes_and_a_reader_resumes_where_it_was() {
    let (_supervisor, api) = api();
    let id = api.start(json!({"script": "printf 'one\\377\\000'; read line; printf two", "stdin_open": true}));
    let path = format!("/dev-tasks/{id}/logs?follow=true&cursor=0");
    let events = ("Accept", "text/event-stream");
    let (head, mut body) = api.open("GET", &path, &[events], b"").expect("an answer");
    assert_eq!(head.headers["content-type"], "text/event-stream");
    let first = body.event().expect("open").expect("an event");
    assert_eq!((first["event"].as_str(), first["id"].as_str()), ("output", "5"));
    assert_eq!(decoded(&first["data"]), b"one\xff\0");
    drop(body);
    api.post(&format!("/dev-tasks/{id}/stdin/close"), "");
    // The same address, as a browser's event source reconnects.
    let resumed = api.call("GET", &path, &[events, ("Last-Event-ID", &first["id"])], b"");
    assert_eq!(
        String::from_utf8_lossy(&resumed.body),
        "event: output\nid: 8\ndata: dHdv\n\nevent: end\nid: 8\ndata:\n\n"
    );
    let bad = api.call("GET", &path, &[events, ("Last-Event-ID", "x")], b"");
    assert_eq!((bad.status(), bad.field().as_str()), (400, "Last-Event-ID"));
}

#[test]
fn over_its_limit_head_and_tail_are_kept_and_what_is_missing_is_said() {
    let (_supervisor, api) = api();
    let script = "i=0; while [ $i -lt 2000 ]; do printf '%09d\\n' $i; i=$((i+1)); done";
    let task = api.run(json!({"script": script, "limits": {"output_bytes": 4096}}));
    let all: String = (0..2000).map(|n| format!("{n:09}\n")).collect();
    let cut = task["output"]["cut_bytes"].as_u64().expect("a number");
    assert_eq!(task["output"]["stdout_bytes"], 20_000);
    let logs = format!("/dev-tasks/{}/logs", id(&task));
    let whole = api.get(&logs);
    assert!(whole.body.len() as u64 + cut == 20_000 && whole.body.len() <= 4096, "{} and {cut}", whole.body.len());
    let (from, to) = whole.header("output-gap").split_once('-').expect("the gap is named");
    let (from, to): (usize, usize) = (from.parse().expect("a number"), to.parse().expect("a number"));
    assert_eq!((to - from) as u64, cut);
    assert!(from >= 2048, "the first half of the limit is the head");
    assert!(whole.body == [&all.as_bytes()[..from], &all.as_bytes()[to..]].concat());
    let moved = api.get(&format!("{logs}?cursor={}&limit=10", from + 1));
    assert_eq!(moved.header("output-cursor"), to.to_string());
    assert!(moved.body == all.as_bytes()[to..to + 10]);

    let events = api.call("GET", &logs, &[("Accept", "text/event-stream")], b"");
    let text = String::from_utf8(events.body).expect("events are text");
    assert_eq!(text.matches("event: cut\n").count(), 1);
    assert!(text.contains(&format!("event: cut\nid: {to}\ndata: {{\"from\":{from},\"to\":{to}}}\n\n")), "{text}");
}

#[test]
fn a_reader_of_plain_bytes_that_falls_into_a_new_cut_is_broken_off() {
    let supervisor = supervisor().set("task-output", "1MiB").start();
    let api = Api::of(&supervisor);
    let script = "head -c 700000 /dev/zero; read line; head -c 20000000 /dev/zero";
    let id = api.start(json!({"script": script, "stdin_open": true}));
    wait_until("its head", || api.output(&id, "stdout").len() == 700_000);
    let (_, mut body) = api.open("GET", &format!("/dev-tasks/{id}/logs?follow=true"), &[], b"").expect("an answer");
    body.read_exact(&mut [0; 1000]).expect("its first bytes");
    // Stopped here while the rest is written and most of it is cut.
    api.post(&format!("/dev-tasks/{id}/stdin/close"), "");
    assert!(api.wait_end(&id)["output"]["cut_bytes"].as_u64() > Some(10_000_000));
    let mut rest = Vec::new();
    let end = body.read_to_end(&mut rest);
    let in_order = rest.len() >= 19_000_000;
    assert!(end.is_err() || in_order, "{} bytes came as if they were all", rest.len());
}

/// A megabyte a line, so that a shell writes fast.
fn flood(megabytes: usize) -> Value {
    json!({"script": format!("head -c {megabytes}000000 /dev/zero")})
}

#[test]
fn a_stalled_reader_slows_neither_its_task_nor_another_reader() {
    let (_supervisor, api) = api();
    let id = api.start(json!({"script": "read line; head -c 40000000 /dev/zero", "stdin_open": true}));
    let path = format!("/dev-tasks/{id}/logs?follow=true");
    let stalled: Vec<_> = (0..5).map(|_| api.open("GET", &path, &[], b"").expect("an answer")).collect();
    let (_, mut reader) = api.open("GET", &path, &[], b"").expect("an answer");
    api.post(&format!("/dev-tasks/{id}/stdin/close"), "");
    let mut read = Vec::new();
    reader.read_to_end(&mut read).expect("a proper end");
    assert_eq!(read.len(), 40_000_000);
    let task = api.wait_end(&id);
    assert_eq!((&task["state"], &task["output"]["stdout_bytes"]), (&json!("succeeded"), &json!(40_000_000)));
    for (_, mut body) in stalled {
        read.clear();
        body.read_to_end(&mut read).expect("at its own pace");
        assert_eq!(read.len(), 40_000_000);
    }
}

pub(super) fn resident_kib(supervisor: &Supervisor) -> u64 {
    let text = processes::status(supervisor.pid(), "VmRSS").unwrap_or_default();
    text.split(' ').next().and_then(|n| n.parse().ok()).expect("a number")
}

#[test]
fn a_flood_leaves_memory_flat_and_health_answers() {
    let supervisor = supervisor().set("task-output", "8MiB").start();
    let api = Api::of(&supervisor);
    api.run(flood(20));
    let before = resident_kib(&supervisor);
    let ids: Vec<String> = (0..3).map(|_| api.start(flood(300))).collect();
    let mut highest = 0;
    while ids.iter().any(|id| api.task(id)["finished_at"].is_null()) {
        assert_eq!(supervisor.get("/readyz").status, 200);
        highest = highest.max(resident_kib(&supervisor));
    }
    let growth = highest.saturating_sub(before);
    println!("goal=4096 measured={growth} KiB of growth");
    // The number is the benchmark's; this is the order of magnitude of one that keeps the flood.
    assert!(growth < 32 * 1024, "{growth} KiB");
    for id in ids {
        let task = api.task(&id);
        assert_eq!(task["output"]["stdout_bytes"], 300_000_000, "{task}");
        assert!(task["output"]["cut_bytes"].as_u64() >= Some(300_000_000 - 8 * 1024 * 1024), "{task}");
    }
}

#[test]
fn output_of_a_task_that_waits_or_wrote_nothing_is_empty() {
    let supervisor = supervisor().set("task-concurrency", "1").start();
    let api = Api::of(&supervisor);
    let first = api.start(json!({"script": "read line", "stdin_open": true}));
    let second = api.start(json!({"script": "echo late"}));
    assert_eq!(api.output(&first, "stdout"), b"");
    assert_eq!(api.output(&second, "stderr"), b"");
    let (_, mut body) = api.open("GET", &format!("/dev-tasks/{second}/logs?follow=true"), &[], b"").expect("an answer");
    api.post(&format!("/dev-tasks/{first}/stdin/close"), "");
    assert_eq!(body.line().expect("open").as_deref(), Some("late"), "who follows a queued task waits for it");
}
