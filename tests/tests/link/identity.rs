//! Who a supervisor says it is: tokens that are over, certificates that are replaced, and two that say they are the same.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use protocol::session::FromGateway;
use serde_json::Value;
use tests::control_plane::{self, token_of};
use tests::gateway::{Gateway, Session};
use tests::issuer::{AUDIENCE, Issuer, NAMESPACE};
use tests::supervisor::{Builder, Supervisor};
use tests::tls::Authority;
use tests::wait::{wait_for, wait_until};

use super::{FAST, link_state};

/// A supervisor of agent `a` at a real gateway, with this token in its file.
fn at(gateway: &control_plane::Gateway, token: &str) -> Builder {
    let builder = Supervisor::new();
    let file = builder.path("token");
    fs::write(&file, token).expect("our own directory");
    builder
        .set("gateway-url", format!("ws://{}", gateway.address))
        .set("link-token-file", file)
        .set("link-window", "10ms")
        .set("agent-id", "a")
        .agent(["sleep", "1000"])
}

fn ends(supervisor: &Supervisor, reason: &str) -> f64 {
    supervisor.metric(&format!("supervisor_link_ends_total{{reason=\"{reason}\"}}")).unwrap_or(0.0)
}

fn dials(supervisor: &Supervisor, outcome: &str) -> f64 {
    supervisor.metric(&format!("supervisor_link_dials_total{{outcome=\"{outcome}\"}}")).unwrap_or(0.0)
}

/// A gateway that knows Pods by the tokens of this issuer.
fn by_tokens_of(issuer: &Issuer) -> control_plane::Gateway {
    let gateway = control_plane::Gateway::build();
    let kubeconfig = gateway.directory().join("kubeconfig");
    fs::write(&kubeconfig, issuer.kubeconfig()).expect("our own directory");
    gateway
        .set("kubernetes_kubeconfig", &kubeconfig.display().to_string())
        .set("identity_audience", AUDIENCE)
        .set("identity_namespaces", NAMESPACE)
        .start()
}

#[test]
fn a_cluster_that_signs_with_another_key_is_believed_by_it_without_a_restart() {
    let mut issuer = Issuer::new("a");
    let gateway = by_tokens_of(&issuer);
    let (before, signed_before) = (at(&gateway, &issuer.token(3600)).start(), issuer.token(3600));
    wait_until("the first session", || link_state(&before) == "connected");
    issuer.rotate();
    let after = at(&gateway, &issuer.token(3600)).start();
    wait_until("a session by the new key", || link_state(&after) == "connected");
    // What the cluster no longer publishes is worth nothing.
    let stale = at(&gateway, &signed_before).start();
    wait_until("the old key is refused", || dials(&stale, "denied") >= 1.0);
}

#[test]
fn a_token_that_is_over_is_refused_by_name_at_both_ends_until_the_kubelet_has_put_a_good_one_there() {
    let issuer = Issuer::new("a");
    let gateway = by_tokens_of(&issuer);
    let over = issuer.token(-60);
    let supervisor = at(&gateway, &over).start();
    wait_until("it goes on trying", || dials(&supervisor, "denied") >= 2.0);
    assert_eq!(supervisor.wait_log("there is no link to the gateway")["kind"], "denied");
    assert!(gateway.metric("gateway_dials_refused_total{reason=\"token\"}") >= 2.0);
    gateway.stderr.wait_text("a service account's token was refused");
    gateway.stderr.wait_text("the service account's token is over");
    assert_eq!(supervisor.get("/readyz").status, 200);
    let good = issuer.token(3600);
    fs::write(supervisor.path("token"), &good).expect("our own file");
    wait_until("it is back", || link_state(&supervisor) == "connected");
    assert_eq!(gateway.api().get("/v1/sandboxes/a").json()["status"], "connected");
    for secret in [over, good] {
        assert!(!gateway.stderr.text().contains(&secret) && !supervisor.stderr.text().contains(&secret));
    }
}

#[test]
fn a_token_that_was_taken_back_is_refused_until_the_file_has_the_next_one() {
    let gateway = control_plane::Gateway::start();
    let supervisor = at(&gateway, "of-last-year").start();
    wait_until("it goes on trying", || dials(&supervisor, "denied") >= 2.0);
    assert!(gateway.metric("gateway_dials_refused_total{reason=\"token\"}") >= 2.0);
    fs::write(supervisor.path("token"), token_of("a")).expect("our own file");
    wait_until("it is back", || link_state(&supervisor) == "connected");
}

#[test]
fn a_replaced_authority_and_a_replaced_certificate_are_used_by_the_next_dial_without_a_restart() {
    let builder = Supervisor::new();
    let folder = builder.path("certificates");
    let [old, new] = ["old", "new"].map(|name| folder.join(name));
    [&old, &new].into_iter().for_each(|folder| fs::create_dir_all(folder).expect("our own directory"));
    let (before, after) = (Authority::new(&old, "ca.pem"), Authority::new(&new, "ca.pem"));
    // One authority vouches for both ends, and the gateway takes nobody without a certificate.
    let mut gateway = Gateway::tls(before.server_for_clients("127.0.0.1"));
    let replace = |authority: &Authority, from: &Path| {
        authority.issue("a-1", from);
        for name in ["ca.pem", "tls.crt", "tls.key"] {
            // As the kubelet does: another file under the same name.
            fs::copy(from.join(name), folder.join("next")).expect("our own directory");
            fs::rename(folder.join("next"), folder.join(name)).expect("our own directory");
        }
    };
    replace(&before, &old);
    let files = [("link-ca-file", "ca.pem"), ("link-cert-file", "tls.crt"), ("link-key-file", "tls.key")];
    let builder = builder.link(&gateway).agent(["sleep", "1000"]);
    let supervisor =
        files.into_iter().fold(builder, |builder, (flag, name)| builder.set(flag, folder.join(name))).start();
    let mut session = gateway.welcome(FAST);
    session.beat();
    // The gateway's comes first, and the old authority does not vouch for it.
    gateway.serve_by(after.server_for_clients("127.0.0.1"));
    drop(session);
    wait_until("a dial that the old authority refuses", || {
        let _ = gateway.try_dial();
        dials(&supervisor, "tls") >= 1.0
    });
    let told = |line: &Value| line["message"] == "there is no link to the gateway" && line["kind"] == "tls";
    wait_until("its log says so", || supervisor.log().iter().any(told));
    replace(&after, &new);
    let mut session = wait_for("a dial by the new ones", || gateway.try_dial().ok()).upgrade();
    session.send(&FromGateway::Welcome(Box::new(Session::usual(FAST))));
    session.beat();
    wait_until("connected", || link_state(&supervisor) == "connected");
}

#[test]
fn two_supervisors_with_one_identity_close_each_other_by_name_and_no_record_is_stored_twice() {
    let gateway = control_plane::Gateway::start();
    let token = token_of("a");
    let first = at(&gateway, &token).start();
    wait_until("the first", || link_state(&first) == "connected");
    let second = at(&gateway, &token).start();
    wait_until("the first is fenced", || ends(&first, "fenced") >= 1.0);
    assert_eq!(first.wait_log("there is no link to the gateway")["kind"], "fenced");
    wait_until("and comes back", || ends(&second, "fenced") >= 1.0);
    assert!(gateway.metric("gateway_session_ends_total{end=\"4409\"}") >= 2.0);
    gateway.stderr.wait_text("a session ended: a newer session of this agent has taken over");
    assert_eq!((first.get("/readyz").status, second.get("/readyz").status), (200, 200), "both agents go on");
    let events = gateway.events("a");
    let number = |event: &Value| (event["epoch"].to_string(), event["class"].to_string(), event["seq"].as_i64());
    // A gap stands for many numbers and has its own fields.
    let records: Vec<&Value> = events.iter().filter(|event| event["record"].is_object()).collect();
    let numbers: BTreeSet<_> = records.iter().map(|event| number(event)).collect();
    assert_eq!(numbers.len(), records.len(), "{events:#?}");
    let started = events.iter().filter(|event| event["record"]["kind"] == "supervisor.started").count();
    assert_eq!(started, 2, "{events:#?}");
}
