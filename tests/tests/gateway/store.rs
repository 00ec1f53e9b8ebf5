//! A store that cannot: nothing is acknowledged that is not stored, and all goes on when it can again.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use protocol::session::{Class, FromGateway, FromSupervisor, close};
use tests::control_plane::{Gateway, token_of};
use tests::dialler::{Dialler, Received, hello};
use tests::needs;
use tests::wait::wait_until;

/// A process that holds the database's write lock, until it is dropped.
struct Lock(std::process::Child);

impl Lock {
    fn hold(gateway: &Gateway) -> Lock {
        let script = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None); \
                      c.execute('BEGIN IMMEDIATE'); print('held', flush=True); sys.stdin.read()";
        let mut command = Command::new("python3");
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
    if !tests::needs::commands(&["python3"]) {
        return;
    }
    let gateway = Gateway::start();
    let (mut session, _) = Dialler::begin(&gateway, "a");
    session.send_records(Class::Logs, 1..=2);
    session.until_acknowledged(Class::Logs, 2);
    let lock = Lock::hold(&gateway);
    session.send_records(Class::Logs, 3..=4);
    let code = loop {
        match session.receive() {
            Received::Closed(code) => break code,
            Received::Frame(FromGateway::Ack { acks, .. }) => panic!("{acks:?}"),
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
fn while_the_database_takes_no_session_not_more_are_let_in_than_can_begin_and_then_all_are_welcomed() {
    if !tests::needs::commands(&["python3"]) {
        return;
    }
    let gateway = Gateway::build().set("admission_rate", "4").start();
    let mut sessions = ["a", "b", "c", "d"].map(|id| (id, Dialler::dial(&gateway, id)));
    // It refuses them after five seconds; three are left when the last has been kept waiting for two.
    let lock = Lock::hold(&gateway);
    for (id, session) in &mut sessions {
        session.send(&FromSupervisor::Hello(Box::new(hello(id))));
    }
    wait_until("all of them begin", || gateway.metric("gateway_sessions_beginning") >= 4.0);
    let late = Dialler::upgrade(gateway.address, &token_of("e")).expect("an answer");
    assert_eq!(late.err().expect("nobody else may begin").status, 503);
    assert_eq!(gateway.metric("gateway_dials_refused_total{reason=\"behind\"}"), 1.0);
    drop(lock);
    for (_, session) in &mut sessions {
        session.receive_until(|frame| matches!(frame, FromGateway::Welcome(_)).then_some(()));
    }
    let (_session, _) = Dialler::begin(&gateway, "e");
    assert_eq!(gateway.metric("gateway_sessions_beginning"), 0.0);
}

#[test]
fn a_file_that_may_not_grow_is_told_with_4503_and_is_over_when_it_may() {
    // A limit of the process stands for the disk that is full: the write is refused in the same place.
    let mut gateway = Gateway::start();
    let limit = |bytes: &str| {
        let pid = gateway.pid().to_string();
        let status = Command::new("prlimit").args(["--pid", &pid, &format!("--fsize={bytes}:")]).status();
        assert!(status.expect("prlimit").success());
    };
    limit("65536");
    // Again and again: what is refused once leaves nothing behind that could be taken for stored.
    let codes = [(); 4].map(|()| send_until_closed(&gateway));
    assert_eq!(codes, [close::STORE; 4]);
    limit("unlimited");
    let (mut session, welcome) = Dialler::begin(&gateway, "a");
    let next = welcome.next.get(&Class::Logs).copied().unwrap_or(1);
    session.send_records(Class::Logs, next..=next);
    session.until_acknowledged(Class::Logs, next);
    kept(&mut gateway, next);
}

/// Send records from where the gateway wants them until it closes; its code.
fn send_until_closed(gateway: &Gateway) -> u16 {
    let mut session = Dialler::dial(gateway, "a");
    session.send(&FromSupervisor::Hello(Box::new(hello("a"))));
    let mut next = 1;
    loop {
        match session.receive() {
            Received::Closed(code) => return code,
            Received::Lost => panic!("no close"),
            Received::Frame(FromGateway::Welcome(welcome)) => {
                next = welcome.next.get(&Class::Logs).copied().unwrap_or(1)
            }
            _ => {}
        }
        session.send_records(Class::Logs, next..=next + 199);
        next += 200;
    }
}

/// What sandbox `a` was told to be stored is there after kill -9 too.
fn kept(gateway: &mut Gateway, last: i64) {
    gateway.kill();
    gateway.start_again();
    let seqs: Vec<i64> = gateway.events("a").iter().filter_map(|event| event["seq"].as_i64()).collect();
    assert_eq!(seqs, (1..=last).collect::<Vec<_>>());
}

/// Files that nobody may write, also those who have them open, until this is dropped.
struct ReadOnly(Vec<PathBuf>);

impl ReadOnly {
    /// `None` where this file system or user cannot do that; then why is printed.
    fn make(paths: Vec<PathBuf>) -> Option<ReadOnly> {
        if !needs::commands(&["chattr"]) {
            return None;
        }
        let made = Command::new("chattr").arg("+i").args(&paths).output().expect("chattr of e2fsprogs");
        let files = ReadOnly(paths);
        if !made.status.success() {
            eprintln!("skipped: {}", String::from_utf8_lossy(&made.stderr));
            return None;
        }
        Some(files)
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        let _ = Command::new("chattr").arg("-i").args(&self.0).output();
    }
}

/// The files of an SQLite database that are there, but for the one that is memory of its connections.
fn files(database: &Path) -> Vec<PathBuf> {
    let all = ["", "-wal"].map(|end| PathBuf::from(format!("{}{end}", database.display())));
    all.into_iter().filter(|file| file.exists()).collect()
}

#[test]
fn a_database_that_may_only_be_read_is_told_with_4503_and_is_over_when_it_may_be_written() {
    let mut gateway = Gateway::start();
    let (mut session, _) = Dialler::begin(&gateway, "a");
    let (mut beside, _) = Dialler::begin(&gateway, "b");
    session.send_records(Class::Logs, 1..=2);
    session.until_acknowledged(Class::Logs, 2);
    let Some(read_only) = ReadOnly::make(files(&gateway.database())) else { return };
    session.send_records(Class::Logs, 3..=4);
    let code = loop {
        match session.receive() {
            Received::Closed(code) => break code,
            Received::Frame(FromGateway::Ack { acks, .. }) => panic!("{acks:?}"),
            Received::Lost => panic!("no close"),
            _ => {}
        }
    };
    assert_eq!(code, close::STORE);
    gateway.stderr.wait_text("the store refused to write");
    assert!(gateway.metric("gateway_store_failures_total") >= 1.0);
    // Who has nothing to store is not disturbed, and readers go on.
    beside.send(&FromSupervisor::Beat { n: 1, d: "0".into() });
    beside.receive_until(|frame| matches!(frame, FromGateway::Beat { n: 1, .. }).then_some(()));
    assert_eq!(gateway.events("a").len(), 2);
    // Nobody is welcomed whose session cannot be written down.
    let mut refused = Dialler::dial(&gateway, "a");
    refused.send(&FromSupervisor::Hello(Box::new(hello("a"))));
    assert_eq!(refused.close_code(), close::STORE);
    assert_eq!(gateway.api().call("PUT", "/v1/sandboxes/new", &[], b"").status(), 503);
    drop(read_only);
    let (mut session, welcome) = Dialler::begin(&gateway, "a");
    assert_eq!(welcome.next.get(&Class::Logs), Some(&3));
    session.send_records(Class::Logs, 3..=4);
    session.until_acknowledged(Class::Logs, 4);
    beside.send_records(Class::Logs, 1..=1);
    beside.until_acknowledged(Class::Logs, 1);
    kept(&mut gateway, 4);
}

#[test]
fn a_database_that_may_only_be_read_is_not_served() {
    let builder = Gateway::build();
    assert_eq!(builder.run(&["migrate", "up"]).0, 0);
    let Some(_read_only) = ReadOnly::make(files(&builder.directory().join("gateway.db"))) else { return };
    let (code, _, stderr) = builder.run(&["serve"]);
    assert_eq!(code, 75, "{stderr}");
    assert!(stderr.contains("readonly") || stderr.contains("read-only"), "{stderr}");
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
