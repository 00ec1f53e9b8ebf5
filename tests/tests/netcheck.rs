//! `supervisor netcheck`: what is open and what is not.

use std::net::{SocketAddr, TcpListener};
use std::process::Command;

use serde_json::Value;
use tests::binaries;

/// Exit code and standard output.
fn netcheck(arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(binaries::supervisor()).arg("netcheck").args(arguments).output().expect("it runs");
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let address: SocketAddr = listener.local_addr().expect("bound");
    (listener, address.to_string())
}

#[test]
fn what_is_as_said_is_0_and_each_is_told() {
    let (_open, open) = listener();
    let (closed, refused) = listener();
    drop(closed);
    let (code, told) = netcheck(&["--open", &open, "--closed", &refused]);
    assert_eq!(code, Some(0), "{told}");
    assert_eq!(told, format!("ok    {open} should be open: open\nok    {refused} should be closed: refused\n"));
}

#[test]
fn what_is_open_and_should_not_be_is_1() {
    let (_first, first) = listener();
    let (_second, second) = listener();
    let (code, told) = netcheck(&["--open", &first, "--closed", &second, "--settle", "0s", "--json"]);
    assert_eq!(code, Some(1), "{told}");
    let findings: Value = serde_json::from_str(&told).expect("JSON");
    assert_eq!(findings[1]["found"], "open");
    assert_eq!((&findings[0]["ok"], &findings[1]["ok"]), (&Value::Bool(true), &Value::Bool(false)));
}

#[test]
fn what_opens_in_a_moment_is_waited_for() {
    let (closed, address) = listener();
    drop(closed);
    let opens = std::thread::spawn({
        let address = address.clone();
        move || {
            // Long enough that a check which does not wait has looked.
            std::thread::sleep(std::time::Duration::from_millis(700));
            TcpListener::bind(address).expect("the port is still free")
        }
    });
    let (code, told) = netcheck(&["--open", &address]);
    assert_eq!(code, Some(0), "{told}");
    drop(opens.join());
}

#[test]
fn closed_alone_proves_nothing_and_is_refused() {
    assert_eq!(netcheck(&["--closed", "127.0.0.1:1"]).0, Some(64));
    assert_eq!(netcheck(&["--open", "localhost"]).0, Some(64));
}
