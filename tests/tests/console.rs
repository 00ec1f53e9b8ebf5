//! `gateway dev` and the command-line client, as a person at a terminal uses them.

#[path = "console/errors.rs"]
mod errors;
#[path = "console/tasks.rs"]
mod tasks;
