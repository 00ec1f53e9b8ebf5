//! Alerts and dashboards, held against what the programs really expose.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;

use serde_json::{Value, json};
use tests::chart;
use tests::control_plane::{Gateway, token_of};
use tests::dev::Home;
use tests::dialler::Dialler;
use tests::http;
use tests::prometheus::Prometheus;
use tests::supervisor::Supervisor;
use tests::wait::{wait_for, wait_until};

/// Alerts as a release in `openhive` has them.
fn alerts() -> String {
    let text = fs::read_to_string(chart::directory().join("files/alerts.yaml")).expect("our own file");
    text.replace("RELEASE_NAMESPACE", "openhive")
}

/// The expressions of all panels, each with where it stands.
fn panels() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for file in fs::read_dir(chart::directory().join("files/dashboards")).expect("our own directory").flatten() {
        let board: Value =
            serde_json::from_str(&fs::read_to_string(file.path()).expect("our own file")).expect("a dashboard is JSON");
        for panel in board["panels"].as_array().expect("panels") {
            for target in panel["targets"].as_array().expect("targets") {
                let place = format!("{} / {}", board["title"], panel["title"]);
                found.push((place, target["expr"].as_str().expect("an expression").to_owned()));
            }
        }
    }
    found
}

/// Whose alerts and dashboards these are: a sandbox whose agent ends again and again and says more than it may, with a task; another
/// one that comes and goes; somebody who is not let in; and beside it a gateway that makes sandboxes itself.
fn all_is_going_on() -> (Gateway, Supervisor, Home) {
    let gateway = Gateway::start();
    let supervisor = Supervisor::new();
    let token = supervisor.path("link/token");
    fs::create_dir_all(supervisor.path("link")).expect("our own directory");
    fs::write(&token, token_of("a")).expect("our own directory");
    let supervisor = supervisor
        .shell("for i in $(seq 3000); do echo line; done; echo more >&2; sleep 0.2; exit 3")
        .set("agent-restart", "always")
        .set("agent-restart-min", "10ms")
        .set("agent-restart-max", "20ms")
        .set("gateway-url", format!("ws://{}", gateway.address))
        .set("link-token-file", token)
        .set("link-window", "10ms")
        .set("agent-id", "a")
        .start();
    assert!(Dialler::upgrade(gateway.address, "nobody's").expect("a connection").is_err());
    drop(Dialler::begin(&gateway, "b"));
    wait_until("a task has run", || {
        gateway.api().post("/v1/sandboxes/a/dev-tasks?wait=30s", r#"{"argv":["true"]}"#).status() == 201
    });
    let mut home = Home::new();
    home.start(&[]);
    assert_eq!(home.run(&["sandbox", "create", "more"]).code, 0);
    (gateway, supervisor, home)
}

/// Where the other gateway listens.
fn address(home: &Home) -> SocketAddr {
    let text = fs::read_to_string(home.directory().join("address")).expect("it is written down");
    text.trim().parse().expect("an address")
}

/// Names of the series of an exposition; a family that has none yet is not in it at all.
fn exposed(text: &str) -> BTreeSet<String> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let suffix = |kind: &str| match kind {
        "counter" => "_total",
        "info" => "_info",
        _ => "",
    };
    types.map(|(name, kind)| format!("{name}{}", suffix(kind))).collect()
}

/// Words of an expression that begin as our metrics do.
fn used(expression: &str) -> impl Iterator<Item = &str> {
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("gateway_") || word.starts_with("supervisor_"))
}

#[test]
fn alerts_and_dashboards_name_only_metrics_that_gateway_and_supervisor_expose() {
    let (gateway, supervisor, home) = all_is_going_on();
    let known = || {
        let mut known = exposed(&http::get(gateway.address, "/metrics").expect("it answers").body);
        known.extend(exposed(&supervisor.get("/metrics").body));
        known.extend(exposed(&http::get(address(&home), "/metrics").expect("it answers").body));
        known
    };
    let rules: Value = serde_saphyr::from_str(&alerts()).expect("YAML");
    let groups = rules["groups"].as_array().expect("groups").iter();
    let rules = groups.flat_map(|group| group["rules"].as_array().expect("rules"));
    let of_alerts = rules.map(|rule| (rule["alert"].to_string(), rule["expr"].as_str().expect("text").to_owned()));
    let mut seen = 0;
    for (place, expression) in of_alerts.chain(panels()) {
        for name in used(&expression) {
            wait_until(&format!("{place}: somebody exposes {name}"), || known().contains(name));
            seen += 1;
        }
    }
    assert!(seen > 40, "{seen}");
}

/// 001-19: data that is real.
#[test]
fn every_panel_has_data_in_a_real_prometheus_and_every_alert_can_be_evaluated() {
    let (gateway, supervisor, home) = all_is_going_on();
    let labels = |namespace: &str, pod: &str| json!({ "namespace": namespace, "pod": pod });
    let targets = [
        ("hive-gateway", gateway.address, labels("openhive", "hive-gateway-0")),
        ("hive-gateway-elsewhere", address(&home), labels("elsewhere", "hive-gateway-0")),
        ("hive-sandboxes", supervisor.address(), labels("hive-sandbox", "hive-sandbox-0")),
    ];
    let Some(prometheus) = Prometheus::start(&alerts(), &targets) else { return };
    for (place, expression) in panels() {
        let expression = expression.replace("$__rate_interval", "30s").replace("$namespace", ".*");
        let found = wait_for(&format!("{place}: {expression}"), || {
            let series = prometheus.query(&expression).unwrap_or_else(|error| panic!("{place}: {expression}: {error}"));
            series.first().cloned()
        });
        assert!(found["value"][1].is_string(), "{place}: {found}");
    }
    let rules = wait_for("every rule has been evaluated", || {
        let rules = prometheus.rules();
        (!rules.is_empty() && rules.iter().all(|rule| rule["health"] != "unknown")).then_some(rules)
    });
    for rule in &rules {
        assert_eq!(rule["health"], "ok", "{rule}");
    }
    let pending = |name: &str| rules.iter().any(|rule| rule["name"] == name && rule["state"] != "inactive");
    assert!(!pending("ChaperoneGatewayDown") && !pending("ChaperoneSandboxDisconnected"));
    wait_for("an agent that is started again and again is told of", || {
        let series = prometheus.query("ALERTS{alertname=\"ChaperoneAgentRestarts\"}").unwrap_or_default();
        (!series.is_empty()).then_some(())
    });
    drop(gateway);
    wait_for("a gateway that has gone is told of", || {
        let series = prometheus.query("ALERTS{alertname=\"ChaperoneGatewayDown\"}").unwrap_or_default();
        (!series.is_empty()).then_some(())
    });
}
