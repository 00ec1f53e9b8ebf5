//! kill -9 of whatever lives beneath a supervisor under load, at any instant: shims, the zygote and the shims that it keeps ready, tasks, the
//! agent. The supervisor stays, each task has one end which is told as one and the same everywhere, and what comes afterwards runs.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};

use super::account::Account;
use super::chance::Chance;
use super::load::{Sandbox, Settings, broken};
use crate::bench::Line;
use crate::control_plane::Gateway;
use crate::processes;
use crate::wait::{LONG, within};

/// Kills between two looks at whether everything works.
const TOGETHER: usize = 20;

/// So many kills.
pub fn measure(kills: usize) -> Vec<Line> {
    let mut chance = Chance::seeded(0x510e_527f_ade6_82d1);
    let gateway = Gateway::build().set("events_keep_count", "10000000").start();
    let settings = Settings::default();
    let settings =
        settings.set("agent-restart", "always").set("agent-restart-min", "10ms").set("agent-restart-max", "50ms");
    let mut sandboxes = [Sandbox::start_with("a", &format!("ws://{}", gateway.address), settings)];
    let (mut done, mut stuck) = (0, 0);
    while done < kills && !sandboxes[0].supervisor.has_ended() {
        std::thread::sleep(Duration::from_millis(2) + chance.millis(30));
        let alive = || {
            let mut beneath = processes::descendants(sandboxes[0].supervisor.pid());
            beneath.retain(|&pid| processes::alive(pid));
            (!beneath.is_empty()).then_some(beneath)
        };
        let Some(beneath) = within(LONG, alive) else {
            println!("after {done} kills nothing runs any more");
            stuck += 1;
            break;
        };
        // One that has just ended was not killed.
        if kill(beneath[chance.below(beneath.len())], Signal::SIGKILL).is_err() {
            continue;
        }
        done += 1;
        if done % TOGETHER == 0
            && let Some(what) = broken(&sandboxes, &gateway, LONG)
        {
            println!("after {done} kills: {what}");
            stuck += 1;
        }
    }
    let of = format!("{kills} kill -9 of shims, zygotes, tasks and agents");
    let ended = usize::from(sandboxes[0].supervisor.has_ended());
    let mut lines = vec![Line::new(format!("supervisors that did not outlive {of}"), 0.0, ended as f64, "supervisors")];
    lines.push(Line::new(format!("times that not all worked again, in {of}"), 0.0, stuck as f64, "times"));
    if ended == 0 {
        let mut account = Account::default();
        account.settle(&mut sandboxes, &gateway);
        lines.extend(account.lines(&of));
    }
    lines
}
