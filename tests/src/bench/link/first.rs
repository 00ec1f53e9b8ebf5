//! `gateway dev`: from nothing to the first finished task.

use std::process::Stdio;
use std::time::Instant;

use super::super::{Line, median};
use crate::dev::Home;
use crate::output::Output;

const TIMES: usize = 5;

/// Each time in a home that has nothing yet: the database is made, a sandbox is made, connected, and runs a task.
pub(super) fn measure() -> Line {
    let once = |_| {
        let home = Home::new();
        let mut command = home.command(&["dev", "--listen", "127.0.0.1:0", "--", "echo", "the first task"]);
        let before = Instant::now();
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the gateway runs");
        let stdout = Output::read(child.stdout.take().expect("piped"), false);
        stdout.wait_text("the first task");
        let took = before.elapsed().as_secs_f64();
        assert_eq!(child.wait().expect("our own child").code(), Some(0));
        took
    };
    Line::new(
        "from `gateway dev` to the output of the first task, median",
        1.0,
        median((0..TIMES).map(once).collect()),
        "s",
    )
}
