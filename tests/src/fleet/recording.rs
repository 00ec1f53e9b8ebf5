//! What real supervisors told a gateway of real tasks, recorded, so that simulated sandboxes tell the same.
//!
//! `fleet record` runs each of [`tasks`] on the whole program and keeps what its gateway has of it in `recording.json`; ids are words in
//! braces there. A test records again and holds the kinds and fields of all records against the file.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use protocol::session::Class;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::control_plane::{Gateway, token_of};
use crate::scene::CANARY;
use crate::supervisor::Supervisor;
use crate::tasks::Api;
use crate::wait::wait_for;

/// Who tells while it is recorded.
const TELLER: &str = "a";
const SANDBOX: &str = "{sandbox}";
const TASK: &str = "{task}";

/// A task as a gateway was told of it, from its first state to its result, which is last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recording {
    /// What it was, in words.
    pub task: String,
    /// In the order in which they came to be.
    pub events: Vec<Event>,
}

/// A record, without its times.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Of which class.
    pub class: Class,
    /// For instance `task.running`.
    pub kind: String,
    /// With ids in braces.
    pub body: Value,
}

/// What is kept.
pub static RECORDINGS: LazyLock<Vec<Recording>> =
    LazyLock::new(|| serde_json::from_str(include_str!("recording.json")).expect("as it was written"));

/// What agents have done, small.
pub(super) fn tasks() -> [(&'static str, Value); 7] {
    let build = "set -e; for part in main util parse; do echo \"int $part(void) { return 0; }\" >$part.c; \
                 echo \"  CC $part.o\"; cc -c $part.c; done; echo '  LD all.o'; ld -r main.o util.o parse.o -o all.o";
    let commits = "set -e; git init -q r; cd r; for n in 1 2 3; do echo $n >file; git add file; \
                   git -c user.name=a -c user.email=a@b commit -qm \"Change $n\"; done; git log --format=%s; git diff HEAD~1";
    let failing = "import sys, unittest\nclass T(unittest.TestCase):\n  def test_sum(self): self.assertEqual(1 + 1, 2)\n  \
                   def test_order(self): self.assertEqual([2, 1], [1, 2])\nunittest.main(verbosity=2)";
    [
        ("a command", json!({"argv": ["sh", "-c", "echo one; echo two"]})),
        ("a build", json!({"script": build})),
        ("a repository", json!({"script": commits})),
        ("a test that fails", json!({"argv": ["python3", "-c", failing]})),
        (
            "a terminal",
            json!({"script": "printf '\\033[1mbold\\033[0m\\n'; stty size", "terminal": {"rows": 24, "cols": 80}}),
        ),
        ("a crash", json!({"script": "echo about to; kill -SEGV $$"})),
        ("what takes too long", json!({"script": "echo waiting; exec sleep 100", "timeout": "1500ms"})),
    ]
}

/// Record each of them now.
#[track_caller]
pub fn record() -> Vec<Recording> {
    let gateway = Gateway::start();
    let builder = Supervisor::new();
    let token = builder.path("link-token");
    std::fs::write(&token, token_of(TELLER)).expect("our own directory");
    let supervisor = builder
        .token()
        .set("gateway-url", format!("ws://{}", gateway.address))
        .set("link-token-file", token)
        .set("link-samples", "500ms")
        .set("link-logs", "true")
        .set("agent-id", TELLER)
        .agent(["sleep", "100000"])
        .start();
    supervisor.wait_log("the link is connected");
    let api = Api::at(supervisor.address(), CANARY);
    tasks()
        .into_iter()
        .enumerate()
        .map(|(number, (task, mut create))| {
            let id = format!("recorded-{number}");
            create["task_id"] = id.as_str().into();
            let terminal = create["terminal"].is_object();
            let before = gateway.events(TELLER).len();
            api.run(create);
            let count = |stream| api.output(&id, stream).iter().filter(|byte| **byte == b'\n').count();
            // What goes to a terminal is no line.
            let lines = if terminal { 0 } else { count("stdout") + count("stderr") };
            let events = wait_for("its result", || told(&gateway.events(TELLER)[before..], &id, lines));
            Recording { task: task.into(), events }
        })
        .collect()
}

/// What these events say of a task, once they have all of it.
fn told(events: &[Value], id: &str, lines: usize) -> Option<Vec<Event>> {
    let records = events.iter().filter(|event| event["record"].is_object());
    let mut records: Vec<(u64, Event)> = records.filter_map(|event| event_of(event, id)).collect();
    records.sort_by_key(|(boot_ms, event)| (event.class == Class::Results, *boot_ms));
    let events: Vec<Event> = records.into_iter().map(|(_, event)| event).collect();
    let count = |class| events.iter().filter(|event| event.class == class).count();
    // It starts, it runs, it ends.
    let all = count(Class::Lifecycle) == 3 && count(Class::Results) == 1 && count(Class::Logs) == lines;
    (all && count(Class::Metrics) > 0).then_some(events)
}

fn event_of(event: &Value, id: &str) -> Option<(u64, Event)> {
    let class = serde_json::from_value(event["class"].clone()).ok()?;
    let record = &event["record"];
    let mut body = record["body"].clone();
    let of_another = body["task_id"].as_str().is_some_and(|task| task != id);
    // What the agent says goes on beside any task.
    let of_none = body["task_id"].is_null() && class != Class::Metrics;
    abstracted(&mut body, id);
    let event = Event { class, kind: record["kind"].as_str()?.into(), body };
    (!of_another && !of_none).then_some((record["boot_ms"].as_u64()?, event))
}

/// With words in the place of ids.
fn abstracted(value: &mut Value, id: &str) {
    match value {
        Value::String(text) => *text = text.replace(id, TASK),
        Value::Array(values) => values.iter_mut().for_each(|value| abstracted(value, id)),
        Value::Object(fields) => {
            for (name, value) in fields {
                match name.as_str() {
                    "agent_id" => *value = SANDBOX.into(),
                    // Paths of this machine.
                    "artifact_root" | "log_root" => *value = format!("/state/tasks/{TASK}").into(),
                    "backend_run_id" => *value = format!("{SANDBOX}-{TASK}").into(),
                    _ => abstracted(value, id),
                }
            }
        }
        _ => {}
    }
}

impl Recording {
    /// The same of another task, of another sandbox.
    pub fn of(&self, sandbox: &str, task: &str) -> Vec<Event> {
        // Ids need no escape in JSON.
        let text = serde_json::to_string(&self.events).expect("it came from JSON");
        let text = text.replace(SANDBOX, sandbox).replace(TASK, task);
        serde_json::from_str(&text).expect("only texts were changed")
    }

    /// Which fields the records of each kind have.
    pub fn shape(&self) -> BTreeMap<(Class, String), BTreeSet<String>> {
        let mut shape = BTreeMap::<_, BTreeSet<String>>::new();
        for event in &self.events {
            let fields = event.body.as_object().into_iter().flat_map(|body| body.keys().cloned());
            shape.entry((event.class, event.kind.clone())).or_default().extend(fields);
        }
        shape
    }
}
