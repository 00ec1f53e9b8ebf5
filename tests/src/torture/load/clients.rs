//! Clients of a sandbox under load: each creates tasks, and notes what it was told of them and which of them were refused.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use base64::Engine;
use serde_json::{Value, json};

use super::STATES;
use crate::output::Output;
use crate::supervisor::{Supervisor, log_lines};
use crate::tasks::Api;
use crate::{binaries, repository};

/// Of each sandbox.
const CLIENTS: usize = 2;
/// Of ten tasks this one has a workspace of its own: one worker reads what it comes from, and another one unpacks it. Of these some wait
/// for the end.
const SEEDED: u64 = 3;
/// What it comes from.
static SEED: LazyLock<String> = LazyLock::new(|| archive(1));

/// What a client was told of a task.
#[derive(Clone, Debug)]
pub struct Told {
    /// When it was told that it is there.
    pub at: Instant,
    /// The state in which it was told that it has ended.
    pub end: Option<String>,
}

/// Clients of one life of a supervisor.
pub(super) struct Load {
    over: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Heard>>,
}

/// What one of them was told of its tasks, and which of them the disk did not take.
#[derive(Default)]
pub(super) struct Heard {
    pub(super) told: Vec<(String, Told)>,
    pub(super) refused: Vec<String>,
}

impl Load {
    pub(super) fn begin(life: &str, supervisor: &Supervisor) -> Load {
        let over = Arc::new(AtomicBool::new(false));
        let client = |client: usize| {
            let (life, log, over) = (format!("{life}-{client}"), supervisor.stderr.clone(), over.clone());
            std::thread::spawn(move || create(&log, &life, &over))
        };
        Load { clients: (0..CLIENTS).map(client).collect(), over }
    }

    /// What the clients were told.
    pub(super) fn end(&mut self) -> impl Iterator<Item = Heard> {
        self.over.store(true, Ordering::Relaxed);
        self.clients.drain(..).map(|client| client.join().expect("a client"))
    }
}

/// Create tasks until it is over, or until the supervisor is killed.
fn create(log: &Output, life: &str, over: &AtomicBool) -> Heard {
    let mut heard = Heard::default();
    let Some(address) = address(log, over) else { return heard };
    let api = Api::at(address, crate::scene::CANARY);
    for number in 0.. {
        let id = format!("{life}-{number:04}");
        let body = task(number, &id).to_string();
        // Some wait for the end.
        let path = if number % 4 == 3 { "/dev-tasks?wait=10s" } else { "/dev-tasks" };
        match api.try_call("POST", path, &[], body.as_bytes()) {
            Ok(answer) if answer.status() == 201 => {
                let task = answer.json();
                let state = task["state"].as_str().filter(|state| !STATES.contains(state));
                heard.told.push((id, Told { at: Instant::now(), end: state.map(str::to_owned) }));
            }
            // Too many, a disk that refuses, or a worker that was killed: another may be taken later.
            Ok(answer) => {
                if answer.status() == 507 {
                    heard.refused.push(id);
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(_) if log.closed() => break,
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
        if over.load(Ordering::Relaxed) {
            break;
        }
        // So that an instant is seldom one in which nothing but launching goes on, and the journal stays small.
        std::thread::sleep(Duration::from_millis(number % 3 * 40));
    }
    heard
}

/// Some tasks fail, some write lines, each of which says whose and which it is; one finds in its workspace what it was given.
fn task(number: u64, id: &str) -> Value {
    let argv = match number % 10 {
        SEEDED => vec!["sh", "-c", "test -s 0"],
        4 | 9 => vec!["false"],
        2 | 7 => vec!["sh", "-c", "echo $0 1; echo $0 2; echo $0 3", id],
        _ => vec!["true"],
    };
    let mut task = json!({"task_id": id, "argv": argv});
    if number % 10 == SEEDED {
        task["workspace_archive_b64"] = SEED.as_str().into();
    }
    task
}

/// A `tar.gz` of so many files, as the body of a create has it.
pub(in crate::torture) fn archive(files: usize) -> String {
    let place = binaries::scratch();
    for name in (0..files).map(|number| number.to_string()) {
        std::fs::write(place.path().join(&name), &name).expect("our own directory");
    }
    base64::engine::general_purpose::STANDARD.encode(repository::run(place.path(), "tar", &["-cz", "."]))
}

/// Where a supervisor listens that may be killed before it does.
fn address(log: &Output, over: &AtomicBool) -> Option<SocketAddr> {
    loop {
        let lines = log_lines(&log.text());
        if let Some(address) = lines.iter().find_map(|line| line["address"].as_str()?.parse().ok()) {
            return Some(address);
        }
        if log.closed() || over.load(Ordering::Relaxed) {
            return None;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}
