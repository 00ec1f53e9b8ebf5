//! What is left for those who come later: the kubelet's termination message and the state directory's run record,
//! both written at every change, since after an out-of-memory kill nothing else can be.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use protocol::control::Exit;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};

use crate::agent::{Phase, Status};
use crate::exit::{self, Fault};
use crate::metrics::Metrics;
use crate::state::{RunRecord, RunState, StateDir};
use crate::termination::{Record, TerminationLog};

/// How long a changed mode of the state directory lasts at most.
const MENDING: Duration = Duration::from_secs(10);

/// Writes both. Everything here blocks on a disk and belongs on a thread that may block.
pub(super) struct Recorder {
    state: Arc<StateDir>,
    termination: Arc<Mutex<TerminationLog>>,
    agent_id: String,
    boot_id: String,
    metrics: Arc<Metrics>,
    written: Mutex<Written>,
}

/// What is on disk. An agent that says `STATUS=` a thousand times a second changes nothing of it.
#[derive(Default)]
struct Written {
    record: Option<Record>,
    run: Option<RunRecord>,
    /// The last word has been said.
    closed: bool,
}

impl Recorder {
    pub(super) fn new(
        state: Arc<StateDir>,
        termination: Arc<Mutex<TerminationLog>>,
        agent_id: String,
        boot_id: String,
        metrics: Arc<Metrics>,
    ) -> Recorder {
        Recorder { state, termination, agent_id, boot_id, metrics, written: Mutex::default() }
    }

    /// Record every change, and mend changed modes in between; for as long as the supervisor runs.
    pub(super) async fn follow(self: Arc<Recorder>, mut status: watch::Receiver<Status>) {
        let mut mending = interval(MENDING);
        mending.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let recorder = self.clone();
            tokio::select! {
                changed = status.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let status = status.borrow_and_update().clone();
                    let _ = spawn_blocking(move || recorder.change(&status)).await;
                }
                _ = mending.tick() => drop(spawn_blocking(move || recorder.mend()).await),
            }
        }
    }

    /// What is known now. Before the first launch too: an out-of-memory kill may come at any moment from then on.
    pub(super) fn change(&self, status: &Status) {
        // No agent: there is nothing to tell, and a fault that was told must stay.
        if status.phase == Phase::Absent {
            return;
        }
        self.write(self.record(status, status.phase.name()), Some(status), false);
    }

    /// The agent has ended for good, `exit` is what the supervisor exits with.
    pub(super) fn ended(&self, status: &Status, exit: Exit) {
        let status = Status { phase: Phase::Ended, last_exit: Some(exit), over: true, ..status.clone() };
        self.write(self.record(&status, "ended"), Some(&status), true);
    }

    /// There was no agent, and a stop signal came.
    pub(super) fn stopped(&self) {
        self.write(Record { exit: Some(0), ..self.blank("stopped") }, None, true);
    }

    /// The supervisor cannot go on, or can only answer probes.
    pub(super) fn fault(&self, fault: &Fault, last: bool) {
        self.write(of_fault(fault, &self.agent_id), None, last);
    }

    fn write(&self, record: Record, run: Option<&Status>, last: bool) {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if written.closed {
            return;
        }
        written.closed = last;
        if written.record.as_ref() != Some(&record) {
            self.termination.lock().unwrap_or_else(PoisonError::into_inner).write(&record);
            written.record = Some(record);
        }
        let run = run.and_then(|status| self.run_record(status));
        if run.is_some() && written.run != run {
            let before = self.state.tampered();
            if let Some(Err(error)) = run.as_ref().map(|run| run.save(&self.state)) {
                tracing::error!(error = %exit::reason(&error), "the run could not be recorded");
            }
            self.count_tampering(before);
            written.run = run;
        }
    }

    /// Put back modes that somebody changed; the agent may have our uid, and chmod(2) is not confined.
    fn mend(&self) {
        let before = self.state.tampered();
        self.state.mend(&[RunRecord::FILE]);
        self.count_tampering(before);
    }

    fn count_tampering(&self, before: u64) {
        let mended = self.state.tampered() - before;
        if mended > 0 {
            tracing::warn!(mended, "modes of the state directory were changed by somebody and have been put back");
            self.metrics.state_tampered.inc_by(mended);
        }
    }

    fn run_record(&self, status: &Status) -> Option<RunRecord> {
        let (exit, signal) = parts(status.last_exit.filter(|_| status.over));
        let started = status.started.and_then(|t| t.duration_since(UNIX_EPOCH).ok());
        Some(RunRecord {
            v: RunRecord::VERSION,
            state: run_state(status.phase)?,
            pid: status.pid.unwrap_or(0),
            started_at: started.map_or(0, |t| t.as_millis() as u64),
            exit,
            signal,
            restarts: status.restarts,
            boot_id: self.boot_id.clone(),
        })
    }

    /// The kubelet's reader takes `exit` for this container's: while the agent runs again there is none.
    fn record(&self, status: &Status, state: &'static str) -> Record {
        let (exit, signal) = parts(status.last_exit.filter(|_| status.over));
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
