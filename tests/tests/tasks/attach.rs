//! Attached clients: terminals and pipes, several at once, slow ones, silent ones, and those that leave.

use std::io::{Read, Write};

use serde_json::{Value, json};
use tests::attach::{Attach, UPGRADE, handshake};
use tests::tasks::{Answer, Api};
use tests::wait::wait_until;

use super::{api, supervisor};

/// A task on a terminal of 24 × 80.
fn terminal(script: &str) -> Value {
    json!({"script": script, "terminal": {"rows": 24, "cols": 80}})
}

/// An interactive shell with job control.
fn shell() -> Value {
    json!({
        "argv": ["bash", "--norc", "--noprofile", "-i"], "env": {"PS1": "$ "},
        "terminal": {"rows": 24, "cols": 80}
    })
}

#[test]
fn a_terminal_is_the_controlling_one_of_a_session_of_its_own_with_the_program_in_its_foreground() {
    let (_supervisor, api) = api();
    let id = api.start(terminal(
        "test -t 0 && test -t 1 && test -t 2 && echo terminal; \
         ps -o pid=,pgid=,sid=,tpgid= -p $$; echo $$; stty size; echo $TERM; read line; echo \"read $line\"",
    ));
    let mut client = Attach::to(&api, &id, "");
    assert_eq!(client.attached["terminal"], json!({"rows": 24, "cols": 80}));
    client.wait_text("xterm");
    let text = client.text();
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    assert_eq!(lines[0], "terminal");
    assert!(lines[1].split_whitespace().all(|id| id == lines[2]), "it leads them all: {lines:?}");
    assert_eq!(lines[3..5], ["24 80", "xterm-256color"]);
    client.type_in("hello\r");
    let exited = client.wait_word("exited");
    assert!(client.text().ends_with("hello\r\nread hello\r\n"), "all of it before the end: {:?}", client.text());
    assert_eq!((&exited["state"], &exited["exit_code"]), (&json!("succeeded"), &json!(0)));
    assert_eq!(client.to_end(), 1000);
    assert_eq!(api.output(&id, "stdout"), client.stdout, "what it showed is what is kept");
}

#[test]
fn control_c_interrupts_what_runs_in_the_foreground_and_nothing_else() {
    let (_supervisor, api) = api();
    let other = api.start(terminal("echo up; exec sleep 1000"));
    api.wait_output(&other, "up");
    let id = api.start(shell());
    let mut client = Attach::to(&api, &id, "");
    client.wait_text("$ ");
    client.type_in("sleep 1000 &\r");
    client.type_in("sh -c 'echo fore\"\"ground; exec sleep 1001'\r");
    client.wait_text("foreground");
    client.type_in([3]);
    client.type_in("kill -0 %1 && echo \"back\"ground lives\r");
    client.wait_text("background lives");
    client.type_in("exit 7\r");
    // A shell with jobs asks once more.
    client.type_in("exit 7\r");
    assert_eq!(client.wait_word("exited")["exit_code"], 7);
    assert_eq!(api.task(&other)["state"], "running");
}

#[test]
fn a_resize_reaches_the_program_and_every_client() {
    let (_supervisor, api) = api();
    let id = api.start(terminal("trap 'stty size' WINCH; echo up; while :; do sleep 0.05; done"));
    let (mut one, mut two) = (Attach::to(&api, &id, ""), Attach::to(&api, &id, "?read_only=true"));
    one.wait_text("up");
    one.say(json!({"resize": {"rows": 50, "cols": 132}}));
    one.wait_text("50 132");
    assert_eq!(two.wait_word("resized"), json!({"rows": 50, "cols": 132}));
    one.say(json!({"resize": {"rows": 0, "cols": 132}}));
    assert_eq!(one.wait_word("refused")["what"], "resize");
    two.say(json!({"resize": {"rows": 1, "cols": 1}}));
    assert_eq!(two.wait_word("refused")["why"], "this client only reads");
    assert_eq!(Attach::to(&api, &id, "").attached["terminal"], json!({"rows": 50, "cols": 132}));
}

#[test]
fn whoever_detaches_leaves_the_task_running_and_finds_it_where_it_was() {
    let (_supervisor, api) = api();
    let id = api.start(shell());
    let mut client = Attach::to(&api, &id, "?cursor=0");
    client.type_in("x=4\"\"2; echo set\"\" $x\r");
    client.wait_text("set 42");
    client.say(json!({"detach": true}));
    assert_eq!(client.to_end(), 1000);
    let seen = client.stdout.len();
    // Gone without a word.
    drop(Attach::to(&api, &id, ""));
    assert_eq!(api.task(&id)["state"], "running");
    let mut again = Attach::to(&api, &id, &format!("?cursor={seen}"));
    again.type_in("echo still\"\" $x; exit\r");
    again.wait_word("exited");
    assert!(again.text().contains("still 42"), "{:?}", again.text());
    assert_eq!([client.stdout, again.stdout].concat(), api.output(&id, "stdout"), "no byte twice, none missing");
}

#[test]
fn without_a_terminal_both_streams_are_shown_and_standard_input_is_written() {
    let (_supervisor, api) = api();
    let id = api.start(json!({"script": "cat; echo error >&2; exec cat >&2", "stdin_open": true}));
    let mut client = Attach::to(&api, &id, "");
    assert_eq!(client.attached["terminal"], Value::Null);
    client.type_in([0, 255, b'\n']);
    client.wait_text("\n");
    client.say(json!({"eof": true}));
    assert_eq!(client.wait_word("exited")["state"], "succeeded");
    assert_eq!((client.stdout, client.stderr), (vec![0, 255, b'\n'], b"error\n".to_vec()));
}

#[test]
fn every_client_has_its_own_place_in_the_same_bytes() {
    let (_supervisor, api) = api();
    let id = api.start(terminal("stty -echo; printf 0123456789; read line; printf abcdef"));
    api.wait_output(&id, "0123456789");
    let mut clients: Vec<Attach> = ["", "?cursor=4", "?tail=3", "?tail=0", "?cursor=10"]
        .iter()
        .map(|query| Attach::to(&api, &id, query))
        .collect();
    let begun: Vec<u64> = clients.iter().filter_map(|client| client.attached["cursor"].as_u64()).collect();
    assert_eq!(begun, [0, 4, 7, 10, 10]);
    clients[3].type_in("\r");
    for (client, seen) in clients.iter_mut().zip(["0123456789", "456789", "789", "", ""]) {
        assert_eq!(client.to_end(), 1000);
        assert_eq!(client.text(), format!("{seen}abcdef"));
    }
    let mut late = Attach::to(&api, &id, "?cursor=12");
    assert_eq!(late.to_end(), 1000);
    assert_eq!((late.text().as_str(), &late.attached["state"]), ("cdef", &json!("succeeded")), "also after the end");
}

#[test]
fn bytes_that_are_no_longer_kept_are_named_exactly() {
    let (_supervisor, api) = api();
    let script = "i=0; while [ $i -lt 2000 ]; do printf '%09d\n' $i; i=$((i+1)); done";
    let task = api.run(json!({"script": script, "limits": {"output_bytes": 4096}}));
    let all: String = (0..2000).map(|n| format!("{n:09}\n")).collect();
    let mut client = Attach::to(&api, task["task_id"].as_str().expect("an id"), "?cursor=0");
    assert_eq!(client.to_end(), 1000);
    let cuts: Vec<&Value> = client.words.iter().filter_map(|word| word.get("cut")).collect();
    let [cut] = cuts[..] else { panic!("one cut: {cuts:?}") };
    let (from, to) = (cut["from"].as_u64().expect("a byte") as usize, cut["to"].as_u64().expect("a byte") as usize);
    assert_eq!((to - from) as u64, task["output"]["cut_bytes"].as_u64().expect("a number"));
    assert_eq!(client.stdout, [&all.as_bytes()[..from], &all.as_bytes()[to..]].concat());
}

#[test]
fn a_client_that_gives_no_sign_of_life_is_let_go_and_one_that_does_stays() {
    let supervisor = supervisor().set("attach-silence", "1s").start();
    let api = Api::of(&supervisor);
    let id = api.start(json!({"argv": ["cat"], "stdin_open": true}));
    api.wait_state(&id, "running");
    let silent = Attach::to(&api, &id, "");
    // It types nothing; it only answers pings, because it reads.
    let mut lively = Attach::to(&api, &id, "");
    let lively = std::thread::spawn(move || {
        lively.wait_text("after");
        lively
    });
    let heard = String::from_utf8_lossy(&silent.only_listen()).into_owned();
    assert!(heard.contains("no sign of life"), "{heard:?}");
    assert_eq!(api.post(&format!("/dev-tasks/{id}/stdin"), "after\n").status(), 204);
    let mut lively = lively.join().expect("it is still attached");
    lively.say(json!({"eof": true}));
    assert_eq!(lively.wait_word("exited")["state"], "succeeded");
}

#[test]
fn a_client_that_never_reads_holds_back_neither_its_task_nor_others_and_costs_no_memory() {
    let supervisor = supervisor().set("task-output", "8MiB").start();
    let api = Api::of(&supervisor);
    let flood = |megabytes: u32| {
        terminal(&format!("stty raw -echo; echo up; head -c 1 >&2; head -c {megabytes}000000 /dev/zero"))
    };
    let warm = api.start(flood(20));
    api.wait_output(&warm, "up");
    api.post(&format!("/dev-tasks/{warm}/stdin"), "x");
    api.wait_end(&warm);
    let before = super::output::resident_kib(&supervisor);
    let id = api.start(flood(60));
    let stalled: Vec<Attach> = (0..5).map(|_| Attach::to(&api, &id, "")).collect();
    let mut reader = Attach::to(&api, &id, "?cursor=0");
    reader.wait_text("up");
    reader.type_in("x");
    let exited = reader.wait_word("exited");
    assert_eq!(exited["state"], "succeeded", "{exited}");
    let cut: u64 =
        reader.words.iter().filter_map(|word| Some(word["cut"]["to"].as_u64()? - word["cut"]["from"].as_u64()?)).sum();
    let total = api.task(&id)["output"]["stdout_bytes"].as_u64().expect("a number");
    assert_eq!(total, reader.stdout.len() as u64 + cut, "every byte was shown or named");
    assert_eq!(total, "up\n".len() as u64 + 1 + 60_000_000);
    let growth = super::output::resident_kib(&supervisor).saturating_sub(before);
    assert!(growth < 16 * 1024, "{growth} KiB for {} clients", stalled.len());
}

#[test]
fn what_is_typed_before_the_start_waits_for_it() {
    let supervisor = supervisor().set("task-concurrency", "1").start();
    let api = Api::of(&supervisor);
    let first = api.start(json!({"argv": ["cat"], "stdin_open": true}));
    let second = api.start(terminal("read line; echo \"read $line\""));
    let mut client = Attach::to(&api, &second, "");
    assert_eq!(client.attached["state"], "queued");
    client.say(json!({"resize": {"rows": 33, "cols": 44}}));
    client.type_in("ahead\r");
    assert_eq!(client.wait_word("resized")["rows"], 33);
    api.post(&format!("/dev-tasks/{first}/stdin/close"), "");
    client.wait_text("read ahead");
    assert_eq!(client.wait_word("exited")["exit_code"], 0);
}

#[test]
fn input_that_nobody_reads_waits_and_the_client_is_told_what_was_not_taken() {
    let (_supervisor, api) = api();
    let id = api.start(json!({"script": "echo up; exec sleep 1000", "stdin_open": true}));
    let mut client = Attach::to(&api, &id, "");
    client.wait_text("up");
    for _ in 0..8 {
        client.type_in([b'x'; 60_000]);
    }
    assert_eq!(api.task(&id)["state"], "running");
    assert_eq!(api.post(&format!("/dev-tasks/{id}/cancel?wait=60s"), "").status(), 200, "it keeps nobody waiting");
    assert_eq!(client.wait_word("exited")["state"], "cancelled");
    assert_eq!(client.to_end(), 1000);
    let mut late = Attach::to(&api, &id, "");
    assert_eq!((late.wait_word("exited")["state"].clone(), late.to_end()), (json!("cancelled"), 1000));
    let closed = api.start(json!({"script": "echo up; exec sleep 1000"}));
    let mut client = Attach::to(&api, &closed, "");
    client.wait_text("up");
    client.type_in("x");
    assert_eq!(client.wait_word("refused"), json!({"what": "input", "why": "standard input is closed"}));
}

#[test]
fn a_wrong_handshake_id_or_cursor_is_refused_with_its_status() {
    let (_supervisor, api) = api();
    let id = api.start(terminal("echo up; exec sleep 1000"));
    api.wait_output(&id, "up");
    let without = |name: &str| UPGRADE.into_iter().filter(|header| header.0 != name).collect::<Vec<_>>();
    let with = |name, value| [without(name), vec![(name, value)]].concat();
    let upgrade = UPGRADE.to_vec();
    for (query, headers, status, says) in [
        ("?cursor=9", &upgrade, 400, ("field", "cursor")),
        ("?cursor=-1", &upgrade, 400, ("field", "cursor")),
        ("?stderr_cursor=1", &upgrade, 400, ("field", "stderr_cursor")),
        ("?cursor=1&tail=1", &upgrade, 400, ("field", "tail")),
        ("?read_only=maybe", &upgrade, 400, ("field", "read_only")),
        ("?follow=true", &upgrade, 400, ("field", "follow")),
        ("", &without("Upgrade"), 426, ("upgrade", "websocket")),
        ("", &without("Connection"), 426, ("upgrade", "websocket")),
        ("", &with("Upgrade", "h2c"), 426, ("upgrade", "websocket")),
        ("", &without("Sec-WebSocket-Version"), 426, ("sec-websocket-version", "13")),
        ("", &with("Sec-WebSocket-Version", "8"), 426, ("sec-websocket-version", "13")),
        ("", &without("Sec-WebSocket-Key"), 400, ("field", "Sec-WebSocket-Key")),
        ("", &with("Sec-WebSocket-Key", "c2hvcnQ="), 400, ("field", "Sec-WebSocket-Key")),
    ] {
        let answer = refused(&api, &format!("/dev-tasks/{id}/attach{query}"), headers);
        assert_eq!(answer.status(), status, "{query} {headers:?}: {}", answer.json());
        let said = if says.0 == "field" { answer.field() } else { answer.header(says.0).to_string() };
        assert_eq!(said, says.1, "{query} {headers:?}");
    }
    assert_eq!(refused(&api, "/dev-tasks/unknown/attach", &UPGRADE).status(), 404);
    let path = format!("/dev-tasks/{id}/attach");
    assert_eq!(refused(&api.with_token(None), &path, &UPGRADE).status(), 401);
    assert_eq!(refused(&api.with_token(Some("wrong")), &path, &UPGRADE).status(), 401);
}

/// A handshake that is answered like any other request.
#[track_caller]
fn refused(api: &Api, path: &str, headers: &[(&str, &str)]) -> Answer {
    let (head, mut stream) = handshake(api, path, headers).expect("an answer");
    assert_ne!(head.status, 101, "{path} {headers:?}");
    let length = head.headers["content-length"].parse().expect("a length");
    let mut body = vec![0; length];
    stream.read_exact(&mut body).expect("the whole body");
    Answer { head, body }
}

#[test]
fn a_client_that_breaks_a_rule_is_told_which_and_the_task_runs_on() {
    let (_supervisor, api) = api();
    let id = api.start(terminal("echo up; exec sleep 1000"));
    api.wait_output(&id, "up");
    let closed = |offend: &dyn Fn(&mut Attach)| {
        let mut client = Attach::to(&api, &id, "");
        offend(&mut client);
        (client.to_end(), client.closed.clone().map(|(_, reason)| reason).unwrap_or_default())
    };
    let (code, why) = closed(&|client| client.type_in(vec![0; 64 * 1024 + 1]));
    assert!(code == 1009 && why.contains("65536"), "{code} {why}");
    for word in [json!({"size": 1}), json!("detach"), json!({"resize": {"rows": 70_000, "cols": 1}})] {
        let (code, why) = closed(&|client| client.say(word.clone()));
        assert!(code == 1008 && why.contains("no word"), "{word}: {code} {why}");
    }
    // A frame of a client is masked (RFC 6455, 5.1).
    let (code, _) = closed(&|client| client.stream().write_all(&[0x82, 1, b'x']).expect("it is read"));
    assert_eq!(code, 1002);
    assert_eq!(api.task(&id)["state"], "running");
}

#[test]
fn no_other_task_of_the_same_user_opens_a_terminal() {
    let (_supervisor, api) = api();
    let id = api.start(terminal("tty; exec sleep 1000"));
    api.wait_output(&id, "/dev/pts/");
    let name = String::from_utf8(api.output(&id, "stdout")).expect("a path");
    let name = name.trim();
    for attempt in
        [format!("echo intruder > {name}"), format!("head -c 1 < {name}"), format!("chmod 666 {name}; : <> {name}")]
    {
        let task = api.run(json!({"script": format!("{attempt} || exit 3")}));
        let said =
            String::from_utf8_lossy(&api.output(task["task_id"].as_str().expect("an id"), "stderr")).into_owned();
        assert!(task["state"] == "failed" && said.contains("busy"), "{attempt}: {said}");
    }
    let own = api.shell("script -qec 'test -t 0 && echo own' /dev/null < /dev/null");
    assert!(own.contains("own"), "it may make terminals of its own: {own:?}");
    assert!(!String::from_utf8_lossy(&api.output(&id, "stdout")).contains("intruder"));
}

#[test]
fn an_attached_client_keeps_its_place_among_the_connections_and_gives_it_back() {
    let (supervisor, api) = api();
    let id = api.start(terminal("echo up; exec sleep 1000"));
    api.wait_output(&id, "up");
    let attached = || supervisor.metric("supervisor_attached_clients");
    let first = Attach::to(&api, &id, "");
    assert_eq!(attached(), Some(1.0));
    drop(first);
    wait_until("nobody to be attached", || attached() == Some(0.0));
    let path = format!("/dev-tasks/{id}");
    let mut clients = Vec::new();
    let full = || api.try_call("GET", &path, &[], b"").is_err();
    while clients.len() < 128 {
        clients.push(Attach::to(&api, &id, ""));
    }
    assert!(full(), "every place is taken");
    clients.pop();
    wait_until("a place again", || !full());
}
