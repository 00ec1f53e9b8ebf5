//! `/metrics` in the Prometheus text format: counters as they are, gauges derived when asked.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use protocol::guarantee::State as Standing;
use protocol::health::Status;

use super::health::View;
use super::reply;
use crate::agent::Phase;
use crate::link;
use crate::metrics::Tasks;

type Labelled = Family<Vec<(&'static str, String)>, Gauge<u64, AtomicU64>>;

pub(super) async fn metrics(State(view): State<Arc<View>>) -> Response {
    let mut registry = Registry::with_prefix("supervisor");
    counters(&mut registry, &view);
    tasks(&mut registry, &view.metrics.tasks);
    gauges(&mut registry, &view);
    let mut text = String::new();
    match encode(&mut text, &registry) {
        Ok(()) => {
            let media_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            reply::with_type(StatusCode::OK, media_type, text.into_bytes())
        }
        Err(_) => reply::problem(StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be written"),
    }
}

fn counters(registry: &mut Registry, view: &View) {
    let m = &view.metrics;
    for (name, help, counter) in [
        ("orphans_reaped", "Orphans reaped by the supervisor and its shims", &m.orphans_reaped),
        ("signals_ignored", "Stop signals from inside the Pod that were not obeyed", &m.signals_ignored),
        ("agent_restarts", "Starts of the agent after the first", &m.restarts),
        ("agent_hangs", "Runs of the agent that were ended because it hung", &m.hangs),
        ("agent_stdout_bytes", "Bytes of the agent's standard output passed on", &m.stdout_bytes),
        ("agent_stderr_bytes", "Bytes of the agent's standard error passed on", &m.stderr_bytes),
        ("output_lost_bytes", "Bytes of the agent's output that could not be written", &m.output_lost_bytes),
        ("log_lines_dropped", "Own log lines dropped because standard error was blocked", &m.log_lines_dropped),
        ("journal_damaged", "Lines of the task journal that could not be read", &m.journal_damaged),
        ("journal_sync_failures", "Syncs of the task journal that the disk refused", &m.journal_sync_failures),
        ("buffer_quarantined", "Files of the buffer that could not be read and were put aside", &m.buffer_quarantined),
        ("buffer_syncs", "Syncs of the buffer's files and directory", &m.buffer_syncs),
        ("buffer_sync_failures", "Syncs of the buffer that the disk refused", &m.buffer_sync_failures),
        ("panics", "Panics caught in a connection or task", &m.panics),
        ("state_tampered", "Modes of the state directory that were changed by others and mended", &m.state_tampered),
        ("notify_refused", "Notifications from outside the agent's tree", &m.notify_refused),
        ("link_beats", "Beats sent to the gateway", &m.link_beats),
        ("link_states", "States sent to the gateway", &m.link_states),
        ("link_skipped", "Frames of a later protocol that were skipped", &m.link_skipped),
        ("connections_refused", "Connections closed because too many were open", &m.connections_refused),
    ] {
        registry.register(name, help, counter.clone());
    }
    registry.register("buffer_records", "Records written to the buffer, by class", m.buffer_records.clone());
    registry.register("buffer_gaps", "Numbers that became gaps instead of records, by reason", m.buffer_gaps.clone());
    registry.register("buffer_bytes", "Bytes of the buffer on disk", m.buffer_bytes.clone());
    let journal_degraded = m.journal_degraded.clone();
    registry.register("journal_degraded", "1 while the disk refuses to sync the task journal", journal_degraded);
    registry.register("buffer_degraded", "1 while the disk refuses what the buffer writes", m.buffer_degraded.clone());
    registry.register("attached_clients", "Clients that are attached to dev-tasks now", m.attached.clone());
    registry.register("link_dials", "Dials of the gateway, by what became of them", m.link_dials.clone());
    registry.register(
        "link_commands",
        "Commands of the gateway, by what was to be done and what became of it",
        m.link_commands.clone(),
    );
    registry.register(
        "link_offline",
        "Times without a gateway that were longer than allowed, by what was done then",
        m.link_offline.clone(),
    );
    registry.register("link_ends", "Ends of sessions with the gateway, by reason", m.link_ends.clone());
    registry.register("agent_exits", "Ends of the agent by exit code, 128 + signal where killed", m.exits.clone());
}

fn tasks(registry: &mut Registry, t: &Tasks) {
    let help = "Dev-tasks that are remembered, by class and by the state that they are in";
    registry.register("task_state", help, t.states.clone());
    registry.register("task_accepted", "Dev-tasks accepted, by class", t.accepted.clone());
    registry.register("task_ended", "Dev-tasks that ended, by class and final state", t.ended.clone());
    let help = "Time that dev-tasks waited until they were started, by class";
    registry.register("task_queue_seconds", help, t.queue_seconds.clone());
    let help = "Time from the start of a dev-task's program until nobody of it was left, by class";
    registry.register("task_run_seconds", help, t.run_seconds.clone());
    registry.register("task_queue_depth", "Dev-tasks that wait for their turn", t.queue_depth.clone());
    registry.register("task_output_bytes", "Bytes that dev-tasks wrote, by stream", t.output_bytes.clone());
    registry.register("task_cut_bytes", "Bytes that dev-tasks wrote and that are no longer kept", t.cut_bytes.clone());
}

fn gauges(registry: &mut Registry, view: &View) {
    let health = view.health();
    let agent = view.agent.borrow();
    let labelled = |pairs: &[(&'static str, String, bool)]| {
        let family = Labelled::default();
        for (label, value, on) in pairs {
            family.get_or_create(&vec![(*label, value.clone())]).set(u64::from(*on));
        }
        family
    };
    let states: Vec<_> = Phase::ALL.iter().map(|p| ("state", p.name().to_string(), *p == agent.phase)).collect();
    registry.register("agent_state", "1 for the state that the agent is in", labelled(&states));
    let link = *view.link.borrow();
    let states: Vec<_> = link::Phase::ALL.iter().map(|p| ("state", p.name().to_string(), *p == link)).collect();
    registry.register("link_state", "1 for the state that the link is in", labelled(&states));
    let layers: Vec<_> = agent
        .guarantees
        .iter()
        .filter(|s| s.state != Standing::NotAsked)
        .map(|s| ("guarantee", s.guarantee.name().to_string(), s.state != Standing::Missing))
        .collect();
    registry.register("guarantee", "1 where a guarantee holds for the running agent", labelled(&layers));
    let number = |value: u64| {
        let gauge: Gauge<u64, AtomicU64> = Gauge::default();
        gauge.set(value);
        gauge
    };
    registry.register("ready", "1 when ready", number(u64::from(health.status == Status::Ready)));
    registry.register("landlock_abi", "Landlock ABI in force, 0 for none", number(agent.landlock_abi.into()));
    if let Some(exit) = agent.last_exit {
        let help = "Exit code of the agent's last run, 128 + signal where it was killed";
        registry.register("agent_last_exit_code", help, number(exit.code() as u64));
    }
    let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION")), ("arch", std::env::consts::ARCH)]);
    registry.register("build", "The supervisor itself", build);
}
