//! Health and metrics, derived when asked.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use serde::Serialize;

use super::Api;
use super::reply::{self, Problem};
use crate::sandboxes::Sandboxes;

#[derive(Serialize)]
struct Health {
    /// `ready`, `draining` or `error`.
    status: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'static str,
    version: &'static str,
    /// Live sessions.
    sessions: usize,
    /// Why no sandboxes can be made or ended now; those that run are none the worse.
    #[serde(skip_serializing_if = "Option::is_none")]
    backend_away: Option<String>,
}

impl Api {
    async fn health(&self) -> (StatusCode, Health) {
        let (code, status, reason) = if *self.sessions.draining.borrow() {
            (StatusCode::SERVICE_UNAVAILABLE, "draining", "the gateway stops")
        } else if self.sessions.store.awake_ms().await.is_err() {
            (StatusCode::SERVICE_UNAVAILABLE, "error", "the store cannot be read")
        } else if self.sessions.lease.is_lost() {
            (StatusCode::SERVICE_UNAVAILABLE, "error", "this gateway has no lease among the others")
        } else {
            (StatusCode::OK, "ready", "")
        };
        let backend_away = self.made.as_ref().and_then(Sandboxes::away);
        let sessions = self.sessions.registry.len();
        (code, Health { status, reason, version: env!("CARGO_PKG_VERSION"), sessions, backend_away })
    }
}

/// The event loop turns.
pub(super) async fn live(State(api): State<Arc<Api>>) -> Response {
    let sessions = api.sessions.registry.len();
    let version = env!("CARGO_PKG_VERSION");
    reply::json(StatusCode::OK, &Health { status: "ready", reason: "", version, sessions, backend_away: None })
}

/// New callers are welcome.
pub(super) async fn ready(State(api): State<Arc<Api>>) -> Response {
    let (code, health) = api.health().await;
    reply::json(code, &health)
}

/// For people: the truth in the body, 200 unless something has failed.
pub(super) async fn health(State(api): State<Arc<Api>>) -> Response {
    let (code, health) = api.health().await;
    reply::json(if health.status == "error" { code } else { StatusCode::OK }, &health)
}

/// `/metrics`.
pub(super) async fn metrics(State(api): State<Arc<Api>>) -> Response {
    let mut registry = Registry::with_prefix("gateway");
    let m = &api.sessions.metrics;
    for (name, help, family) in [
        ("session_ends", "Ends of sessions by close code, or bye, or lost", &m.session_ends),
        ("dials_refused", "Dials that were not let in, by reason", &m.refused),
        ("records", "Records handed to the store, by class", &m.records),
        ("lost_sequences", "Sequences that gaps have declared lost, by class", &m.lost),
        ("sandboxes_asked_for", "Sandboxes that were asked for, by what came of it", &m.sandboxes_asked_for),
        ("passed_on", "Requests passed on to another gateway, by what came of it", &m.passed_on),
        (
            "sandboxes_mended",
            "Differences between wanted and existing sandboxes, by what was done",
            &m.sandboxes_mended,
        ),
    ] {
        registry.register(name, help, family.clone());
    }
    for (name, help, counter) in [
        ("store_failures", "Transactions that the database refused", &m.store_failures),
        ("lease_failures", "Times that the lease among the gateways could not be renewed", &m.lease_failures),
        ("leases_lost", "Times that this lease was over, and with it all sessions", &m.leases_lost),
        ("moves", "Sessions that were asked to dial again because another gateway has joined", &m.moves),
        ("events_removed", "Events that are kept no more, by age or by count", &m.events_removed),
        ("panics", "Panics caught in a connection or session", &m.panics),
        ("connections_refused", "Connections closed because too many were open", &m.connections_refused),
    ] {
        registry.register(name, help, counter.clone());
    }
    let number = |value: u64| {
        let gauge: Gauge<u64, AtomicU64> = Gauge::default();
        gauge.set(value);
        gauge
    };
    registry.register("sessions", "Live sessions", number(api.sessions.registry.len() as u64));
    let beginning = api.sessions.admission.beginning() as u64;
    registry.register("sessions_beginning", "Hellos that wait for the store", number(beginning));
    let lease = &api.sessions.lease;
    registry.register("gateways", "Gateways that work with this store", number(lease.gateways() as u64));
    registry.register("leads", "1 where this one does what one does for all", number(u64::from(lease.leads())));
    let away = api.made.as_ref().and_then(Sandboxes::away).is_some();
    registry.register("backend_away", "1 while no sandboxes can be made or ended", number(u64::from(away)));
    let window = u64::try_from(api.sessions.admission.window().as_millis()).unwrap_or(u64::MAX);
    registry.register("reconnect_window_milliseconds", "The window P that sandboxes are told", number(window));
    registry.register("build", "The gateway itself", Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]));
    let mut text = String::new();
    match encode(&mut text, &registry) {
        Ok(()) => {
            let media_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            reply::with_type(StatusCode::OK, media_type, text.into_bytes())
        }
        Err(_) => {
            let problem = Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be written");
            axum::response::IntoResponse::into_response(problem)
        }
    }
}
