//! What the kernel writes about the Pod; somebody else's kernel, and mounts that somebody else named.

use std::path::Component;

use supervisor::untrusted;

use super::{text, texts};
use crate::Target;

pub(crate) const TARGET: Target = Target { name: "kernel", longest: 4096, run, seeds };

fn run(data: &[u8]) {
    let mounts = untrusted::mounts(data);
    for mount in &mounts {
        untrusted::inside(mount, "/workspace/file");
    }
    if let Some(text) = text(data) {
        untrusted::status(text);
        for (group, mount) in untrusted::groups(&mounts, text) {
            let below = group.strip_prefix(mount).expect("it lies beneath its mount");
            assert!(below.components().all(|part| matches!(part, Component::Normal(_))));
        }
    }
    if let Some(parent) = shim::untrusted::parent(data) {
        assert_eq!(untrusted::parent(data), Some(parent), "supervisor and shim know another parent");
    }
}

fn seeds() -> Vec<Vec<u8>> {
    texts(&[
        "22 27 0:21 / /sys rw,nosuid shared:7 - sysfs sysfs rw\n29 1 8:1 /a\\040b /workspace ro - ext4 /dev/x rw,discard\n",
        "Name:\tx\nUid:\t1\t1\t1\t1\nGid:\t1\t2\t0\t0\nCapEff:\t8000000000000003\nSeccomp:\t2\nSeccomp_filters:\t1\n",
        "0 0 4294967295\n",
        "30 24 0:26 / /sys/fs/cgroup ro - cgroup2 cgroup rw\n0::/kubepods/../x\n",
        "31 24 0:27 /pods/a /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n4:memory:/pods/a/b\n",
        "77 (a) R 1 (b)) S 42 77 77 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 123456 1 2",
    ])
}
