//! The operator's template of a sandbox's Pod, YAML or JSON.

use super::{text, texts};
use crate::Target;

pub(crate) const TARGET: Target = Target { name: "templates", longest: 4096, run, seeds };

fn run(data: &[u8]) {
    if let Some(text) = text(data) {
        gateway::untrusted::template(text);
    }
}

fn seeds() -> Vec<Vec<u8>> {
    texts(&[
        "spec:\n  containers:\n  - name: agent\n    image: a\n    env: [{name: A, value: '1'}]\n  volumes:\n  - name: t\n    projected: {sources: [{serviceAccountToken: {audience: g, path: token}}], defaultMode: 0440}\n",
        r#"{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"agent"}]}}"#,
        "a: &a [*a]\n",
    ])
}
