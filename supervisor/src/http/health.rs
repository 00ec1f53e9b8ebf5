//! Health, derived from the parts' states at the moment of asking: no code sets it.
//!
//! - live: this answer exists, so the event loop turns. Nothing of the agent or the gateway is in it.
//! - startup: initialisation is over, with or without success.
//! - ready: the agent counts as ready and nothing is stopping. Never the gateway, or an outage of it would take every
//!   Pod out of its Services.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use protocol::health::{AgentHealth, Confinement, Health, LinkHealth, SandboxIdentity, Status};
use protocol::policy::Enforcement;
use tokio::sync::watch;

use super::reply;
use crate::agent::{self, Phase};
use crate::app::Stage;
use crate::link;
use crate::metrics::Metrics;

/// Everything that health and metrics are derived from.
pub struct View {
    /// Who this sandbox is.
    pub identity: SandboxIdentity,
    /// How far the supervisor itself is.
    pub stage: watch::Receiver<Stage>,
    /// The agent.
    pub agent: watch::Receiver<agent::Status>,
    /// The operator's choice.
    pub enforcement: Enforcement,
    /// How the run before this supervisor ended, where it left no word.
    pub previous: watch::Receiver<Option<String>>,
    /// The link to the gateway.
    pub link: watch::Receiver<link::Phase>,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

impl View {
    /// The body.
    pub fn health(&self) -> Health {
        let agent = self.agent.borrow();
        let (status, readiness_reason) = judge(&self.stage.borrow(), &agent);
        Health {
            status,
            readiness_reason,
            identity: self.identity.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            agent: AgentHealth {
                state: agent.phase.name().into(),
                restarts: agent.restarts,
                last_exit_code: agent.last_exit.map(|e| e.code()),
                last_signal: agent.last_exit.and_then(|e| match e {
                    protocol::control::Exit::Signal(signal) => Some(signal),
                    protocol::control::Exit::Code(_) => None,
                }),
                status_text: agent.status_text.clone(),
                previous: self.previous.borrow().clone(),
            },
            confinement: Confinement {
                enforcement: self.enforcement,
                landlock_abi: agent.landlock_abi,
                guarantees: agent.guarantees.clone(),
            },
            link: Some(LinkHealth { state: self.link.borrow().name().into() }),
        }
    }
}

fn judge(stage: &Stage, agent: &agent::Status) -> (Status, String) {
    let because = |status, reason: &str| (status, reason.to_string());
    match stage {
        Stage::Starting => because(Status::Starting, "the supervisor initialises"),
        Stage::Failed(reason) => because(Status::Error, reason),
        Stage::Draining => because(Status::Draining, "the supervisor stops"),
        Stage::Running => match agent.phase {
            Phase::Absent => because(Status::Ready, ""),
            Phase::Running if agent.ready => because(Status::Ready, ""),
            Phase::Running => because(Status::Starting, "the agent has not passed its readiness check yet"),
            Phase::Starting => because(Status::Starting, "the agent is being started"),
            Phase::Waiting => because(Status::Error, "the agent ended and waits for its next start"),
            Phase::Hung => because(Status::Error, &agent.reason),
            Phase::Stopping => because(Status::Draining, "the agent is being stopped"),
            Phase::Ended if agent.reason.is_empty() => because(Status::Error, "the agent has ended"),
            Phase::Ended => because(Status::Error, &agent.reason),
        },
    }
}

pub(super) async fn live(State(view): State<Arc<View>>) -> Response {
    reply::json(StatusCode::OK, &view.health())
}

/// For people and for the four systems' own checks: the truth in the body, 200 unless something failed.
pub(super) async fn health(State(view): State<Arc<View>>) -> Response {
    let health = view.health();
    let status = if health.status == Status::Error { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    reply::json(status, &health)
}

pub(super) async fn ready(State(view): State<Arc<View>>) -> Response {
    let health = view.health();
    reply::json(ok_if(health.status == Status::Ready), &health)
}

pub(super) async fn startup(State(view): State<Arc<View>>) -> Response {
    let started = *view.stage.borrow() != Stage::Starting;
    reply::json(ok_if(started), &view.health())
}

fn ok_if(good: bool) -> StatusCode {
    if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}
