//! The first frame: who dials, and what the gateway makes of it.

use std::collections::BTreeMap;

use protocol::session::{Class, FromSupervisor, Hello, Range, close};

use super::end::End;
use crate::tokens::is_name;

/// The longest of the words that a supervisor chooses: versions, epochs, names.
const MAX_WORD: usize = 256;

/// The hello in the first message, for the sandbox that the token is for; and the number that both sides speak.
pub(crate) fn read(text: &str, sandbox: &str) -> Result<(Box<Hello>, u32), End> {
    let hello = match FromSupervisor::decode(text) {
        Ok(FromSupervisor::Hello(hello)) => hello,
        Ok(_) => return Err(End::malformed("the first frame is no hello")),
        Err(error) => return Err(End::malformed(error.to_string())),
    };
    // Before anything else is looked at: another protocol may mean other things by the same fields.
    let protocol = hello.protocol.agree(Range::OURS).ok_or_else(|| {
        let Range { min, max } = Range::OURS;
        End::close(close::PROTOCOL, format!("this gateway speaks protocol {min} to {max}"))
    })?;
    if hello.agent_id != sandbox {
        return Err(End::close(close::FORBIDDEN, "the token is for another agent"));
    }
    check(&hello)?;
    Ok((hello, protocol))
}

/// Numbers of commands go on from what a hello says, and never get there.
const MOST: i64 = i64::MAX / 2;

fn check(hello: &Hello) -> Result<(), End> {
    let words = [&hello.version, &hello.project_id, &hello.controller_id, &hello.boot_id, &hello.log_epoch];
    if words.into_iter().chain(&hello.capabilities).any(|word| word.len() > MAX_WORD) || hello.capabilities.len() > 64 {
        return Err(End::malformed(format!("a word of the hello is longer than {MAX_WORD} bytes")));
    }
    if !is_name(&hello.log_epoch) {
        return Err(End::malformed("log_epoch has letters, digits, dots, dashes and underscores"));
    }
    let extents = hello.classes.values();
    let fits = |first: i64, last: i64| first >= 1 && last >= first - 1 && last < i64::MAX;
    if !extents.into_iter().all(|extent| fits(extent.first_unacked, extent.last)) || !(0..MOST).contains(&hello.applied)
    {
        return Err(End::malformed("sequences begin with 1, and an extent ends at its begin or behind it"));
    }
    Ok(())
}

/// Sequences that the supervisor was told are stored, and that this gateway does not have: its store was lost or is an older
/// copy. They will never come, and a gap says so.
pub(super) fn lost_here(hello: &Hello, next: &BTreeMap<Class, i64>) -> Vec<(Class, i64, i64)> {
    let lost = |(class, extent): (&Class, &protocol::session::Extent)| {
        let expected = next.get(class).copied().unwrap_or(1);
        (extent.first_unacked > expected).then_some((*class, expected, extent.first_unacked - 1))
    };
    hello.classes.iter().filter_map(lost).collect()
}
