//! A store that cannot: nothing is acknowledged that is not stored, and all goes on when it can again.

use std::os::unix::fs::PermissionsExt;

use protocol::session::{Class, close};
use tests::control_plane::Gateway;
use tests::dialler::{Dialler, Received};
use tests::wait::wait_until;

/// A process that holds the database's write lock, until it is dropped.
struct Lock(std::process::Child);

impl Lock {
    fn hold(gateway: &Gateway) -> Lock {
        let script = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None); \
                      c.execute('BEGIN IMMEDIATE'); print('held', flush=True); sys.stdin.read()";
        let mut command = std::process::Command::new("python3");
        command.args(["-c", script]).arg(gateway.database());
        command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let mut child = command.spawn().expect("python3");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("piped");
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).expect("a line");
        assert_eq!(line, "held\n");
        Lock(child)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_database_that_takes_nothing_ends_the_session_with_4503_and_what_was_sent_comes_again() {
    let gateway = Gateway::start();
    let (mut session, _) = Dialler::begin(&gateway, "a");
    session.send_records(Class::Logs, 1..=2);
    session.until_acknowledged(Class::Logs, 2);
    let lock = Lock::hold(&gateway);
    session.send_records(Class::Logs, 3..=4);
    let code = loop {
        match session.receive() {
            Received::Closed(code) => break code,
            Received::Frame(protocol::session::FromGateway::Ack { acks, .. }) => panic!("{acks:?}"),
            Received::Lost => panic!("no close"),
            _ => {}
        }
    };
    assert_eq!(code, close::STORE);
    assert!(gateway.metric("gateway_store_failures_total") >= 1.0);
    gateway.stderr.wait_text("the store refused to write");
    assert_eq!(gateway.api().get("/v1/sandboxes/a/events").status(), 200, "readers go on");
    drop(lock);
    let (mut session, welcome) = Dialler::begin(&gateway, "a");
    assert_eq!(welcome.next.get(&Class::Logs), Some(&3));
    session.send_records(Class::Logs, 3..=4);
    session.until_acknowledged(Class::Logs, 4);
    assert_eq!(gateway.events("a").len(), 4);
}

#[test]
fn a_file_that_may_not_grow_is_told_with_4503_and_is_over_when_it_may() {
    // A limit of the process stands for the disk that is full: the write is refused in the same place.
    let gateway = Gateway::start();
    let (mut session, _) = Dialler::begin(&gateway, "a");
    let limit = |bytes: &str| {
        let pid = gateway.pid().to_string();
        let status = std::process::Command::new("prlimit").args(["--pid", &pid, &format!("--fsize={bytes}:")]).status();
        assert!(status.expect("prlimit").success());
    };
    limit("65536");
    let mut next = 1;
    let code = loop {
        session.send_records(Class::Logs, next..=next + 199);
        next += 200;
        match session.receive() {
            Received::Closed(code) => break code,
            Received::Lost => panic!("no close"),
            _ => {}
        }
    };
    assert_eq!(code, close::STORE);
    limit("unlimited");
    wait_until("it stores again", || {
        let (mut session, welcome) = Dialler::begin(&gateway, "a");
        let next = welcome.next.get(&Class::Logs).copied().unwrap_or(1);
        session.send_records(Class::Logs, next..=next);
        loop {
            match session.receive() {
                Received::Frame(protocol::session::FromGateway::Ack { .. }) => return true,
                Received::Closed(_) | Received::Lost => return false,
                _ => {}
            }
        }
    });
    let seqs: Vec<i64> = gateway.events("a").iter().filter_map(|event| event["seq"].as_i64()).collect();
    assert_eq!(seqs, (1..=seqs.len() as i64).collect::<Vec<_>>());
}

#[test]
fn a_database_that_cannot_be_opened_is_not_served() {
    let builder = Gateway::build();
    assert_eq!(builder.run(&["migrate", "up"]).0, 0);
    let database = builder.directory().join("gateway.db");
    std::fs::set_permissions(&database, std::fs::Permissions::from_mode(0o600)).expect("our own file");
    std::fs::write(&database, "this is no database, and it is long enough to be read as the head of one".repeat(20))
        .expect("our own file");
    let (code, _, stderr) = builder.run(&["serve"]);
    assert_eq!(code, 75, "{stderr}");
}

#[test]
fn a_second_gateway_on_the_same_store_is_refused_until_the_first_has_gone_however_it_went() {
    let mut first = Gateway::start();
    let url = format!("sqlite:{}", first.database().display());
    let second = Gateway::build().set("database_url", &url);
    let (code, _, stderr) = second.run(&["serve"]);
    assert_eq!(code, 75, "{stderr}");
    assert!(stderr.contains("another gateway") && stderr.contains(&first.database().display().to_string()));
    let current = (0, "the schema is current\n".into(), String::new());
    assert_eq!(second.run(&["migrate", "up"]), current, "what changes nothing disturbs nobody");
    assert_eq!(first.api().get("/v1/sandboxes").status(), 200, "the first goes on");
    first.kill();
    assert_eq!(second.run(&["migrate", "up"]), current);
    drop(second.start());
    first.start_again();
}
