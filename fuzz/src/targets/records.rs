//! Frames of records in the order in which a peer may send them: what is stored has each number once and no hole.

use std::collections::BTreeMap;

use gateway::untrusted;
use protocol::session::Class;

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
        let moved = Class::ALL.into_iter().find(|class| next.get(class) != before.get(class));
        let Some(class) = moved else {
            assert!(pieces.is_empty(), "stored, and nothing moved");
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

fn seeds() -> Vec<Vec<u8>> {
    texts(&[
        "{\"t\":\"data\",\"class\":\"logs\",\"records\":[{\"seq\":1,\"record\":1},{\"seq\":2,\"record\":{}}]}\n\
         {\"t\":\"gap\",\"class\":\"logs\",\"from\":3,\"to\":9,\"bytes\":1,\"reason\":\"budget\"}\n\
         {\"t\":\"data\",\"class\":\"logs\",\"records\":[{\"seq\":9,\"record\":1},{\"seq\":10,\"record\":{}}]}",
        "{\"t\":\"gap\",\"class\":\"lifecycle\",\"from\":1,\"to\":9223372036854775806,\"bytes\":0,\"reason\":\"store\"}",
        "{\"t\":\"hello\",\"protocol\":{\"min\":1,\"max\":1},\"version\":\"0\",\"agent_id\":\"a\",\"boot_id\":\"b\",\"log_epoch\":\"c\",\"classes\":{},\"applied\":0}",
    ])
}
