//! Files that operators and platforms write: settings, tokens, addresses.

use peer::Address;
use supervisor::untrusted as supervisor;

use super::{text, texts};
use crate::Target;

pub(crate) const TARGET: Target = Target { name: "files", longest: 4096, run, seeds };

fn run(data: &[u8]) {
    let Some(text) = text(data) else { return };
    supervisor::settings(text);
    if let Some(names) = gateway::untrusted::tokens(text) {
        assert!(names <= text.lines().count());
    }
    if let Ok(address) = text.parse::<Address>() {
        let again: Address = address.to_string().parse().expect("an address as we write it");
        assert_eq!(again.to_string(), address.to_string());
    }
}

fn seeds() -> Vec<Vec<u8>> {
    texts(&[
        "grace = \"3s\"\n[agent]\nrestart = \"never\"\nenv = { A = \"1\" }\nwrite = [\"/a\", \"/b\"]\n",
        "# users\nada sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\ngrace secret\n",
        "wss://gateway.example:8443/base",
        "http://[::1]:8080",
    ])
}
