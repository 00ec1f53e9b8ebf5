//! What a supervisor before this one has left: lines of the journal of tasks, its agent's last run, its link's window, what became of the
//! gateway's commands. The engine does not find checksums, so an input is also tried with the right one.

use std::time::Duration;

use supervisor::state::{RunRecord, RunState};
use supervisor::untrusted;

use super::texts;
use crate::Target;

pub(crate) const TARGET: Target = Target { name: "journal", longest: 4096, run, seeds };

/// The first dial is never later.
const HOUR: Duration = Duration::from_secs(3600);

fn run(data: &[u8]) {
    if let Ok(run) = serde_json::from_slice::<RunRecord>(data) {
        let written = serde_json::to_vec(&run).expect("JSON");
        assert_eq!(serde_json::from_slice::<RunRecord>(&written).expect("our own"), run);
        assert!(run.silent_end().is_none() || run.state != RunState::Ended, "it had left its last word");
    }
    if let Some(wait) = untrusted::left_behind(data) {
        assert!(wait <= HOUR, "it dials after {wait:?}");
    }
    if let Some((applied, outcomes, written)) = untrusted::commands(data) {
        let again = untrusted::commands(&written);
        assert_eq!(again, Some((applied, outcomes, written)), "the gateway is told otherwise after one start more");
    }
    untrusted::journal(data);
    let Some(record) = untrusted::journal(&summed(data)) else { return };
    let line = untrusted::journal_line(&record).expect("what was read can be written");
    assert_eq!(untrusted::journal(&line).as_ref(), Some(&record));
}

fn summed(json: &[u8]) -> Vec<u8> {
    let json: Vec<u8> = json.iter().copied().filter(|byte| *byte != b'\n').collect();
    [format!("{:08x} ", crc32c::crc32c(&json)).into_bytes(), json, b"\n".to_vec()].concat()
}

fn seeds() -> Vec<Vec<u8>> {
    texts(&[
        r#"{"v":1,"task":{"task_id":"t-1","backend_run_id":"b","state":"running","agent_id":"a","argv":["true"],"execution_class":"local"}}"#,
        r#"{"v":1,"task":{},"deleted":true}"#,
        "00000000 {}\n",
        r#"{"v":1,"state":"running","pid":7,"started_at":1800000000000,"exit":null,"signal":null,"restarts":2,"boot_id":"b"}"#,
        r#"{"window_ms":18446744073709551615}"#,
        r#"{"applied":7,"outcomes":[{"n":6,"ok":true,"body":{"task_id":"t-1","state":"queued"}},{"n":7,"ok":false,"reason":"unsupported"}]}"#,
    ])
}
