//! Several gateways on one real PostgreSQL (001-5, 001-8): whoever has a session answers for it, and sessions move.

use std::net::SocketAddr;

use nix::sys::signal::Signal;
use protocol::session::{Class, FromSupervisor, close};
use tests::balancer::Balancer;
use tests::control_plane::{Builder, Gateway, USER, token_of};
use tests::dialler::{Dialler, hello};
use tests::postgres::Postgres;
use tests::supervisor::Supervisor;
use tests::tasks::Api;
use tests::wait::{wait_for, wait_until};

#[path = "several/calls.rs"]
mod calls;
#[path = "several/faults.rs"]
mod faults;
#[path = "several/leaders.rs"]
mod leaders;
#[path = "several/moves.rs"]
mod moves;

/// One of several.
fn one(server: &Postgres) -> Builder {
    Gateway::build().among_several(&server.url())
}

/// A supervisor of sandbox `id` that dials `gateway`.
fn supervisor(id: &str, gateway: SocketAddr) -> Supervisor {
    builder(id, &format!("ws://{gateway}")).start()
}

fn builder(id: &str, url: &str) -> tests::supervisor::Builder {
    let builder = Supervisor::new();
    let token = builder.path("link-token");
    std::fs::write(&token, token_of(id)).expect("our own directory");
    builder.token().set("gateway-url", url).set("link-token-file", token).set("link-window", "20ms").set("agent-id", id)
}

/// What this gateway says that the sandbox is.
fn status(gateway: &Gateway, id: &str) -> String {
    gateway.api().get(&format!("/v1/sandboxes/{id}")).json()["status"].as_str().unwrap_or_default().to_owned()
}

/// The sandbox's own API by this gateway.
fn api(gateway: &Gateway, id: &str) -> Api {
    Api::at(gateway.address, USER).sandbox(id)
}

fn leads(gateway: &Gateway) -> bool {
    gateway.metric("gateway_leads") > 0.5
}

/// Every gateway has seen the others.
#[track_caller]
fn wait_together(gateways: &[&Gateway]) {
    wait_until("they see each other", || {
        gateways.iter().all(|gateway| gateway.metric("gateway_gateways") == gateways.len() as f64)
    });
}

#[test]
fn one_gateway_alone_and_several_do_not_mix_and_sqlite_is_for_one() {
    let builder = Gateway::build().set("advertise_url", "http://127.0.0.1:1");
    let (code, _, told) = builder.run(&["serve"]);
    assert!(code == 78 && told.contains("GATEWAY_ADVERTISE_URL") && told.contains("PostgreSQL"), "{code} {told}");
    let Some(server) = Postgres::start() else { return };
    let alone = Gateway::build().set("database_url", &server.url()).start();
    let (code, _, told) = one(&server).run(&["serve"]);
    assert!(code == 75 && told.contains("GATEWAY_ADVERTISE_URL"), "{code} {told}");
    drop(alone);
    let (first, second) = (one(&server).start(), one(&server).start());
    let (code, _, told) = Gateway::build().set("database_url", &server.url()).run(&["serve"]);
    assert!(code == 75 && told.contains("another gateway"), "{code} {told}");
    wait_together(&[&first, &second]);
    assert!(leads(&first) != leads(&second), "one of them leads");
}
