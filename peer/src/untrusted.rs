//! Parsers of bytes that somebody else writes, each as a function of those bytes: those that `fuzz/` tries with any.

use std::net::IpAddr;
use std::path::Path;

use crate::names::message::{self, Answer, Kind};
use crate::names::settings::{self, Settings};
use crate::tls;

/// What a DNS server's message says of an IPv4 address of `name`, to whoever asked for it by `id`; its addresses.
pub fn answer(message: &[u8], id: u16, name: &str) -> Option<Vec<IpAddr>> {
    if !message::answers(message, id, name, Kind::A) {
        return None;
    }
    match message::addresses(message)? {
        Answer::Addresses(addresses) => Some(addresses),
        Answer::None | Answer::Failed => Some(Vec::new()),
    }
}

/// The question for that.
pub fn question(id: u16, name: &str) -> Option<Vec<u8>> {
    message::is_name(name).then(|| message::question(id, name, Kind::A))
}

/// The container's `resolv.conf`; which names are asked for where `name` is wanted.
pub fn resolver(text: &str, name: &str) -> Vec<String> {
    Settings::parse(text).candidates(name)
}

/// The container's `hosts`; the addresses of `name`.
pub fn hosts(text: &str, name: &str) -> Vec<IpAddr> {
    settings::hosts(text, name)
}

/// A PEM file of those whom to trust; how many it has.
pub fn certificates(file: &[u8]) -> Option<usize> {
    tls::certificates(file, Path::new("ca.pem")).ok().map(|certificates| certificates.len())
}
