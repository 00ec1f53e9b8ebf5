//! What the agent says by `sd_notify`.

use supervisor::untrusted::{Message, notification};

use super::{hold_tame, texts};
use crate::Target;

pub(crate) const TARGET: Target = Target { name: "notifications", longest: 2048, run, seeds };

fn run(data: &[u8]) {
    for message in notification(data) {
        match message {
            Message::Status(text) => {
                assert!(text.chars().count() <= 256);
                hold_tame(&text);
            }
            Message::WatchdogEvery(time) => assert!(!time.is_zero(), "the agent would be late at once"),
            _ => {}
        }
    }
}

fn seeds() -> Vec<Vec<u8>> {
    texts(&[
        "READY=1\nSTATUS=up\x1b[2J\nWATCHDOG_USEC=3000000",
        "RELOADING=1\nMONOTONIC_USEC=1",
        "STOPPING=1\nWATCHDOG=1\nWATCHDOG=trigger\nMAINPID=7",
    ])
}
