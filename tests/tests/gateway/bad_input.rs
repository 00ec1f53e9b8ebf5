//! Each bad input ends with its code, a log line and a count; the session beside it goes on.

use std::io::Write;
use std::time::Duration;

use protocol::session::{Class, Data, Extent, FromGateway, FromSupervisor, Hello, MAX_TEXT, Range, close};
use serde_json::json;
use tests::control_plane::{Gateway, token_of};
use tests::dialler::{Dialler, entry, hello};
use tests::wait::wait_until;

/// Sends something bad after the welcome.
type Bad = (&'static str, u16, fn(&mut Dialler));

fn data(seqs: &[i64]) -> FromSupervisor {
    FromSupervisor::Data(Data {
        class: Class::Logs,
        records: seqs.iter().map(|seq| entry(Class::Logs, *seq)).collect(),
    })
}

const AFTER_WELCOME: &[Bad] = &[
    ("no JSON", close::MALFORMED, |s| s.send_text("hello?")),
    ("JSON without a kind", close::MALFORMED, |s| s.send_text("{}")),
    ("a beat without its number", close::MALFORMED, |s| s.send_text(r#"{"t":"beat"}"#)),
    ("a second hello", close::MALFORMED, |s| s.send(&FromSupervisor::Hello(Box::new(hello("a"))))),
    ("data without records", close::MALFORMED, |s| s.send(&data(&[]))),
    ("a gap that ends before it begins", close::MALFORMED, |s| {
        s.send_text(r#"{"t":"gap","class":"logs","from":2,"to":1,"reason":"x"}"#)
    }),
    ("a class that is not known", close::MALFORMED, |s| {
        s.send_text(r#"{"t":"gap","class":"poems","from":1,"to":1,"reason":"x"}"#)
    }),
    ("a command that was never sent", close::MALFORMED, |s| s.send_text(r#"{"t":"applied","n":5,"outcomes":[]}"#)),
    ("a hole", close::SEQUENCE, |s| s.send(&data(&[2]))),
    ("a hole in the middle", close::SEQUENCE, |s| s.send(&data(&[1, 3]))),
    ("a sequence before the first", close::SEQUENCE, |s| s.send(&data(&[0]))),
    ("sequences that go back", close::SEQUENCE, |s| s.send(&data(&[2, 1]))),
    ("a binary message shorter than its head", close::MALFORMED, |s| s.send_binary(vec![2, 0])),
    ("a binary message that is too long", close::TOO_LARGE, |s| s.send_binary(vec![2; 32 * 1024])),
    ("a text message that is too long", close::TOO_LARGE, |s| s.send_text(&" ".repeat(MAX_TEXT + 1))),
    ("a state that is too long", close::TOO_LARGE, |s| {
        let state = json!({"t": "state", "d": "0", "state": {"x": "y".repeat(20_000)}});
        s.send_text(&state.to_string());
    }),
    ("text that is not UTF-8", close::MALFORMED, |s| {
        let _ = s.stream().write_all(&[0x81, 0x82, 0, 0, 0, 0, 0xff, 0xfe]);
    }),
    ("a frame without its mask", close::MALFORMED, |s| {
        let _ = s.stream().write_all(&[0x81, 0x02, b'{', b'}']);
    }),
];

#[test]
fn every_bad_message_has_its_code_and_the_session_beside_it_goes_on() {
    let gateway = Gateway::start();
    let (mut beside, _) = Dialler::begin(&gateway, "b");
    for (number, (what, code, send)) in (1..).zip(AFTER_WELCOME) {
        let (mut session, _) = Dialler::begin(&gateway, "a");
        send(&mut session);
        assert_eq!(session.close_code(), *code, "{what}");
        beside.send_records(Class::Logs, number..=number);
        beside.until_acknowledged(Class::Logs, number);
    }
    let count = |code: u16| AFTER_WELCOME.iter().filter(|(_, other, _)| *other == code).count() as f64;
    for code in [close::MALFORMED, close::SEQUENCE, close::TOO_LARGE] {
        let name = format!("gateway_session_ends_total{{end=\"{code}\"}}");
        wait_until("every end is counted", || gateway.metric(&name) == count(code));
        gateway.stderr.wait_text(&format!("\"end\":\"{code}\""));
    }
    let stored = gateway.events("a");
    assert!(stored.is_empty(), "{stored:?}");
}

#[test]
fn what_only_a_later_protocol_knows_is_skipped_and_the_session_goes_on() {
    let gateway = Gateway::start();
    let mut session = Dialler::dial(&gateway, "a");
    let hello = protocol::session::encode(&FromSupervisor::Hello(Box::new(hello("a"))));
    session.send_text(&hello.replacen('{', r#"{"mood":"good","#, 1));
    session.receive_until(|frame| matches!(frame, FromGateway::Welcome(_)).then_some(()));
    session.send_text(r#"{"t":"poem","lines":14}"#);
    // Another kind of binary message, and one of a stream that nobody has opened.
    session.send_binary(vec![99, 1, 0, 0, 0]);
    session.send_binary(vec![2, 7, 0, 0, 0, b'x']);
    session.send_text(r#"{"t":"beat","n":1,"d":"0","mood":"good"}"#);
    let answered = |frame| matches!(frame, FromGateway::Beat { n: 1, .. }).then_some(());
    session.receive_until(answered);
    let record = r#"{"wall_ms":1,"boot_ms":1,"kind":"poem.written","body":{},"mood":"good"}"#;
    session.send_text(&format!(
        r#"{{"t":"data","class":"logs","records":[{{"seq":1,"record":{record},"mood":"good"}}]}}"#
    ));
    session.until_acknowledged(Class::Logs, 1);
    session.send_text(r#"{"t":"gap","class":"logs","from":2,"to":3,"reason":"a-later-one","mood":"good"}"#);
    session.until_acknowledged(Class::Logs, 3);
    assert_eq!(gateway.events("a").len(), 2, "a record and a gap");
    session.send_text(r#"{"t":"bye","reason":"over","last":false,"mood":"good"}"#);
    wait_until("it ends as it said", || gateway.metric("gateway_session_ends_total{end=\"bye\"}") == 1.0);
}

#[test]
fn every_bad_hello_has_its_code() {
    let gateway = Gateway::start();
    let with = |change: fn(&mut Hello)| {
        let mut bad = hello("a");
        change(&mut bad);
        protocol::session::encode(&FromSupervisor::Hello(Box::new(bad)))
    };
    let table = [
        ("no hello", close::MALFORMED, r#"{"t":"beat","n":1,"d":"0"}"#.to_string()),
        ("garbage", close::MALFORMED, "\u{0}".into()),
        ("a later protocol", close::PROTOCOL, with(|h| h.protocol = Range { min: 7, max: 9 })),
        ("another agent", close::FORBIDDEN, with(|h| h.agent_id = "b".into())),
        ("a long word", close::MALFORMED, with(|h| h.version = "9".repeat(10_000))),
        ("an odd epoch", close::MALFORMED, with(|h| h.log_epoch = "../x".into())),
        (
            "an extent before the first",
            close::MALFORMED,
            with(|h| {
                h.classes.insert(Class::Logs, Extent { first_unacked: 0, last: 3 });
            }),
        ),
        (
            "an extent that ends before it begins",
            close::MALFORMED,
            with(|h| {
                h.classes.insert(Class::Logs, Extent { first_unacked: 9, last: 3 });
            }),
        ),
        ("a negative command", close::MALFORMED, with(|h| h.applied = -1)),
        ("a command behind which there is no other", close::MALFORMED, with(|h| h.applied = i64::MAX)),
    ];
    for (what, code, text) in table {
        let mut session = Dialler::dial(&gateway, "a");
        session.send_text(&text);
        assert_eq!(session.close_code(), code, "{what}");
    }
    let mut silent = Dialler::dial(&gateway, "a");
    assert_eq!(silent.close_code(), close::TIMEOUT, "no hello at all");
    assert_eq!(gateway.metric("gateway_session_ends_total{end=\"4408\"}"), 1.0);
    gateway.stderr.wait_text("a session ended: no hello within 5 s");
    let known = gateway.api().get("/v1/sandboxes").json();
    assert_eq!(known["sandboxes"].as_array().map(Vec::len), Some(0), "a refused hello leaves nothing");
}

#[test]
fn a_dial_without_the_right_token_or_headers_is_no_session() {
    let gateway = Gateway::start();
    for token in ["", "wrong", "token-of-z"] {
        let refused = Dialler::upgrade(gateway.address, token).expect("an answer").err().expect("refused");
        assert_eq!(refused.status, 401, "{token}: {}", refused.body);
        assert!(refused.head.to_ascii_lowercase().contains("www-authenticate: bearer"), "{}", refused.head);
    }
    let token = token_of("a");
    let usual = format!(
        "Authorization: Bearer {token}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: chaperone.v1\r\n"
    );
    for (status, from, to) in [
        (426, "Upgrade: websocket\r\n", ""),
        (426, "Connection: Upgrade", "Connection: keep-alive"),
        (400, "Version: 13", "Version: 8"),
        (400, "chaperone.v1", "chaperone.v9"),
        (400, "Sec-WebSocket-Key", "X-Key"),
    ] {
        let headers = usual.replacen(from, to, 1);
        let request = format!("GET /v1/session HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
        let mut stream = std::net::TcpStream::connect(gateway.address).expect("a connection");
        stream.write_all(request.as_bytes()).expect("sent");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
        let mut head = [0; 12];
        std::io::Read::read_exact(&mut stream, &mut head).expect("an answer");
        assert_eq!(&head, format!("HTTP/1.1 {status}").as_bytes(), "{to}");
    }
    assert_eq!(gateway.metric("gateway_dials_refused_total{reason=\"token\"}"), 3.0);
}

#[test]
fn a_peer_that_never_reads_is_cut_and_holds_no_memory() {
    let gateway = Gateway::start();
    let (mut session, _) = Dialler::begin(&gateway, "a");
    // Calls to the sandbox are what a peer that does not read would pile up.
    for _ in 0..32 {
        let api = gateway.api();
        std::thread::spawn(move || api.try_call("PUT", "/v1/sandboxes/a/files/x", &[], &vec![b'x'; 1 << 20]));
    }
    let rss = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0 kB").to_string();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0)
    };
    let before = rss();
    let mut n = 0;
    wait_until("it is cut", || {
        // It is not silent, either.
        for _ in 0..100 {
            n += 1;
            session.send(&FromSupervisor::Beat { n, d: "0".into() });
        }
        gateway.metric("gateway_session_ends_total{end=\"4429\"}") == 1.0
    });
    let grown = rss().saturating_sub(before);
    assert!(grown < 64 * 1024, "{grown} KiB more");
    gateway.stderr.wait_text("a session ended: the peer does not read");
}

#[test]
fn a_newer_session_closes_the_older_and_only_it_is_stored() {
    let gateway = Gateway::start();
    let (mut older, first) = Dialler::begin(&gateway, "a");
    let (mut newer, second) = Dialler::begin(&gateway, "a");
    assert!(second.fence > first.fence);
    older.send_records(Class::Logs, 1..=3);
    assert_eq!(older.close_code(), close::FENCED);
    newer.send_records(Class::Logs, 1..=1);
    newer.until_acknowledged(Class::Logs, 1);
    assert_eq!(gateway.metric("gateway_session_ends_total{end=\"4409\"}"), 1.0);
    gateway.stderr.wait_text("a session ended: a newer session of this agent has taken over");
    assert_eq!(gateway.events("a").len(), 1);
    assert_eq!(gateway.api().get("/v1/sandboxes/a").json()["status"], "connected");
}

#[test]
fn silence_ends_a_session_and_its_sandbox_has_not_failed() {
    let gateway = Gateway::build().set("beat", "100ms").start();
    let (mut session, welcome) = Dialler::begin(&gateway, "a");
    assert_eq!(welcome.pace.beat_ms, Some(100));
    session.send(&FromSupervisor::Beat { n: 1, d: "0".into() });
    let state = session.receive_until(|frame| match frame {
        FromGateway::Beat { n: 1, state, .. } => Some(state),
        _ => None,
    });
    assert!(state, "a state that is not known is asked for");
    session.send_text(r#"{"t":"state","d":"0","state":{"status":"ready"}}"#);
    session.send(&FromSupervisor::Beat { n: 2, d: "0".into() });
    let again = session.receive_until(|frame| match frame {
        FromGateway::Beat { n: 2, state, .. } => Some(state),
        _ => None,
    });
    assert!(!again, "and not again");
    assert_eq!(session.close_code(), close::TIMEOUT);
    wait_until("it is away", || gateway.api().get("/v1/sandboxes/a").json()["status"] == "disconnected");
    assert_eq!(gateway.api().get("/v1/sandboxes/a").json()["state"]["status"], "ready");
}
