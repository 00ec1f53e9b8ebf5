//! What stands in a request's line and headers: queries, ranges, escapes, paths.

use protocol::percent;
use supervisor::untrusted::{self, Relative};

use super::{text, texts};
use crate::Target;

pub(crate) const TARGET: Target = Target { name: "requests", longest: 4096, run, seeds };

const SIZE: u64 = 1000;

fn run(data: &[u8]) {
    for path in [Relative::new(data).ok(), Relative::from_archive(data).ok().flatten()].into_iter().flatten() {
        let steps = |name: &[u8]| matches!(name, b"" | b"." | b"..");
        assert!(!path.names().any(steps), "a path with a step that leads elsewhere");
        assert!(!path.bytes().contains(&0) && !path.bytes().starts_with(b"/"));
        assert_eq!(Relative::new(path.bytes()), Ok(path.clone()), "it is a path only once");
    }
    let Some(text) = text(data) else { return };
    if let Some(bytes) = percent::decode(text) {
        assert!(bytes.len() <= text.len());
    }
    untrusted::query(text);
    if let Some((first, count)) = untrusted::span(text, SIZE) {
        assert!(first + count <= SIZE, "a range that goes past the end");
    }
}

fn seeds() -> Vec<Vec<u8>> {
    texts(&["wait=5s&label=a%3Db", "0-99", "-5", "990-", "all", "a/b/c", "./a//b/", "%41%zz", "18446744073709551615-"])
}
