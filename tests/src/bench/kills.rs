//! kill -9 of the supervisor under load, again and again: each task is answered for exactly once, none is invented, and no
//! byte of output that a client has seen is lost.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::Line;
use crate::supervisor::Supervisor;
use crate::tasks::Api;
use crate::wait::{LONG, wait_until, within};
use crate::{binaries, processes};

const CLIENTS: usize = 4;
/// Writes numbered lines until it is killed, and leaves some time to the others.
const WRITER: &str = "n=0; while :; do n=$((n+1)); echo line $n; [ $((n % 100)) = 0 ] && sleep 0.001; done";

/// What the clients of one life of a supervisor were told before it was killed.
#[derive(Default)]
struct Told {
    /// Tasks that were accepted.
    ids: Vec<String>,
    /// The task that writes, and how much of its output was read.
    writer: String,
    read: Vec<u8>,
}

/// What was wrong, counted.
#[derive(Default)]
struct Wrong {
    tasks: usize,
    lost: usize,
    twice: usize,
    invented: usize,
    bytes: u64,
}

/// So many kills, in one state directory.
pub fn measure(kills: usize) -> Vec<Line> {
    let place = Place::new();
    let mut wrong = Wrong::default();
    let mut told = None;
    for round in 0..=kills {
        let supervisor = place.supervisor();
        let api = Api::of(&supervisor);
        if let Some(told) = told.take() {
            check(&place, &api, &told, &mut wrong);
        }
        if round < kills {
            told = Some(live(supervisor, api, round));
        }
    }
    let of = format!("of {} accepted tasks in {kills} kills", wrong.tasks);
    vec![
        Line::new(format!("lost {of}"), 0.0, wrong.lost as f64, "tasks"),
        Line::new(format!("run twice, or told otherwise than they ran, {of}"), 0.0, wrong.twice as f64, "tasks"),
        Line::new(format!("invented beside those {of}"), 0.0, wrong.invented as f64, "tasks"),
        Line::new(
            format!("bytes of output that a client had read and that are gone, {of}"),
            0.0,
            wrong.bytes as f64,
            "bytes",
        ),
    ]
}

/// State and workspace that outlive a supervisor.
struct Place {
    directory: TempDir,
}

impl Place {
    fn new() -> Place {
        let directory = binaries::scratch();
        for name in ["state", "workspace"] {
            std::fs::create_dir(directory.path().join(name)).expect("our own directory");
        }
        Place { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn supervisor(&self) -> Supervisor {
        let builder = Supervisor::new().token().set("task-grace", "100ms").set("task-keep-count", "100000");
        builder.set("state-dir", self.path("state")).set("workspace", self.path("workspace")).start()
    }
}

/// Load until the kill, which comes at another moment each time.
fn live(mut supervisor: Supervisor, api: Api, round: usize) -> Told {
    let writer = api.start(json!({"task_id": format!("w{round}"), "script": WRITER}));
    let clients = {
        let api = api.clone();
        std::thread::spawn(move || create(&api, round))
    };
    let reader = {
        let (api, writer) = (api.clone(), writer.clone());
        std::thread::spawn(move || follow(&api, &writer))
    };
    // 7 and 20 have no common divisor: every count up to 20 has its turn.
    let enough = 1 + (round * 7) % 20;
    let ended = || api.get("/dev-tasks?state=succeeded&limit=1000").json()["tasks"].as_array().map_or(0, Vec::len);
    wait_until("some tasks to end", || ended() >= enough);
    let trees = processes::descendants(supervisor.pid());
    supervisor.signal(Signal::SIGKILL);
    supervisor.wait_exit();
    wait_until("the end of the trees", || !trees.iter().any(|&p| processes::alive(p)));
    Told { ids: clients.join().expect("the clients"), writer, read: reader.join().expect("the reader") }
}

/// Clients create tasks until the supervisor is killed; the ids that they were told.
fn create(api: &Api, round: usize) -> Vec<String> {
    let client = |client: usize| {
        let mut told = Vec::new();
        for number in 0.. {
            let id = format!("r{round}-{client}-{number:04}");
            let script = format!("echo {id} >> ran-{id}; echo {id}");
            let body = json!({"task_id": id, "script": script}).to_string();
            match api.try_call("POST", "/dev-tasks", &[], body.as_bytes()) {
                Ok(answer) if answer.status() == 201 => told.push(id),
                Ok(answer) if answer.status() == 429 => std::thread::sleep(std::time::Duration::from_millis(5)),
                _ => break,
            }
            if number % 8 == 7 {
                // Some wait, and some kills find an empty queue.
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
        }
        told
    };
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|n| scope.spawn(move || client(n))).collect();
        clients.into_iter().flat_map(|c| c.join().expect("a client")).collect()
    })
}

/// What a follower got until the connection broke.
fn follow(api: &Api, id: &str) -> Vec<u8> {
    let mut read = Vec::new();
    if let Ok((_, mut body)) = api.open("GET", &format!("/dev-tasks/{id}/logs?follow=true"), &[], b"") {
        let _ = body.read_to_end(&mut read);
    }
    read
}

/// Hold the next supervisor to what the last one's clients were told, and forget it then.
fn check(place: &Place, api: &Api, told: &Told, wrong: &mut Wrong) {
    let waiting = || ["queued", "starting", "running"].iter().any(|s| !api.list(&format!("state={s}")).is_empty());
    within(LONG, || (!waiting()).then_some(())).expect("the queue becomes empty");
    let tasks: BTreeMap<String, Value> = api
        .list("limit=1000")
        .into_iter()
        .map(|task| (task["task_id"].as_str().unwrap_or_default().to_string(), task))
        .collect();
    wrong.tasks += told.ids.len() + 1;
    for id in &told.ids {
        match tasks.get(id) {
            None => wrong.lost += note(id, "was accepted and is gone"),
            Some(task) => wrong.twice += usize::from(!truthful(place, api, id, task)),
        }
    }
    match tasks.get(&told.writer) {
        Some(task) if task["state"] == "lost" => wrong.bytes += missing(api, told, task),
        other => wrong.lost += note(&told.writer, &format!("is told as {other:?}")),
    }
    // What was accepted while the answer was on its way is at most one a client.
    let unknown = tasks.keys().filter(|id| **id != told.writer && !told.ids.contains(id)).count();
    wrong.invented += unknown.saturating_sub(CLIENTS);
    for id in tasks.keys() {
        assert_eq!(api.call("DELETE", &format!("/dev-tasks/{id}"), &[], b"").status(), 204);
        let _ = std::fs::remove_file(ran(place, id));
    }
}

fn note(id: &str, what: &str) -> usize {
    println!("{id} {what}");
    1
}

fn ran(place: &Place, id: &str) -> PathBuf {
    place.path("workspace").join(format!("ran-{id}"))
}

/// Whether what is told of a task is what it did.
fn truthful(place: &Place, api: &Api, id: &str, task: &Value) -> bool {
    let line = format!("{id}\n");
    let did = std::fs::read_to_string(ran(place, id)).unwrap_or_default();
    let wrote = String::from_utf8_lossy(&api.output(id, "stdout")).into_owned();
    let counted = task["output"]["stdout_bytes"] == wrote.len();
    let right = match task["state"].as_str() {
        Some("succeeded") => did == line && wrote == line,
        Some("lost") => (did.is_empty() || did == line) && line.starts_with(&wrote),
        _ => false,
    };
    if !(right && counted) {
        note(id, &format!("did {did:?} and wrote {wrote:?}, and is told as {task}"));
    }
    right && counted
}

/// Bytes that were read of the writer and are not kept where they were, and kept ones that are told wrongly.
fn missing(api: &Api, told: &Told, task: &Value) -> u64 {
    let kept = api.output(&told.writer, "stdout");
    let same = kept.iter().zip(&told.read).take_while(|(a, b)| a == b).count();
    let told_of = task["output"]["stdout_bytes"].as_u64().unwrap_or(0);
    (told.read.len() - same) as u64 + told_of.abs_diff(kept.len() as u64)
}
