//! kill -9 of whatever lives beneath a supervisor under load, at any instant: shims, the zygote and the shims that it keeps ready, tasks, the
//! agent, workers. The supervisor stays, each task has one end which is told as one and the same everywhere, and what comes afterwards runs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use serde_json::json;

use super::account::Account;
use super::chance::Chance;
use super::load::{Sandbox, Settings, archive, broken};
use crate::bench::Line;
use crate::control_plane::Gateway;
use crate::tasks::Api;
use crate::wait::{LONG, within};
use crate::{binaries, processes};

/// Kills between two looks at whether everything works.
const TOGETHER: usize = 20;
/// What is killed in turn, and the names by which `ps` shows it. The load's own tasks and workers mostly end before anybody can kill them.
const KINDS: [(&str, &[&str]); 5] = [
    ("shims", &["shim", "ready"]),
    ("agents", &["sleep"]),
    ("zygotes", &["zygote"]),
    (TASKS, &["cat"]),
    (WORKERS, &["supervisor"]),
];
const TASKS: &str = "tasks";
const WORKERS: &str = "workers";
/// In an archive that a worker unpacks until it can be killed: some tens of milliseconds.
const FILES: usize = 2_000;
/// For so long one is looked for before another is begun.
const LOOK: Duration = Duration::from_secs(1);

/// So many kills.
pub fn measure(kills: usize) -> Vec<Line> {
    let mut chance = Chance::seeded(0x510e_527f_ade6_82d1);
    let gateway = Gateway::build().set("events_keep_count", "10000000").start();
    let place = binaries::scratch();
    let settings = Settings::default().program(with_agent(place.path()));
    let settings =
        settings.set("agent-restart", "always").set("agent-restart-min", "10ms").set("agent-restart-max", "50ms");
    let mut sandboxes = [Sandbox::start_with("a", &format!("ws://{}", gateway.address), settings)];
    let api = Api::of(&sandboxes[0].supervisor);
    let lasts = json!({"argv": ["cat"], "stdin_open": true, "timeout": "5s"}).to_string();
    let unpacks = json!({"argv": ["true"], "workspace_archive_b64": archive(FILES)}).to_string();
    let (mut killed, mut done, mut stuck) = ([0_usize; KINDS.len()], 0, 0);
    while done < kills && !sandboxes[0].supervisor.has_ended() {
        std::thread::sleep(Duration::from_millis(2) + chance.millis(30));
        let (what, names) = KINDS[done % KINDS.len()];
        let needs = match what {
            TASKS => Some(&lasts),
            WORKERS => Some(&unpacks),
            _ => None,
        };
        let alive = || {
            let mut beneath = processes::descendants(sandboxes[0].supervisor.pid());
            beneath.retain(|&pid| processes::alive(pid) && names.contains(&processes::name(pid).as_str()));
            (!beneath.is_empty()).then_some(beneath)
        };
        let found = within(LONG, || {
            // It may be refused: then it is tried again.
            let _ = needs.map(|task| api.try_call("POST", "/dev-tasks", &[], task.as_bytes()));
            within(LOOK, alive)
        });
        let Some(beneath) = found else {
            println!("after {done} kills none of the {what} runs any more");
            stuck += 1;
            break;
        };
        // One that has just ended was not killed.
        if kill(beneath[chance.below(beneath.len())], Signal::SIGKILL).is_err() {
            continue;
        }
        killed[done % KINDS.len()] += 1;
        done += 1;
        if done % TOGETHER == 0
            && let Some(what) = broken(&sandboxes, &gateway, LONG)
        {
            println!("after {done} kills: {what}");
            stuck += 1;
        }
    }
    let of = format!("{kills} kill -9 of shims, zygotes, tasks, workers and agents");
    let ended = usize::from(sandboxes[0].supervisor.has_ended());
    let mut lines = vec![Line::new(format!("supervisors that did not outlive {of}"), 0.0, ended as f64, "supervisors")];
    lines.push(Line::new(format!("times that not all worked again, in {of}"), 0.0, stuck as f64, "times"));
    lines.extend(KINDS.into_iter().zip(killed).map(|((what, _), killed)| {
        Line::at_least(format!("{what} killed, of {of}"), (kills / KINDS.len()) as f64, killed as f64, what)
    }));
    if ended == 0 {
        let mut account = Account::default();
        account.settle(&mut sandboxes, &gateway);
        lines.extend(account.lines(&of));
        lines.push(account.gaps(&of, 0));
    }
    lines
}

/// A supervisor that has an agent, which sleeps.
fn with_agent(place: &Path) -> PathBuf {
    let program = place.join("supervisor");
    binaries::script(&program, &format!("exec {} \"$@\" -- sleep 1000", binaries::supervisor().display()));
    program
}
