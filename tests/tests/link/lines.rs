//! What the agent and tasks write, on its way to the gateway: within a budget, and every line accounted for.

use nix::sys::signal::Signal;
use protocol::session::{Class, FromGateway, FromSupervisor, Record};
use serde_json::{Value, json};
use tests::gateway::{Came, Gateway, Session};
use tests::supervisor::Supervisor;
use tests::tasks::Api;

use tests::wait::wait_until;

use super::{SLOW, link_state, linked};

/// What came of class logs.
#[derive(Default)]
struct Heard {
    /// Bodies of the lines.
    lines: Vec<Value>,
    /// Numbers in gaps, all of them `budget`.
    lost: i64,
    next: i64,
}

impl Heard {
    /// Take and acknowledge what comes until it is enough, or until the supervisor closes.
    fn until(&mut self, session: &mut Session, enough: impl Fn(&Heard) -> bool) {
        while !enough(self) {
            let text = match session.came() {
                Came::Text(text) => text,
                Came::Binary(_) => continue,
                Came::Closed(_) => return,
            };
            let last = match FromSupervisor::decode(&text).expect("a frame") {
                FromSupervisor::Data(data) => {
                    let last = data.records.last().expect("at least one").seq;
                    if data.class == Class::Logs {
                        self.take(data.records.iter().map(|entry| (entry.seq, entry.record.get())));
                    }
                    Some((data.class, last))
                }
                FromSupervisor::Gap(gap) => {
                    assert_eq!((gap.class, gap.reason.as_str(), gap.from), (Class::Logs, "budget", self.next + 1));
                    self.lost += gap.to - gap.from + 1;
                    self.next = gap.to;
                    Some((gap.class, gap.to))
                }
                _ => None,
            };
            if let Some(ack) = last {
                session.send(&FromGateway::Ack { acks: [ack].into(), applied: None });
            }
        }
    }

    fn take<'a>(&mut self, records: impl Iterator<Item = (i64, &'a str)>) {
        for (seq, record) in records {
            assert_eq!(seq, self.next + 1, "in order, without a hole");
            self.next = seq;
            let record: Record = serde_json::from_str(record).expect("a record");
            assert_eq!(record.kind, "line");
            self.lines.push(record.body);
        }
    }
}

#[test]
fn a_flood_is_cut_to_the_budget_and_lines_are_delivered_plus_gaps_exactly() {
    const LINES: i64 = 300_000;
    let gateway = Gateway::new();
    // More than the burst at once, and a line within the budget long after it.
    let script = format!("seq {LINES}; sleep 3; echo end; exec sleep 1000");
    let supervisor = Supervisor::new().link(&gateway).shell(&script).start();
    let mut session = gateway.welcome(SLOW);
    let mut heard = Heard::default();
    heard.until(&mut session, |heard| heard.lines.last().is_some_and(|line| line["text"] == "end"));
    assert_eq!(heard.lines.len() as i64 + heard.lost, LINES + 1);
    let numbers: Vec<i64> = heard.lines.iter().filter_map(|line| line["text"].as_str()?.parse().ok()).collect();
    assert!(numbers.len() > 500 && numbers.is_sorted(), "some came, in order: {}", numbers.len());
    assert!(heard.lost > LINES / 2, "{} of {LINES} are over the budget", heard.lost);
    let gaps = supervisor.metric("supervisor_buffer_gaps_total{reason=\"budget\"}");
    assert_eq!(gaps, Some(heard.lost as f64));
    supervisor.stdout.wait_text("\nend\n");
    assert_eq!(supervisor.stdout.text().lines().count() as i64, LINES + 1, "the output itself is whole");
}

#[test]
fn lines_over_the_budget_are_declared_also_when_no_line_follows() {
    let gateway = Gateway::new();
    let _supervisor = Supervisor::new().link(&gateway).shell("seq 100000; exec sleep 1000").start();
    let mut session = gateway.welcome(SLOW);
    let mut heard = Heard::default();
    heard.until(&mut session, |heard| heard.lines.len() as i64 + heard.lost >= 100_000);
    assert_eq!(heard.lines.len() as i64 + heard.lost, 100_000);
}

#[test]
fn binary_bytes_long_lines_and_a_last_line_without_its_end_arrive_before_the_goodbye() {
    let gateway = Gateway::new();
    let builder = Supervisor::new().link(&gateway);
    // Not before there is a session: a sandbox that ends without one keeps its records on disk.
    let go = builder.path("go");
    let script = r"printf 'a\377b\r\n'; printf '%020000d\n' 7; echo error >&2; printf last";
    let script = format!("until test -e {}; do sleep 0.05; done; {script}", go.display());
    let supervisor = builder.shell(&script).start();
    let mut session = gateway.welcome(SLOW);
    wait_until("connected", || link_state(&supervisor) == "connected");
    std::fs::write(go, "").expect("our own directory");
    let mut heard = Heard::default();
    heard.until(&mut session, |_| false);
    let of = |stream: &str| -> Vec<&Value> { heard.lines.iter().filter(|line| line["stream"] == stream).collect() };
    let agent = |text: &str| json!({"source": "agent", "stream": "stdout", "text": text});
    let stdout = of("stdout");
    assert_eq!(*stdout[0], json!({"source": "agent", "stream": "stdout", "text": "a\u{fffd}b", "lossy": true}));
    assert_eq!((stdout[1]["cut"].as_bool(), stdout[1]["text"].as_str().map(str::len)), (Some(true), Some(16 * 1024)));
    assert_eq!(
        (stdout[2]["cut"].as_bool(), stdout[2]["text"].as_str().map(str::len)),
        (None, Some(20_000 - 16 * 1024))
    );
    assert_eq!(*stdout[3], agent("last"));
    assert_eq!(stdout.len(), 4);
    assert_eq!(of("stderr").iter().filter(|line| line["text"] == "error").count(), 1);
}

#[test]
fn lines_of_tasks_say_whose_they_are_and_none_are_sent_where_that_is_turned_off() {
    for on in ["true", "false"] {
        let gateway = Gateway::new();
        let mut supervisor = linked(&gateway).token().set("link-logs", on).start();
        let mut session = gateway.welcome(SLOW);
        Api::of(&supervisor).run(json!({"task_id": "t-1", "script": "echo out; echo err >&2"}));
        supervisor.signal(Signal::SIGTERM);
        let mut heard = Heard::default();
        heard.until(&mut session, |_| false);
        supervisor.wait_exit();
        let mut lines: Vec<Value> = heard.lines.into_iter().filter(|line| line["source"] == "task").collect();
        lines.sort_by_key(|line| line["stream"].to_string());
        let line =
            |stream: &str, text: &str| json!({"source": "task", "task_id": "t-1", "stream": stream, "text": text});
        let all = [line("stderr", "err"), line("stdout", "out")];
        assert_eq!(lines, if on == "true" { &all[..] } else { &[] });
    }
}
