//! Dev-tasks: what one costs beside a bare spawn, how many a second, how fast output goes, what a flood leaves.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::json;

use super::{Line, median, percentile};
use crate::processes;
use crate::scene;
use crate::supervisor::Supervisor;
use crate::tasks::{Api, receive};
use crate::wait::wait_until;

/// Tasks one after the other, interleaved with bare spawns, so that a busy machine slows both alike.
const ONE_BY_ONE: usize = 500;
const CLIENTS: usize = 8;
/// Tasks of each client.
const EACH: usize = 250;
const MEGABYTES: usize = 200;

/// All of it, fully confined, in one supervisor.
pub fn measure() -> Vec<Line> {
    let supervisor = Supervisor::new().token().set("task-output", "1GiB").start();
    supervisor.wait_ready();
    let api = Api::of(&supervisor);
    let (bare, through) = latency(&api);
    let (p50, p99) = (median(through.clone()), percentile(through, 0.99));
    let bare = median(bare);
    print_ready_shims(&supervisor);
    println!("a bare spawn of `true` in the same run: {bare:.3} ms; through the API p99 {p99:.3} ms");
    let rate = rate(&api);
    let before = processes::resident_kib(supervisor.pid());
    let speed = follow(&api);
    let growth = (processes::resident_kib(supervisor.pid()) - before).max(0.0);
    let flood = flood(&api);
    vec![
        Line::new("`true` through the API, median, in bare spawns", 2.5, p50 / bare, "spawns"),
        Line::new("the same", 1.5, p50, "ms"),
        Line::new("the same, 99th percentile", 4.0, p99, "ms"),
        Line::at_least(format!("tasks a second from {CLIENTS} clients"), 1000.0, rate, "1/s"),
        Line::at_least(format!("{MEGABYTES} MB of output to a follower"), 400.0, speed, "MB/s"),
        Line::new("growth of the resident set by that follower", 4096.0, growth, "KiB"),
        Line::new("/readyz while a task floods and clients run tasks, 99th percentile", 10.0, flood, "ms"),
    ]
}

/// What it costs to have them wait.
fn print_ready_shims(supervisor: &Supervisor) {
    let ready = || processes::children(supervisor.pid()).into_iter().filter(|&pid| processes::name(pid) == "ready");
    wait_until("shims to be ready", || ready().count() > 0);
    for shim in ready() {
        let field = |name: &str| processes::status(shim, name).unwrap_or_default();
        println!("a shim that waits: {} resident, {} of it anonymous", field("VmRSS"), field("RssAnon"));
    }
}

/// One connection that is kept, as a platform would keep it.
pub(super) struct Client {
    stream: Option<TcpStream>,
    request: String,
}

impl Client {
    pub(super) fn new(api: &Api) -> io::Result<Client> {
        let body = r#"{"argv":["/bin/true"]}"#;
        let request = format!(
            "POST /dev-tasks?wait=30s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Length: {}\r\n\r\n{body}",
            scene::CANARY,
            body.len()
        );
        let stream = TcpStream::connect(api.address)?;
        stream.set_nodelay(true)?;
        Ok(Client { stream: Some(stream), request })
    }

    /// One task to its end, in ms.
    pub(super) fn run(&mut self) -> io::Result<f64> {
        let Some(mut stream) = self.stream.take() else { return Err(io::ErrorKind::NotConnected.into()) };
        let start = Instant::now();
        stream.write_all(self.request.as_bytes())?;
        let (head, mut body) = receive(stream.try_clone()?)?;
        let mut text = String::new();
        body.read_to_string(&mut text)?;
        let took = start.elapsed().as_secs_f64() * 1e3;
        assert!(head.status == 201 && text.contains("\"succeeded\""), "{} {text}", head.status);
        self.stream = Some(stream);
        Ok(took)
    }
}

fn latency(api: &Api) -> (Vec<f64>, Vec<f64>) {
    let mut client = Client::new(api).expect("it listens");
    let (mut bare, mut through) = (Vec::new(), Vec::new());
    for _ in 0..ONE_BY_ONE {
        let start = Instant::now();
        // Without a closure before exec the standard library uses posix_spawn.
        Command::new("/bin/true").env_clear().stdin(Stdio::null()).status().expect("/bin/true is there");
        bare.push(start.elapsed().as_secs_f64() * 1e3);
        through.push(client.run().expect("an answer"));
    }
    (bare, through)
}

fn rate(api: &Api) -> f64 {
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut client = Client::new(api).expect("it listens");
                for _ in 0..EACH {
                    client.run().expect("an answer");
                }
            });
        }
    });
    (CLIENTS * EACH) as f64 / start.elapsed().as_secs_f64()
}

/// MB a second from the first byte asked for to the last one read.
fn follow(api: &Api) -> f64 {
    let script = format!("read line; yes | head -c {MEGABYTES}000000");
    let id = api.start(json!({"script": script, "stdin_open": true}));
    api.wait_state(&id, "running");
    let (_, mut body) = api.open("GET", &format!("/dev-tasks/{id}/logs?follow=true"), &[], b"").expect("an answer");
    let start = Instant::now();
    api.post(&format!("/dev-tasks/{id}/stdin/close"), "");
    let read = io::copy(&mut body, &mut io::sink()).expect("all of it");
    let took = start.elapsed().as_secs_f64();
    assert_eq!(read as usize, MEGABYTES * 1_000_000);
    MEGABYTES as f64 / took
}

/// p99 of `/readyz` in ms.
fn flood(api: &Api) -> f64 {
    let create = json!({"script": "head -c 1000000000 /dev/zero", "limits": {"output_bytes": 67_108_864}});
    let id = api.start(create);
    let mut asked = Vec::new();
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut client = Client::new(api).expect("it listens");
                for _ in 0..EACH / 2 {
                    client.run().expect("an answer");
                }
            });
        }
        while asked.len() < 300 {
            let start = Instant::now();
            let answer = crate::http::get(api.address, "/readyz").expect("an answer");
            assert_eq!(answer.status, 200);
            asked.push(start.elapsed().as_secs_f64() * 1e3);
        }
    });
    api.wait_end(&id);
    percentile(asked, 0.99)
}
