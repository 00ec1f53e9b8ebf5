//! What the kernel writes about the Pod; somebody else's kernel, and mounts that somebody else named.

use supervisor::untrusted;

use super::{text, texts};
use crate::Target;

pub(crate) const TARGET: Target = Target { name: "kernel", longest: 4096, run, seeds };

fn run(data: &[u8]) {
    for mount in untrusted::mounts(data) {
        untrusted::inside(&mount, "/workspace/file");
    }
    if let Some(text) = text(data) {
        untrusted::status(text);
    }
}

fn seeds() -> Vec<Vec<u8>> {
    texts(&[
        "22 27 0:21 / /sys rw,nosuid shared:7 - sysfs sysfs rw\n29 1 8:1 /a\\040b /workspace ro - ext4 /dev/x rw,discard\n",
        "Name:\tx\nUid:\t1\t1\t1\t1\nGid:\t1\t2\t0\t0\nCapEff:\t8000000000000003\nSeccomp:\t2\nSeccomp_filters:\t1\n",
        "0 0 4294967295\n",
    ])
}
