//! `gateway dev` and the command-line client, as a person at a terminal uses them.

#[path = "console/codex.rs"]
mod codex;
#[path = "console/dev.rs"]
mod dev;
#[path = "console/errors.rs"]
mod errors;
#[path = "console/progress.rs"]
mod progress;
#[path = "console/tasks.rs"]
mod tasks;
#[path = "console/whole.rs"]
mod whole;
