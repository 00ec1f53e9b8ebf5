//! Questions and answers of DNS (RFC 1035), as far as two kinds of records need it.
//!
//! ```text
//! 0  id            2  flags: bit 15 answer, bits 0–3 result
//! 4  questions     6  answers     8, 10  of no interest
//! 12 question: name, kind, class; then answers: name, kind, class, time to live, length, data
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const HEAD: usize = 12;
const INTERNET: u16 = 1;
const NO_SUCH_NAME: u8 = 3;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    A = 1,
    Aaaa = 28,
}

/// What a server says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Addresses(Vec<IpAddr>),
    /// There is no such name, or it has no address of this kind.
    None,
    /// The server cannot tell.
    Failed,
}

/// Whether this can be asked for: at most 253 bytes of labels of 1 to 63.
pub(crate) fn is_name(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    name.len() <= 253 && name.split('.').all(label)
}

/// One question, to be answered by a server that asks others itself.
pub(crate) fn question(id: u16, name: &str, kind: Kind) -> Vec<u8> {
    let mut message = Vec::with_capacity(HEAD + name.len() + 6);
    message.extend(id.to_be_bytes());
    message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    message.extend(asked(name, kind));
    message
}

fn asked(name: &str, kind: Kind) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(name.len() + 6);
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend(label.bytes());
    }
    bytes.push(0);
    bytes.extend((kind as u16).to_be_bytes());
    bytes.extend(INTERNET.to_be_bytes());
    bytes
}

/// Whether this message answers that question and no other.
pub(crate) fn answers(message: &[u8], id: u16, name: &str, kind: Kind) -> bool {
    let asked = asked(name, kind);
    message.len() >= HEAD + asked.len()
        && message[..2] == id.to_be_bytes()
        && message[2] & 0x80 != 0
        && message[4..6] == [0, 1]
        && message[HEAD..HEAD + asked.len()].eq_ignore_ascii_case(&asked)
}

/// The addresses of an answer; `None` where it is not whole. Other kinds of records (aliases) are passed over: the server
/// has followed them.
pub(crate) fn addresses(message: &[u8]) -> Option<Answer> {
    match message.get(3)? & 0x0f {
        0 => {}
        NO_SUCH_NAME => return Some(Answer::None),
        _ => return Some(Answer::Failed),
    }
    let count = u16::from_be_bytes([*message.get(6)?, *message.get(7)?]);
    let mut rest = after_name(message.get(HEAD..)?)?.get(4..)?;
    let mut found = Vec::new();
    for _ in 0..count {
        rest = after_name(rest)?;
        let (head, data) = rest.split_at_checked(10)?;
        let (data, next) = data.split_at_checked(u16::from_be_bytes([head[8], head[9]]).into())?;
        let kind = u16::from_be_bytes([head[0], head[1]]);
        if kind == Kind::A as u16 {
            found.push(IpAddr::from(Ipv4Addr::from(<[u8; 4]>::try_from(data).ok()?)));
        } else if kind == Kind::Aaaa as u16 {
            found.push(IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(data).ok()?)));
        }
        rest = next;
    }
    Some(if found.is_empty() { Answer::None } else { Answer::Addresses(found) })
}

/// Labels end with an empty one or with a pointer, which is not followed: what it points to does not matter here.
fn after_name(mut bytes: &[u8]) -> Option<&[u8]> {
    loop {
        match bytes.split_first()? {
            (0, rest) => return Some(rest),
            (length, rest) if length & 0xc0 == 0xc0 => return rest.get(1..),
            (length, rest) => bytes = rest.get(usize::from(*length)..)?,
        }
    }
}
