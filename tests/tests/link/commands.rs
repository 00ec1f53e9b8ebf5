//! Commands of the gateway: applied once, one after the other, and what became of them is told until it is stored.

use nix::sys::signal::Signal;
use protocol::session::{COMMANDS, Class, Command, FromGateway, FromSupervisor, Outcome, close};
use serde_json::{Value, json};
use tests::gateway::{Gateway, Session};
use tests::strace::supervisor_without_memory;
use tests::supervisor::Supervisor;
use tests::tasks::Api;
use tests::wait::wait_until;

use super::records::take;
use super::{SLOW, linked};

fn give(session: &mut Session, n: i64, verb: &str, body: Value) {
    session.send(&FromGateway::Command(Box::new(Command { n, after: None, verb: verb.into(), body })));
}

/// The next report of what became of commands.
fn applied(session: &mut Session) -> (i64, Vec<Outcome>) {
    loop {
        if let FromSupervisor::Applied { n, outcomes, .. } = session.frame() {
            return (n, outcomes);
        }
    }
}

/// What became of this one.
fn outcome(session: &mut Session, n: i64) -> Outcome {
    loop {
        if let Some(outcome) = applied(session).1.into_iter().find(|outcome| outcome.n == n) {
            return outcome;
        }
    }
}

fn task_ids(supervisor: &Supervisor) -> Vec<String> {
    let tasks = Api::of(supervisor).list("");
    tasks.iter().map(|task| task["task_id"].as_str().unwrap_or_default().to_string()).collect()
}

#[test]
fn a_command_makes_a_task_and_another_one_cancels_it() {
    let gateway = Gateway::new();
    let supervisor = linked(&gateway).token().start();
    supervisor.wait_ready();
    let mut session = gateway.welcome(SLOW);
    give(&mut session, 1, "task.create", json!({ "task_id": "long", "argv": ["sleep", "1000"] }));
    let made = outcome(&mut session, 1);
    assert!(made.ok, "{made:?}");
    assert_eq!(made.body["task_id"], "long");
    Api::of(&supervisor).wait_state("long", "running");
    give(&mut session, 2, "task.cancel", json!({ "task_id": "long" }));
    assert!(outcome(&mut session, 2).ok);
    Api::of(&supervisor).wait_state("long", "cancelled");
    assert_eq!(supervisor.metric("supervisor_link_commands_total{do=\"task.create\",outcome=\"applied\"}"), Some(1.0));
}

#[test]
fn a_command_that_comes_again_after_a_kill_makes_no_second_task() {
    let gateway = Gateway::new();
    let mut supervisor = linked(&gateway).token().start();
    supervisor.wait_ready();
    let mut session = gateway.welcome(SLOW);
    give(&mut session, 1, "task.create", json!({ "argv": ["true"] }));
    let made = outcome(&mut session, 1);
    supervisor.signal(Signal::SIGKILL);
    supervisor.wait_exit();
    let state = supervisor.paths().state.clone();
    let gateway = Gateway::new();
    let again = linked(&gateway).token().set("state-dir", state.clone()).start();
    again.wait_ready();
    let mut session = gateway.welcome(SLOW);
    assert_eq!(session.hello().applied, 1);
    assert_eq!(applied(&mut session), (1, vec![made.clone()]), "it was not acknowledged, so it is told again");
    // It comes again all the same, and so does a later one, which is what is answered.
    give(&mut session, 1, "task.create", json!({ "argv": ["true"] }));
    give(&mut session, 2, "task.cancel", json!({ "task_id": made.body["task_id"] }));
    assert_eq!(applied(&mut session).0, 2);
    assert_eq!(task_ids(&again).len(), 1);
    drop((session, again));
    // As a crash between the task's record and the command's leaves it.
    std::fs::remove_file(state.join("commands.json")).expect("it was kept");
    let gateway = Gateway::new();
    let third = linked(&gateway).token().set("state-dir", state).start();
    third.wait_ready();
    let mut session = gateway.welcome(SLOW);
    assert_eq!(session.hello().applied, 0);
    give(&mut session, 1, "task.create", json!({ "argv": ["true"] }));
    assert_eq!(outcome(&mut session, 1).body["task_id"], made.body["task_id"], "the same task");
    assert_eq!(task_ids(&third).len(), 1);
}

/// Found by reading: it was taken for none, so that an end of the sandbox would have come again.
#[test]
fn what_was_done_before_and_cannot_be_seen_for_want_of_memory_is_asked_for_at_the_next_start() {
    let gateway = Gateway::new();
    let mut first = linked(&gateway).start();
    first.wait_ready();
    let mut session = gateway.welcome(SLOW);
    give(&mut session, 1, "upgrade", Value::Null);
    outcome(&mut session, 1);
    first.signal(Signal::SIGKILL);
    first.wait_exit();
    let state = first.paths().state.clone();
    let gateway = Gateway::new();
    let start = || linked(&gateway).set("state-dir", state.clone());
    let scratch = tests::binaries::scratch();
    for file in ["run.json", "commands.json"] {
        let Some(program) = supervisor_without_memory(scratch.path(), "%file", file) else { return };
        let mut without = start().program(program).start();
        assert_eq!(without.wait_code(), 75, "{file}");
        without.stderr.to_end();
        assert!(without.stderr.text().contains(&format!("state file {file}")), "{}", without.stderr.text());
    }
    let last = start().start();
    assert_eq!(gateway.welcome(SLOW).hello().applied, 1);
    assert!(last.health().to_string().contains("lost with the container while running"), "{}", last.health());
}

#[test]
fn an_outcome_is_told_in_each_session_until_the_gateway_has_stored_it() {
    let gateway = Gateway::new();
    let supervisor = linked(&gateway).start();
    supervisor.wait_ready();
    let mut session = gateway.welcome(SLOW);
    give(&mut session, 1, "upgrade", Value::Null);
    give(&mut session, 2, "task.cancel", json!({ "task_id": "nobody" }));
    let upgrade = outcome(&mut session, 1);
    assert_eq!((upgrade.ok, upgrade.reason.as_str()), (false, "unsupported"));
    drop(session);
    let mut session = gateway.welcome(SLOW);
    let told: Vec<i64> = applied(&mut session).1.iter().map(|outcome| outcome.n).collect();
    assert_eq!(told, [1, 2]);
    session.send(&FromGateway::Ack { acks: [].into(), applied: Some(1) });
    // Read after the acknowledgement, since both come on one connection.
    give(&mut session, 3, "drain", json!({ "hard": true }));
    let refused = outcome(&mut session, 3);
    assert!(!refused.ok && refused.reason.contains("no arguments"), "{refused:?}");
    drop(session);
    let mut session = gateway.welcome(SLOW);
    let told: Vec<i64> = applied(&mut session).1.iter().map(|outcome| outcome.n).collect();
    assert_eq!(told, [2, 3]);
}

#[test]
fn a_refused_command_says_why_and_leaves_nothing() {
    let gateway = Gateway::new();
    let supervisor = linked(&gateway).token().start();
    supervisor.wait_ready();
    let mut session = gateway.welcome(SLOW);
    let wrong = [
        ("task.create", json!({ "argv": [] }), "argv"),
        ("task.create", json!({ "argv": ["true"], "colour": "red" }), "colour"),
        ("task.create", Value::Null, "body"),
        ("task.cancel", json!({ "task_id": "no-such" }), "no such task"),
        ("task.cancel", json!({ "task_id": "../../files" }), "task_id"),
        ("task.cancel", json!({}), "task_id"),
        ("stop", json!("now"), "no arguments"),
    ];
    for ((verb, body, why), n) in wrong.into_iter().zip(1..) {
        give(&mut session, n, verb, body.clone());
        let outcome = outcome(&mut session, n);
        assert!(!outcome.ok && outcome.reason.contains(why), "{verb} {body}: {outcome:?}");
    }
    assert_eq!(task_ids(&supervisor), Vec::<String>::new());
    assert_eq!(supervisor.health()["status"], "ready");
}

#[test]
fn a_gateway_with_more_commands_under_way_than_may_be_is_left() {
    let gateway = Gateway::new();
    let supervisor = linked(&gateway).start();
    supervisor.wait_ready();
    let mut session = gateway.welcome(SLOW);
    for n in 1..=8 * COMMANDS as i64 {
        // The supervisor may have closed already.
        let command =
            FromGateway::Command(Box::new(Command { n, after: None, verb: "upgrade".into(), body: Value::Null }));
        if !session.try_send(&command) {
            break;
        }
    }
    assert_eq!(session.rest().1, Some(close::MALFORMED));
    wait_until("the end is counted", || {
        supervisor.metric("supervisor_link_ends_total{reason=\"commands\"}") == Some(1.0)
    });
    gateway.welcome(SLOW);
}

#[test]
fn a_drain_lets_running_tasks_end_and_then_stops_the_sandbox() {
    let gateway = Gateway::new();
    let mut supervisor = linked(&gateway).token().start();
    supervisor.wait_ready();
    let mut session = gateway.welcome(SLOW);
    let api = Api::of(&supervisor);
    api.start(json!({ "task_id": "last", "argv": ["cat"], "stdin_open": true }));
    api.wait_state("last", "running");
    give(&mut session, 1, "drain", Value::Null);
    assert!(outcome(&mut session, 1).ok);
    wait_until("not ready", || supervisor.get("/readyz").status == 503);
    wait_until("no new task", || api.post("/dev-tasks", r#"{"argv":["true"]}"#).status() == 503);
    assert_eq!(api.task("last")["state"], "running", "it may go on");
    assert!(!supervisor.has_ended());
    api.post("/dev-tasks/last/stdin/close", "");
    let (mut last, mut kinds) = (0, Vec::new());
    take(&mut session, Class::Lifecycle, &mut last, |record| {
        kinds.push(record.kind.clone());
        record.kind == "supervisor.stopped"
    });
    for kind in ["supervisor.draining", "task.succeeded", "supervisor.stopping"] {
        assert!(kinds.iter().any(|seen| seen == kind), "{kind} is missing in {kinds:?}");
    }
    session.rest();
    assert_eq!(supervisor.wait_code(), 143);
}

#[test]
fn a_stop_ends_the_sandbox_as_a_signal_does_and_does_not_come_again() {
    let gateway = Gateway::new();
    let mut supervisor = linked(&gateway).start();
    supervisor.wait_ready();
    let mut session = gateway.welcome(SLOW);
    give(&mut session, 1, "stop", json!({}));
    let (frames, _) = session.rest();
    let told =
        |frame: &FromSupervisor| matches!(frame, FromSupervisor::Applied { n: 1, outcomes, .. } if outcomes[0].ok);
    assert!(frames.iter().any(told), "{frames:?}");
    assert_eq!(supervisor.wait_code(), 143);
    let state = supervisor.paths().state.clone();
    let gateway = Gateway::new();
    let again = linked(&gateway).set("state-dir", state).start();
    again.wait_ready();
    assert_eq!(gateway.welcome(SLOW).hello().applied, 1, "so that the gateway does not send it again");
}

#[test]
fn the_first_signal_after_a_stop_of_the_gateway_leaves_the_agent_its_grace() {
    let gateway = Gateway::new();
    let agent = "trap 'sleep 1; exit 7' TERM; while :; do sleep 0.05; done";
    let mut supervisor = Supervisor::new().link(&gateway).shell(agent).start();
    supervisor.wait_ready();
    let mut session = gateway.welcome(SLOW);
    give(&mut session, 1, "stop", Value::Null);
    supervisor.wait_log("stopping");
    // As the kubelet sends it when the Pod is deleted just then.
    supervisor.signal(Signal::SIGTERM);
    session.rest();
    assert_eq!(supervisor.wait_code(), 7);
}
