//! `supervisor preflight --json` in a Pod says what this node can enforce.

use serde_json::Value;

use crate::cluster::{Level, in_namespace};
use crate::pod::AGENT;
use crate::sandbox::Sandbox;

#[test]
fn preflight_says_in_json_what_the_node_can_enforce() {
    in_namespace(Level::Restricted, async |scene| {
        let pod = Sandbox::shell("").command(&["preflight", "--json"]).start(scene).await;
        let ended = pod.ended().await;
        let log = pod.logs_of(AGENT).await;
        assert_eq!(ended.exit_code, 0, "{log}");
        let report: Value = serde_json::from_str(&log).unwrap_or_else(|e| panic!("not one JSON object ({e}): {log}"));
        assert!(report.is_object(), "{report}");
    });
}
