//! A sandbox that has been without its gateway for Y (001-21).

use protocol::session::{Class, OfflineAction};
use serde_json::json;
use tests::gateway::Gateway;
use tests::tasks::Api;

use super::records::take;
use super::{FAST, SLOW, linked};

const OFFLINE: &str = "there was no gateway for as long as this sandbox may be without one";

#[test]
fn a_sandbox_goes_on_without_its_gateway_and_tells_of_it_afterwards() {
    let gateway = Gateway::new();
    let supervisor = linked(&gateway).set("link-offline-after", "300ms").start();
    supervisor.wait_ready();
    supervisor.wait_log(OFFLINE);
    assert_eq!(supervisor.metric("supervisor_link_offline_total{action=\"keep\"}"), Some(1.0));
    assert_eq!(supervisor.health()["status"], "ready");
    let mut session = gateway.welcome(SLOW);
    let offline = session.hello().offline.expect("the gateway is told");
    assert_eq!((offline.after_ms, offline.action), (300, OfflineAction::Keep));
    let mut next = 1;
    take(&mut session, Class::Lifecycle, &mut next, |record| {
        record.kind == "supervisor.offline" && record.body == json!({ "after_ms": 300, "action": "keep" })
    });
}

#[test]
fn without_a_gateway_for_too_long_a_sandbox_stops_where_that_was_chosen() {
    let gateway = Gateway::new();
    let mut supervisor = linked(&gateway).set("link-offline-after", "1s").set("link-offline-action", "stop").start();
    supervisor.wait_ready();
    // A session holds the count for as long as it lasts, here for two seconds.
    let mut session = gateway.welcome(FAST);
    (0..40).for_each(|_| drop(session.beat()));
    assert!(!supervisor.has_ended());
    drop((session, gateway));
    supervisor.wait_log(OFFLINE);
    assert_eq!(supervisor.wait_code(), 143);
}

#[test]
fn a_sandbox_that_stops_after_its_tasks_lets_them_end_first() {
    let gateway = Gateway::new();
    let mut supervisor =
        linked(&gateway).token().set("link-offline-after", "1s").set("link-offline-action", "stop-after-tasks").start();
    supervisor.wait_ready();
    let api = Api::of(&supervisor);
    api.start(json!({ "task_id": "last", "argv": ["cat"], "stdin_open": true }));
    supervisor.wait_log(OFFLINE);
    tests::wait::wait_until("no new task", || api.post("/dev-tasks", r#"{"argv":["true"]}"#).status() == 503);
    assert_eq!(api.task("last")["state"], "running");
    assert!(!supervisor.has_ended());
    api.post("/dev-tasks/last/stdin/close", "");
    assert_eq!(supervisor.wait_code(), 143);
}
