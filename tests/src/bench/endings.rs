//! Many tasks that do not want to end, cancelled at once: when the answers come nobody is left.

use std::time::{Duration, Instant};

use serde_json::json;

use super::Line;
use crate::processes;
use crate::supervisor::Supervisor;
use crate::tasks::Api;
use crate::wait::{LONG, within};

const GRACE: Duration = Duration::from_secs(1);
/// TERM is ignored by all; one leads a session of its own, one is an orphan in a session of its own.
const STUBBORN: &str = "trap '' TERM; setsid sleep 1234 & (setsid sleep 1235 &) ; sleep 1236 & echo up; wait; sleep 1";
/// The shell and three sleepers.
const EACH: usize = 4;

/// Cancel so many tasks.
pub fn measure(count: usize) -> Vec<Line> {
    let supervisor = Supervisor::new()
        .token()
        .set("task-concurrency", count.to_string())
        .set("task-grace", format!("{}ms", GRACE.as_millis()))
        .start();
    supervisor.wait_ready();
    let api = Api::of(&supervisor);
    let ids: Vec<String> = (0..count).map(|_| api.start(json!({"script": STUBBORN}))).collect();
    let crowd = || {
        let below = processes::trees(supervisor.pid());
        below.into_iter().filter(|&p| processes::name(p) != "shim").collect::<Vec<_>>()
    };
    // The subshell that makes the orphan comes and goes.
    let sleeping = || crowd().into_iter().filter(|&p| processes::name(p) == "sleep").count();
    let all = within(LONG * 2, || (sleeping() == count * (EACH - 1)).then(crowd)).expect("all of them run");
    for id in &ids {
        assert_eq!(api.post(&format!("/dev-tasks/{id}/cancel"), "").status(), 200);
    }
    let cancelled = Instant::now();
    // One connection at a time: fewer are taken than there are tasks.
    for id in &ids {
        let task = api.wait_end(id);
        assert_eq!((&task["state"], &task["signal"]), (&json!("cancelled"), &json!(9)), "{task}");
    }
    let took = cancelled.elapsed();
    let left = all.iter().filter(|&&p| processes::alive(p)).count() + crowd().len();
    let beyond = took.saturating_sub(GRACE).as_secs_f64() * 1e3;
    vec![
        Line::new(
            format!("alive of {} processes when the ends of {count} tasks are told", all.len()),
            0.0,
            left as f64,
            "processes",
        ),
        Line::new("the last of these ends beyond the grace", 250.0, beyond, "ms"),
    ]
}
