//! Frames in the order in which a peer may send them: what is stored has each number once and no hole, and what is no record moves no
//! number.

use std::collections::BTreeMap;

use gateway::untrusted;
use protocol::session::{Class, FromSupervisor};

use super::{text, texts};
use crate::Target;

pub(crate) const TARGET: Target = Target { name: "records", longest: 4096, run, seeds };

fn run(data: &[u8]) {
    let Some(text) = text(data) else { return };
    untrusted::hello(text.lines().next().unwrap_or_default(), "a");
    let mut next = BTreeMap::new();
    for line in text.lines() {
        let before: BTreeMap<Class, i64> = next.clone();
        let Some(pieces) = untrusted::records(line, &mut next) else {
            assert_eq!(next, before, "a frame that ends the session moves nothing");
            return;
        };
        let told = class(line);
        for other in Class::ALL.into_iter().filter(|other| Some(*other) != told) {
            assert_eq!(next.get(&other), before.get(&other), "the frame is not of this class");
        }
        let Some(class) = told else {
            assert!(pieces.is_empty(), "stored, and it is no record");
            continue;
        };
        let mut at = before.get(&class).copied().unwrap_or(1);
        for piece in &pieces {
            assert!(piece.seq == at && piece.last >= piece.seq, "a hole, or a number twice");
            at = piece.last + 1;
        }
        assert_eq!(next.get(&class), Some(&at), "the next number is the one behind the last");
    }
}

/// Of a frame of records, or of a gap.
fn class(line: &str) -> Option<Class> {
    match FromSupervisor::decode(line) {
        Ok(FromSupervisor::Data(data)) => Some(data.class),
        Ok(FromSupervisor::Gap(gap)) => Some(gap.class),
        _ => None,
    }
}

fn seeds() -> Vec<Vec<u8>> {
    texts(&[
        "{\"t\":\"data\",\"class\":\"logs\",\"records\":[{\"seq\":1,\"record\":1},{\"seq\":2,\"record\":{}}]}\n\
         {\"t\":\"gap\",\"class\":\"logs\",\"from\":3,\"to\":9,\"bytes\":1,\"reason\":\"budget\"}\n\
         {\"t\":\"data\",\"class\":\"logs\",\"records\":[{\"seq\":9,\"record\":1},{\"seq\":10,\"record\":{}}]}",
        "{\"t\":\"gap\",\"class\":\"lifecycle\",\"from\":1,\"to\":9223372036854775806,\"bytes\":0,\"reason\":\"store\"}",
        SESSION,
    ])
}

/// All that a supervisor may say.
const SESSION: &str = r#"{"t":"hello","protocol":{"min":1,"max":1},"version":"0","capabilities":["stream"],"agent_id":"a","boot_id":"b","log_epoch":"c","classes":{"logs":{"first_unacked":1,"last":2}},"applied":3,"offline":{"after_ms":1000,"action":"keep"},"boot_ms":1,"wall_ms":2}
{"t":"beat","n":1,"d":"0a"}
{"t":"state","d":"0a","state":{"ready":true}}
{"t":"data","class":"logs","records":[{"seq":1,"record":{}}]}
{"t":"applied","n":5,"after":3,"outcomes":[{"n":4,"ok":true,"body":{"id":"t"}},{"n":5,"ok":false,"reason":"unsupported"}]}
{"t":"gap","class":"logs","from":2,"to":9,"bytes":1,"reason":"budget"}
{"t":"data","class":"results","records":[{"seq":1,"record":{}}]}
{"t":"beat","n":2,"d":"0b"}
{"t":"data","class":"logs","records":[{"seq":10,"record":{}}]}
{"t":"applied","n":5,"after":5,"outcomes":[]}
{"t":"later"}
{"t":"bye","reason":"it stops","last":true}"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_session_of_a_seed_goes_to_its_end() {
        assert!(untrusted::hello(SESSION.lines().next().expect("its hello"), "a"));
        let mut next = BTreeMap::new();
        assert!(SESSION.lines().all(|line| untrusted::records(line, &mut next).is_some()), "it ended at {next:?}");
        assert_eq!(next, BTreeMap::from([(Class::Results, 2), (Class::Logs, 11)]));
    }
}
