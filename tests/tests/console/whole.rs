//! The whole way of a task: this command, the gateway, a session, a supervisor; and back.

use std::fs;
use std::process::Stdio;
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use serde_json::json;
use tests::dev::Home;
use tests::output::Output;
use tests::wait::{wait_for, wait_until};

#[test]
fn one_command_goes_from_nothing_to_a_finished_task() {
    let home = Home::new();
    let began = Instant::now();
    let said = home.run(&["dev", "--listen", "127.0.0.1:0", "--", "sh", "-c", "echo done; exit 3"]);
    println!(
        "goal=1 measured={:.3} unit=s: from nothing to a finished task, and stopped",
        began.elapsed().as_secs_f64()
    );
    assert_eq!((said.code, said.stdout.as_str()), (3, "done\n"), "{said:?}");
    assert_eq!(home.supervisor("dev"), None);
}

#[test]
fn a_followed_task_outlives_the_gateway_and_its_result_arrives_once() {
    let mut home = Home::new();
    home.start(&[]);
    let address = fs::read_to_string(home.directory().join("address")).expect("written down");
    let script = "for n in 1 2 3 4 5 6 7 8 9; do echo line $n; until test -e go-$n; do sleep 0.02; done; done; exit 6";
    let mut command = home.command(&["task", "run", "--id", "long", "-c", script]);
    let mut run = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the gateway runs");
    let stdout = Output::read(run.stdout.take().expect("piped"), false);
    let workspace = home.directory().join("sandboxes/dev/workspace");
    for n in 1..=9 {
        stdout.wait_text(&format!("line {n}\n"));
        if n % 3 == 0 {
            home.end(Signal::SIGKILL);
            // It writes on while nobody listens.
            fs::write(workspace.join(format!("go-{n}")), "").expect("our own file");
            home.start(&["--listen", &address]);
        }
        fs::write(workspace.join(format!("go-{n}")), "").expect("our own file");
    }
    let status = wait_for("the end of the command", || run.try_wait().expect("our own child"));
    assert_eq!(status.code(), Some(6));
    let expected: String = (1..=9).map(|n| format!("line {n}\n")).collect();
    assert_eq!(String::from_utf8_lossy(&stdout.to_end()), expected);
    let listed = home.run(&["task", "list", "-o", "json"]).json();
    assert_eq!(listed.as_array().map(Vec::len), Some(1), "{listed}");
    assert_eq!(listed[0]["exit_code"], json!(6));
}

#[test]
fn a_task_is_told_as_lost_where_its_supervisor_was_killed() {
    let mut home = Home::new();
    home.start(&[]);
    let mut command = home.command(&["task", "run", "-c", "echo up; exec sleep 1000"]);
    let mut run = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the gateway runs");
    let stdout = Output::read(run.stdout.take().expect("piped"), false);
    let stderr = Output::read(run.stderr.take().expect("piped"), false);
    stdout.wait_text("up");
    kill(home.supervisor("dev").expect("it runs"), Signal::SIGKILL).expect("it runs");
    let status = wait_for("the end of the command", || run.try_wait().expect("our own child"));
    assert_eq!(status.code(), Some(70), "{}", stderr.text());
    stderr.wait_text("was lost");
    assert_eq!(stdout.to_end(), b"up\n");
}

#[test]
fn a_sandbox_is_chosen_where_there_are_several() {
    let mut home = Home::new();
    home.start(&["--sandboxes", "2"]);
    let said = home.run(&["task", "run", "--", "pwd"]);
    assert_eq!(said.code, 64, "{said:?}");
    assert!(said.stderr.contains("dev, dev-2") && said.stderr.contains("--sandbox"), "{said:?}");
    let said = home.run(&["task", "run", "-s", "dev-2", "--", "pwd"]);
    assert!(said.code == 0 && said.stdout.ends_with("dev-2/workspace\n"), "{said:?}");
    assert_eq!(home.run(&["sandbox", "delete", "dev"]).code, 0);
    wait_until("one is left", || home.run(&["task", "run", "--", "true"]).code == 0);
}
