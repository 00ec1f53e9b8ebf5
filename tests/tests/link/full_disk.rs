//! A disk that others have filled under the state directory.

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use protocol::session::{Class, FromGateway, FromSupervisor, Record};
use tests::gateway::{Gateway, Session};
use tests::stage::{Pids, Profile, available};
use tests::wait::{LONG, wait_until};

use super::{FAST, linked};

/// Of the class `logs`: each number once, in order, as the line that has it or in a gap.
#[derive(Debug, Default)]
struct Lines {
    next: i64,
    records: i64,
    /// Numbers in gaps that blame the disk.
    refused: i64,
}

impl Lines {
    /// Take, and acknowledge, until `enough`.
    fn take(&mut self, session: &mut Session, enough: impl Fn(&Lines) -> bool) {
        let begun = Instant::now();
        while !enough(self) {
            // Beats go on whatever becomes of the lines.
            assert!(begun.elapsed() < LONG, "{self:?}");
            match session.frame() {
                FromSupervisor::Data(data) => {
                    for entry in data.records.iter().filter(|_| data.class == Class::Logs) {
                        self.next += 1;
                        self.records += 1;
                        let record: Record = serde_json::from_str(entry.record.get()).expect("a record");
                        assert_eq!(entry.seq, self.next, "in order, without a hole");
                        assert_eq!(record.body["text"], format!("line {}", self.next));
                    }
                    let last = data.records.last().expect("at least one").seq;
                    session.send(&FromGateway::Ack { acks: [(data.class, last)].into(), applied: None });
                }
                FromSupervisor::Gap(gap) => {
                    if gap.class == Class::Logs {
                        assert_eq!(gap.from, self.next + 1, "in order, without a hole");
                        self.next = gap.to;
                        self.refused += if gap.reason == "disk" { gap.to - gap.from + 1 } else { 0 };
                    }
                    session.send(&FromGateway::Ack { acks: [(gap.class, gap.to)].into(), applied: None });
                }
                FromSupervisor::Beat { n, .. } => session.send(&FromGateway::Beat { n, state: false, sums: None }),
                _ => {}
            }
        }
    }
}

#[test]
fn a_full_disk_costs_records_that_gaps_tell_of_and_nothing_else_until_there_is_room() {
    if !available(Pids::First, Profile::Plain) {
        return;
    }
    let gateway = Gateway::new();
    let script = "n=0; while :; do n=$((n+1)); echo line $n; sleep 0.01; done";
    let supervisor = linked(&gateway)
        .first()
        .tmpfs("state", 4096)
        .set("buffer-size", "2MiB")
        .set("buffer-reserve", "256KiB")
        .shell(script)
        .start();
    supervisor.wait_ready();
    let mut session = gateway.welcome(FAST);
    let mut lines = Lines::default();
    lines.take(&mut session, |lines| lines.records > 20);

    let ballast = PathBuf::from(format!("/proc/{}/root", supervisor.pid()))
        .join(supervisor.paths().state.join("ballast").strip_prefix("/").expect("an absolute path"));
    let filled = std::io::copy(&mut std::io::repeat(0), &mut fs::File::create(&ballast).expect("its state directory"));
    assert_eq!(filled.expect_err("4 MiB").kind(), std::io::ErrorKind::StorageFull);
    let degraded = || supervisor.metric("supervisor_buffer_degraded") == Some(1.0);
    // What it holds of a file is used up first.
    let begun = Instant::now();
    while !degraded() {
        assert!(begun.elapsed() < LONG, "the disk is full, and nothing says so");
        let some = lines.next + 20;
        lines.take(&mut session, |lines| lines.next >= some || degraded());
    }
    supervisor.wait_log("the disk refuses records of the buffer; they become gaps until it takes them again");
    let written = supervisor.stdout.bytes().len();
    wait_until("the agent writes on", || supervisor.stdout.bytes().len() > written + 2_000);
    assert_eq!(supervisor.get("/readyz").status, 200);
    assert_eq!(supervisor.agent_state(), "running");

    fs::remove_file(&ballast).expect("made above");
    wait_until("there is room again", || supervisor.metric("supervisor_buffer_degraded") == Some(0.0));
    supervisor.wait_log("the disk takes the records of the buffer again");
    lines.take(&mut session, |lines| lines.refused > 0);
    let records = lines.records;
    lines.take(&mut session, |lines| lines.records > records + 100);
    let told = supervisor.metric("supervisor_buffer_gaps_total{reason=\"disk\"}").unwrap_or(0.0);
    assert!(told >= lines.refused as f64, "{told} of {}", lines.refused);
}
