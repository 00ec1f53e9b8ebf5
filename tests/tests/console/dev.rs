//! From nothing to connected sandboxes, through kills and back.

use std::fs;

use nix::sys::signal::{Signal, kill};
use serde_json::json;
use tests::dev::Home;
use tests::processes;
use tests::wait::wait_until;

#[test]
fn gateway_dev_needs_no_configuration_and_leaves_no_process() {
    let mut home = Home::new();
    let hints = home.start(&[]);
    assert!(hints.contains("sandbox dev is connected") && hints.contains("task run -- "), "{hints}");
    let listed = home.run(&["sandbox", "list", "-o", "json"]);
    assert_eq!((listed.code, &listed.json()[0]["id"]), (0, &json!("dev")), "{listed:?}");
    assert_eq!(listed.json()[0]["status"], "connected");
    let table = home.run(&["sandbox", "list"]);
    assert!(table.stdout.starts_with("SANDBOX") && table.stdout.contains("connected"), "{table:?}");
    let supervisor = home.supervisor("dev").expect("it runs");
    assert_eq!(home.end(Signal::SIGINT), 0);
    assert!(!processes::alive(supervisor), "its sandboxes end with it");
    let said = home.run(&["sandbox", "list"]);
    assert_eq!(said.code, 78, "{said:?}");
    assert!(said.stderr.contains("`gateway dev`"), "{said:?}");
}

#[test]
fn sandboxes_outlive_a_gateway_that_is_killed_and_the_next_one_adopts_them() {
    let mut home = Home::new();
    home.start(&["--sandboxes", "2"]);
    let before = ["dev", "dev-2"].map(|id| home.supervisor(id).expect("it runs"));
    let address = fs::read_to_string(home.directory().join("address")).expect("written down");
    home.end(Signal::SIGKILL);
    assert!(before.iter().all(|&pid| processes::alive(pid)));
    home.start(&["--listen", &address]);
    assert_eq!(["dev", "dev-2"].map(|id| home.supervisor(id).expect("it runs")), before);
    assert_eq!(home.end(Signal::SIGTERM), 0);
    wait_until("adopted supervisors stop too", || !before.iter().any(|&pid| processes::alive(pid)));
}

#[test]
fn sandboxes_follow_a_gateway_that_had_to_move_to_another_port() {
    let mut home = Home::new();
    home.start(&[]);
    let before = home.supervisor("dev").expect("it runs");
    home.end(Signal::SIGKILL);
    home.start(&[]);
    assert_ne!(home.supervisor("dev").expect("it runs"), before);
    assert_eq!(home.status("dev"), "connected");
}

#[test]
fn a_supervisor_that_was_killed_is_started_again() {
    let mut home = Home::new();
    home.start(&[]);
    let before = home.supervisor("dev").expect("it runs");
    kill(before, Signal::SIGKILL).expect("it runs");
    wait_until("another supervisor", || home.supervisor("dev").is_some_and(|pid| pid != before));
    wait_until("its session", || home.status("dev") == "connected");
}

#[test]
fn a_directory_in_use_is_refused_by_the_name_of_its_owner() {
    let mut home = Home::new();
    home.start(&[]);
    let said = home.run(&["dev"]);
    assert_eq!(said.code, 75, "{said:?}");
    assert!(said.stderr.contains(&format!("pid {}", home.pid())) && said.stderr.contains("--dir"), "{said:?}");
}

#[test]
fn a_sandbox_is_created_shown_and_deleted_with_all_that_it_had() {
    let mut home = Home::new();
    home.start(&[]);
    let made = home.run(&["sandbox", "create", "second"]);
    assert_eq!((made.code, made.stdout.as_str()), (0, "sandbox second is connected\n"), "{made:?}");
    let again = home.run(&["sandbox", "create", "second"]);
    assert_eq!((again.code, again.stdout.as_str()), (0, "sandbox second was there already and is connected\n"));
    let other = home.run(&["sandbox", "create", "third", "--image", "x"]);
    assert_eq!(other.code, 64, "{other:?}");
    assert!(other.stderr.contains("only an id"), "{other:?}");
    assert_eq!(home.run(&["sandbox", "show", "third"]).code, 64, "nothing is left of it");
    let supervisor = home.supervisor("second").expect("it runs");
    let deleted = home.run(&["sandbox", "delete", "second"]);
    assert_eq!(deleted.code, 0, "{deleted:?}");
    assert!(!processes::alive(supervisor));
    assert!(!home.directory().join("sandboxes/second").exists());
    assert_eq!(home.run(&["sandbox", "show", "second"]).code, 64);
    assert_eq!(home.status("dev"), "connected");
}

#[test]
fn what_a_supervisor_says_of_a_wrong_setting_is_told() {
    let home = Home::new();
    let mut command = home.command(&["dev", "--listen", "127.0.0.1:0"]);
    let output = command.env("SUPERVISOR_TASK_TIMEOUT", "soon").output().expect("the gateway runs");
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{told}");
    assert!(told.contains("SUPERVISOR_TASK_TIMEOUT") && told.contains("log"), "{told}");
    assert_eq!(home.supervisor("dev"), None);
}
