//! Parsers of bytes that somebody else writes, each as a function of those bytes: those that `fuzz/` tries with any.
//!
//! Each answers with what it made of them, so that it can be held to its promises.

use std::path::Path;

use protocol::session::FromSupervisor;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::backend::kubernetes::template::Template;
use crate::sessions::wire::{Event, Wire};
use crate::sessions::{hello, sequence};
use crate::store::{Cursors, Piece};
use crate::tokens;

/// What a session of `agent` begins with.
pub fn hello(text: &str, agent: &str) -> bool {
    hello::read(text, agent).is_ok()
}

/// One frame of records on its way to the store that expects `next`: what of it is stored. `None` where it ends the session.
pub fn records(text: &str, next: &mut Cursors) -> Option<Vec<Piece>> {
    let (class, taken) = match FromSupervisor::decode(text).ok()? {
        FromSupervisor::Data(data) => {
            (data.class, sequence::of_data(next.get(&data.class).copied().unwrap_or(1), data))
        }
        FromSupervisor::Gap(gap) => (gap.class, sequence::of_gap(next.get(&gap.class).copied().unwrap_or(1), gap)),
        _ => return Some(Vec::new()),
    };
    let (pieces, expected) = taken.ok()?;
    next.insert(class, expected);
    Some(pieces)
}

/// What comes over the WebSocket of a session: the lengths of its messages, until it ends.
pub async fn messages(stream: impl AsyncRead + AsyncWrite + Unpin) -> Vec<usize> {
    let mut wire = Wire::new(stream).await;
    let mut lengths = Vec::new();
    loop {
        match wire.event(true).await {
            Ok(Event::Text(text)) => lengths.push(text.len()),
            Ok(Event::Binary(bytes)) => lengths.push(bytes.len()),
            Ok(Event::Sign | Event::Sent) => {}
            Err(_) => return lengths,
        }
    }
}

/// A file of tokens; how many names it has.
pub fn tokens(text: &str) -> Option<usize> {
    tokens::parse(Path::new("tokens"), text).ok().map(|names| names.len())
}

/// The operator's Pod template; whether sandboxes are made of it.
pub fn template(text: &str) -> bool {
    Template::parse(text).is_ok()
}
