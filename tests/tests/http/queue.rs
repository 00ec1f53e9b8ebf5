//! Who waits to be accepted.

use std::net::SocketAddr;
use std::process::Command;

use tests::control_plane::Gateway;
use tests::needs;

use super::supervisor;

/// How many may wait at the listener of this address, as the kernel tells it (ss(8): `Send-Q` of one that listens).
fn queue(address: SocketAddr) -> u64 {
    let listening = Command::new("ss").args(["-Hltn", &format!("sport = :{}", address.port())]).output().expect("ss");
    let told = String::from_utf8(listening.stdout).expect("text");
    told.split_whitespace().nth(2).and_then(|queue| queue.parse().ok()).unwrap_or_else(|| panic!("{address}: {told:?}"))
}

#[test]
fn as_many_as_the_kernel_allows_wait_to_be_accepted() {
    if !needs::commands(&["ss"]) {
        return;
    }
    let allowed: u64 =
        std::fs::read_to_string("/proc/sys/net/core/somaxconn").expect("proc").trim().parse().expect("a number");
    let (_supervisor, api) = supervisor();
    assert_eq!(queue(api.address), allowed);
    assert_eq!(queue(Gateway::start().address), allowed);
}
