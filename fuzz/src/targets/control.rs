//! What supervisor and shim tell each other: frames of postcard, cut anywhere.

use protocol::control::{Command, Decoder, Exit, Report, encode};
use protocol::policy::Policy;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Target;

pub(crate) const TARGET: Target = Target { name: "control", longest: 4096, run, seeds };

fn run(data: &[u8]) {
    let Some((how, data)) = data.split_first() else { return };
    let (kind, piece) = (how % 3, usize::from(how / 3) + 1);
    let mut decoder = Decoder::default();
    for piece in data.chunks(piece) {
        decoder.push(piece);
        loop {
            let more = match kind {
                0 => decoder.next::<Policy>().map(|policy| policy.map(|policy| same(&policy))),
                1 => decoder.next::<Command>().map(|command| command.map(|command| same(&command))),
                _ => decoder.next::<Report>().map(|report| report.map(|report| same(&report))),
            };
            match more {
                Ok(Some(())) => {}
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
}

/// What was read is written so that it is read as the same.
fn same<T: Serialize + DeserializeOwned + PartialEq>(message: &T) {
    let mut decoder = Decoder::default();
    decoder.push(&encode(message).expect("it came in a frame"));
    let again = decoder.next::<T>().expect("our own frame").expect("a whole one");
    assert!(again == *message, "it is read as another message");
}

fn seeds() -> Vec<Vec<u8>> {
    let reports = [Report::Exited(Exit::Signal(9)), Report::Orphans(3)];
    let frames = reports.iter().flat_map(|report| encode(report).expect("a small frame"));
    vec![[vec![2], frames.collect()].concat(), vec![0, 4, 0, 0, 0, 1, 2, 3, 4], vec![1, 1, 0, 0, 0, 0]]
}
