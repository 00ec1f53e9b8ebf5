//! What is left for those who come later: the kubelet's termination message and the state directory's run record,
//! both written at every change, since after an out-of-memory kill nothing else can be.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::UNIX_EPOCH;

use protocol::control::Exit;
use tokio::sync::watch;

use crate::agent::{Phase, Status};
use crate::exit::Fault;
use crate::metrics::Metrics;
use crate::state::{RunRecord, RunState, StateDir, boot_id};
use crate::termination::{Record, TerminationLog};

/// Writes both.
pub(super) struct Recorder {
    state: Arc<StateDir>,
    termination: Arc<Mutex<TerminationLog>>,
    agent_id: String,
    boot_id: String,
    metrics: Arc<Metrics>,
}

impl Recorder {
    pub(super) fn new(
        state: Arc<StateDir>,
        termination: Arc<Mutex<TerminationLog>>,
        agent_id: String,
        metrics: Arc<Metrics>,
    ) -> Recorder {
        let boot_id = boot_id(Path::new("/proc"));
        Recorder { state, termination, agent_id, boot_id, metrics }
    }

    /// Record the next change. Cancel safe: a change that was not recorded is seen again.
    pub(super) async fn follow(&self, status: &mut watch::Receiver<Status>) {
        if status.changed().await.is_err() {
            return std::future::pending().await;
        }
        let status = status.borrow_and_update();
        // No agent: there is nothing to tell, and a fault that was told must stay.
        if status.phase == Phase::Absent {
            return;
        }
        self.write(&self.record(&status, status.phase.name()));
        self.save(&status);
    }

    /// Put back modes that somebody changed; the agent may have our uid, and chmod(2) is not confined.
    pub(super) fn mend(&self) {
        let before = self.state.tampered();
        self.state.mend(&[RunRecord::FILE]);
        self.count_tampering(before);
    }

    /// The first word, before anything runs: an out-of-memory kill may come at any moment from then on.
    pub(super) fn starting(&self, status: &Status) {
        self.write(&self.record(status, status.phase.name()));
        self.save(status);
    }

    /// The agent has ended for good, `exit` is what the supervisor exits with.
    pub(super) fn ended(&self, status: &Status, exit: Exit) {
        let status = Status { phase: Phase::Ended, last_exit: Some(exit), ..status.clone() };
        self.write(&self.record(&status, "ended"));
        self.save(&status);
    }

    /// There was no agent, and a stop signal came.
    pub(super) fn stopped(&self) {
        self.write(&Record { exit: Some(0), ..self.blank("stopped") });
    }

    /// The supervisor cannot go on, or can only answer probes.
    pub(super) fn fault(&self, fault: &Fault) {
        self.write(&of_fault(fault, &self.agent_id));
    }

    fn write(&self, record: &Record) {
        self.termination.lock().unwrap_or_else(PoisonError::into_inner).write(record);
    }

    fn save(&self, status: &Status) {
        let Some(state) = run_state(status.phase) else { return };
        let (exit, signal) = parts(status.last_exit);
        let started = status.started.and_then(|t| t.duration_since(UNIX_EPOCH).ok());
        let record = RunRecord {
            v: RunRecord::VERSION,
            state,
            pid: status.pid.unwrap_or(0),
            started_at: started.map_or(0, |t| t.as_millis() as u64),
            exit,
            signal,
            restarts: status.restarts,
            boot_id: self.boot_id.clone(),
        };
        let before = self.state.tampered();
        if let Err(error) = record.save(&self.state) {
            tracing::error!(error = %crate::exit::Fault::new(0, &error).reason, "the run could not be recorded");
        }
        self.count_tampering(before);
    }

    fn count_tampering(&self, before: u64) {
        let mended = self.state.tampered() - before;
        if mended > 0 {
            tracing::warn!(mended, "modes of the state directory were changed by somebody and have been put back");
            self.metrics.state_tampered.inc_by(mended);
        }
    }

    fn record(&self, status: &Status, state: &'static str) -> Record {
        // The kubelet's reader takes `exit` for this container's: while the agent runs again there is none.
        let over = matches!(status.phase, Phase::Waiting | Phase::Ended);
        let (exit, signal) = parts(status.last_exit.filter(|_| over));
        Record {
            exit: exit.or(signal.map(|s| 128 + s)),
            signal,
            oom: status.oom,
            reason: status.reason.clone(),
            restarts: status.restarts,
            ..self.blank(state)
        }
    }

    fn blank(&self, state: &'static str) -> Record {
        Record { v: 1, state: state.into(), agent_id: self.agent_id.clone(), ..Record::default() }
    }
}

/// For a fault before there is anything else.
pub(super) fn of_fault(fault: &Fault, agent_id: &str) -> Record {
    Record { agent_id: agent_id.into(), ..Record::fault(fault.code.into(), &fault.reason) }
}

fn run_state(phase: Phase) -> Option<RunState> {
    match phase {
        Phase::Absent => None,
        Phase::Starting => Some(RunState::Starting),
        Phase::Running => Some(RunState::Running),
        Phase::Hung | Phase::Stopping => Some(RunState::Stopping),
        Phase::Waiting => Some(RunState::Waiting),
        Phase::Ended => Some(RunState::Ended),
    }
}

fn parts(exit: Option<Exit>) -> (Option<i32>, Option<i32>) {
    match exit {
        Some(Exit::Code(code)) => (Some(code), None),
        Some(Exit::Signal(signal)) => (None, Some(signal)),
        None => (None, None),
    }
}
