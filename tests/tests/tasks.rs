//! Dev-tasks through the API, against the real programs: one file per kind of promise.

#[path = "tasks/attach.rs"]
mod attach;
#[path = "tasks/bad_input.rs"]
mod bad_input;
#[path = "tasks/calls.rs"]
mod calls;
#[path = "tasks/classes.rs"]
mod classes;
#[path = "tasks/crash.rs"]
mod crash;
#[path = "tasks/durable.rs"]
mod durable;
#[path = "tasks/ending.rs"]
mod ending;
#[path = "tasks/input.rs"]
mod input;
#[path = "tasks/journal.rs"]
mod journal;
#[path = "tasks/metrics.rs"]
mod metrics;
#[path = "tasks/output.rs"]
mod output;
#[path = "tasks/queue.rs"]
mod queue;
#[path = "tasks/token.rs"]
mod token;
#[path = "tasks/zygote.rs"]
mod zygote;

use tests::supervisor::{Builder, Supervisor};
use tests::tasks::Api;

/// A supervisor without an agent, whose API has a token.
fn supervisor() -> Builder {
    Supervisor::new().token()
}

/// The same, started.
fn api() -> (Supervisor, Api) {
    let supervisor = supervisor().start();
    let api = Api::of(&supervisor);
    (supervisor, api)
}
