//! The bodies of requests for a task, for a signal to one, and for the approval of its patch.

use std::os::unix::ffi::OsStrExt;
use std::sync::LazyLock;

use supervisor::tasks::Config;
use supervisor::untrusted;

use super::texts;
use crate::Target;

pub(crate) const TARGET: Target = Target { name: "tasks", longest: 4096, run, seeds };

static BOUNDS: LazyLock<Config> = LazyLock::new(untrusted::bounds);

fn run(data: &[u8]) {
    if let Some(signal) = untrusted::signal(data) {
        assert!((1..=64).contains(&signal), "kill(2) would mean something else");
    }
    if let Some(name) = untrusted::approval(data) {
        assert!(name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit()), "it is the name of a file");
    }
    let Some(spec) = untrusted::task(data, &BOUNDS) else { return };
    assert!(!spec.argv.is_empty() && !spec.argv[0].is_empty(), "nothing to run");
    let commands = [Some(&spec.argv), spec.setup.as_ref(), spec.teardown.as_ref()];
    for word in commands.into_iter().flatten().flatten() {
        assert!(!word.as_bytes().contains(&0), "execve(2) takes no NUL");
    }
    assert!(spec.env.iter().all(|(name, value)| !name.contains(['=', '\0']) && !value.contains('\0')));
    assert!(spec.cwd.is_none_or(|cwd| cwd.is_absolute()));
    assert!(spec.timeout <= BOUNDS.timeout && spec.output_bytes <= BOUNDS.output_bytes, "beyond the operator's bounds");
}

fn seeds() -> Vec<Vec<u8>> {
    texts(&[
        r#"{"argv":["true"]}"#,
        r#"{"script":"exit 3","task_id":"t-1","cwd":"/workspace","env":{"A":"1"},"timeout":"10s","execution_class":"networked","connect_ports":[443],"priority":5,"labels":{"a":"b"}}"#,
        r#"{"argv":["cat"],"stdin_b64":"aGk=","stdin_open":true,"limits":{"output_bytes":1024,"open_files":64},"setup":["a"],"teardown":["b"]}"#,
        r#"{"argv":["sh"],"terminal":{"rows":24,"cols":80}}"#,
        r#"{"signal":15}"#,
        r#"{"sha256":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}"#,
    ])
}
