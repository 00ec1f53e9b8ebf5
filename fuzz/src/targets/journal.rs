//! Lines of the journal of tasks. The engine does not find checksums, so an input is also tried with the right one.

use supervisor::untrusted;

use super::texts;
use crate::Target;

pub(crate) const TARGET: Target = Target { name: "journal", longest: 4096, run, seeds };

fn run(data: &[u8]) {
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
    ])
}
