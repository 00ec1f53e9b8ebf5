//! What a gateway began while it led, and what becomes of it where another one leads since.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use serde_json::json;

use super::*;
use crate::backend::{TEMPLATE, in_cluster};

/// A cluster's API that has nothing, and can be slow to say so.
struct Cluster {
    address: SocketAddr,
    says: Arc<(Mutex<Says>, Condvar)>,
}

struct Says {
    /// A status code; nothing for as long as there is none.
    code: Option<u16>,
    /// The heads of requests.
    asked: Vec<String>,
}

impl Cluster {
    /// It answers everything with this status.
    fn saying(code: u16) -> Cluster {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let address = listener.local_addr().expect("it is bound");
        let says = Arc::new((Mutex::new(Says { code: Some(code), asked: Vec::new() }), Condvar::new()));
        let cluster = Cluster { address, says: says.clone() };
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let says = says.clone();
                // A gateway that hangs up is none of its business.
                thread::spawn(move || drop(answer(stream, &says)));
            }
        });
        cluster
    }

    fn now_says(&self, code: Option<u16>) {
        self.says.0.lock().expect("nobody panics with it").code = code;
        self.says.1.notify_all();
    }

    fn was_asked(&self, words: &str) -> bool {
        self.says.0.lock().expect("nobody panics with it").asked.iter().any(|head| head.contains(words))
    }
}

fn answer(stream: TcpStream, (says, changed): &(Mutex<Says>, Condvar)) -> std::io::Result<()> {
    let mut reader = BufReader::new(&stream);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let start = head.len();
        if reader.read_line(&mut head)? <= 2 {
            break;
        }
        if let Some(value) = head[start..].to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    std::io::copy(&mut reader.take(length), &mut std::io::sink())?;
    let mut says = says.lock().expect("nobody panics with it");
    says.asked.push(head);
    let code = loop {
        match says.code {
            Some(code) => break code,
            None => says = changed.wait(says).expect("nobody panics with it"),
        }
    };
    drop(says);
    let reason = if code == 404 { "NotFound" } else { "InternalError" };
    let body = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason });
    let (body, mut stream) = (body.to_string(), &stream);
    write!(
        stream,
        "HTTP/1.1 {code} No\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[test]
fn who_does_not_lead_any_more_neither_gives_up_nor_forgets_a_sandbox() {
    let Some(server) = Postgres::start() else { return };
    let cluster = Cluster::saying(500);
    let start = || in_cluster(one(&server), cluster.address, TEMPLATE).start();
    let gateways = [start(), start()];
    wait_together(&gateways.each_ref());
    let led = usize::from(leads(&gateways[1]));
    cluster.now_says(None);
    server.sql("gateway", "INSERT INTO sandboxes (id, created_ms, fence, spec) VALUES ('ended', 1, 1, '{}')");
    let leader = &gateways[led];
    let (made, ended) = thread::scope(|scope| {
        let made = scope.spawn(|| leader.api().post("/v1/sandboxes", r#"{"id":"made"}"#).status());
        let ended = scope.spawn(|| leader.api().call("DELETE", "/v1/sandboxes/ended", &[], b"").status());
        wait_until("both are under way", || cluster.was_asked("made") && cluster.was_asked("ended"));
        // Another one leads. It has ended the one; the same was asked for again, and has told something.
        server.sql(
            "gateway",
            "UPDATE leader SET gateway = (SELECT id FROM gateways WHERE id <> leader.gateway); \
             UPDATE sandboxes SET ending = 0, created_ms = 2, position = 1 WHERE id = 'ended'; \
             INSERT INTO records (sandbox, position, class, epoch, seq, last, gap, body, stored_ms) \
             VALUES ('ended', 1, 'logs', 'e', 1, 1, 0, '{}', extract(epoch FROM now()) * 1000)",
        );
        wait_until("the other leads", || leads(&gateways[1 - led]) && !leads(leader));
        cluster.now_says(Some(404));
        (made.join().expect("an answer"), ended.join().expect("an answer"))
    });
    assert_eq!((made, ended), (503, 503), "they are asked again, of the one that leads");
    let wanted = "SELECT count(*) FROM sandboxes WHERE spec IS NOT NULL AND ending = 0";
    assert_eq!(server.sql("gateway", wanted), "2");
    assert_eq!(server.sql("gateway", "SELECT count(*) FROM records WHERE class = 'logs'"), "1");
}
