//! What is told of a sandbox that does not start or has ended: a Pod as the API server has it, with the words of its node, its image and
//! its containers; the end of a log.

use gateway::untrusted;

use super::{hold_tame, text, texts};
use crate::Target;

pub(crate) const TARGET: Target = Target { name: "pods", longest: 4096, run, seeds };

const NOW_MS: i64 = 1_800_000_000_000;
/// What others say is cut, and stands beside words of ours.
const WORDS: usize = 2500;

fn run(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let state = untrusted::pod(text, "agent", NOW_MS);
    let told = state.as_ref().and_then(|state| state.reason()).map(str::to_owned);
    for words in told.into_iter().chain([untrusted::last_words(text)]) {
        hold_tame(&words);
        assert!(words.chars().count() <= WORDS, "{} letters", words.chars().count());
    }
}

fn seeds() -> Vec<Vec<u8>> {
    texts(&[
        r#"{"metadata":{"creationTimestamp":"2026-01-01T00:00:00Z"},"status":{"phase":"Pending","conditions":[{"type":"PodScheduled","status":"False","reason":"Unschedulable","message":"0/3 nodes\u001b[2J","lastTransitionTime":"2026-01-01T00:00:00Z"}]}}"#,
        r#"{"status":{"phase":"Pending","containerStatuses":[{"name":"agent","image":"x\u001b[2J","imageID":"","ready":false,"restartCount":3,"state":{"waiting":{"reason":"ImagePullBackOff","message":"no\nsuch"}}}]}}"#,
        r#"{"status":{"phase":"Running","containerStatuses":[{"name":"agent","image":"x","imageID":"","ready":false,"restartCount":3,"state":{"waiting":{"reason":"CrashLoopBackOff"}},"lastState":{"terminated":{"exitCode":71,"reason":"Error","message":"{\"reason\":\"no\\u0007\"}"}}}],"conditions":[{"type":"Ready","status":"False","reason":"ContainersNotReady"}]}}"#,
        r#"{"spec":{"containers":[],"initContainers":[{"name":"proxy","restartPolicy":"Always"}]},"status":{"phase":"Failed","reason":"Evicted","message":"low","initContainerStatuses":[{"name":"install","image":"x","imageID":"","ready":false,"restartCount":0,"state":{"terminated":{"exitCode":3}}}]}}"#,
        "{\"level\":\"ERROR\",\"message\":\"no\\u001b[2J\"}\n",
        "supervisor: the workspace is missing\x1b[2J\n\n",
    ])
}
