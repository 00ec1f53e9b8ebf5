//! One file a target.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

pub(crate) mod answers;
pub(crate) mod archives;
pub(crate) mod bodies;
pub(crate) mod control;
pub(crate) mod events;
pub(crate) mod files;
pub(crate) mod frames;
pub(crate) mod identity;
pub(crate) mod journal;
pub(crate) mod kernel;
pub(crate) mod lines;
pub(crate) mod log;
pub(crate) mod messages;
pub(crate) mod names;
pub(crate) mod notifications;
mod peer;
pub(crate) mod pods;
pub(crate) mod programs;
pub(crate) mod records;
pub(crate) mod requests;
pub(crate) mod signed;
pub(crate) mod streams;
pub(crate) mod tasks;
pub(crate) mod templates;

/// As text, where it is; parsers of text get their bytes so from their readers.
fn text(data: &[u8]) -> Option<&str> {
    std::str::from_utf8(data).ok()
}

/// Seeds that are text.
fn texts(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

fn contains(data: &[u8], part: &[u8]) -> bool {
    part.is_empty() || data.windows(part.len()).any(|at| at == part)
}

/// What a person is told who may have a terminal.
fn hold_tame(text: &str) {
    assert!(!text.contains(protocol::words::steers), "it could steer a terminal: {text:?}");
}

/// Of somebody who says everything at once, and goes.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("it waits for a peer that has gone"),
    }
}
