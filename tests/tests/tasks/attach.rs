//! Attached clients: terminals and pipes, several at once, slow ones, silent ones, and those that leave.

use serde_json::{Value, json};
use tests::attach::Attach;

use super::api;

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
