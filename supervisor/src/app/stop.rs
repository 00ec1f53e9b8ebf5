//! From running to the exit code.
//!
//! not ready → the agent is told → the grace passes → its whole tree is killed by its shim → as PID 1 everything
//! else is killed → all are reaped → what they wrote is passed on → the last word is recorded → exit as the agent
//! did. One deadline covers it; a second stop signal brings that deadline to now.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use protocol::control::Exit;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::{App, Outputs, Stage};
use crate::agent::{Failed, Order, Outcome};
use crate::exit::Fault;
use crate::init::{self, Request, leftovers};

/// How long a changed mode of the state directory lasts at most.
const MENDING: Duration = Duration::from_secs(10);
/// A shim that has not ended its tree this long after the deadline is itself ended.
const SHIM_PATIENCE: Duration = Duration::from_millis(500);
/// Reaping after the last KILL; the kernel needs microseconds, a process in uninterruptible sleep may need for ever.
const REAP_PATIENCE: Duration = Duration::from_secs(1);
/// The last log lines, when stderr's reader is slow.
pub(super) const LAST_WORDS: Duration = Duration::from_secs(1);

impl App {
    /// Until the end; the exit code.
    pub(super) async fn supervise(mut self) -> u8 {
        let mut deadline: Option<Instant> = None;
        let mut mending = tokio::time::interval(MENDING);
        mending.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let outcome = loop {
            let patience = deadline.map(|d| d + SHIM_PATIENCE);
            tokio::select! {
                outcome = &mut self.agent_task => break outcome,
                ended = &mut self.init => break Outcome::Failed(Failed::Init(format!("{ended:?}"))),
                Some(request) = self.requests.recv() => match request {
                    Request::Forward(signal) => self.agent.order(Order::Forward(signal)).await,
                    Request::Stop(signal) => deadline = Some(self.stop(signal, deadline).await),
                },
                _ = mending.tick() => self.recorder.mend(),
                () = self.recorder.follow(&mut self.agent.status) => {}
                () = sleep_until(patience.unwrap_or_else(Instant::now)), if patience.is_some() => {
                    tracing::error!("the agent's shim did not end its tree in time and is killed");
                    break Outcome::Ended(Exit::Signal(Signal::SIGKILL as i32));
                }
            }
        };
        self.stage.send_replace(Stage::Draining);
        // Told already where a signal came; where the agent ended by itself, its dev-tasks end with it.
        self.end_tasks(deadline).await;
        self.end_everything().await;
        std::mem::take(&mut self.outputs).drain(deadline.unwrap_or_else(|| Instant::now() + self.config.grace)).await;
        self.last_word(outcome).await
    }

    async fn stop(&self, signal: i32, earlier: Option<Instant>) -> Instant {
        let deadline = if earlier.is_some() { Instant::now() } else { Instant::now() + self.config.grace };
        tracing::info!(signal, grace_ms = (deadline - Instant::now()).as_millis() as u64, "stopping");
        self.stage.send_replace(Stage::Draining);
        let tasks = self.tasks.clone();
        tokio::spawn(async move { tasks.stop(deadline).await });
        self.agent.order(Order::Stop { signal, deadline }).await;
        deadline
    }

    /// The same deadline and the same second signal count for tasks that outlive the agent.
    async fn end_tasks(&mut self, deadline: Option<Instant>) {
        let mut told = deadline.is_some();
        let mut until = deadline.unwrap_or_else(|| Instant::now() + self.config.grace);
        loop {
            tokio::select! {
                () = self.tasks.stop(until) => return,
                Some(request) = self.requests.recv() => if let Request::Stop(_) = request {
                    until = if told { Instant::now() } else { until };
                    told = true;
                },
                () = sleep_until(until + SHIM_PATIENCE) => return,
            }
        }
    }

    /// Nobody survives: what is left belongs to a shim that was lost or, as PID 1, was started from outside.
    async fn end_everything(&self) {
        let until = Instant::now() + REAP_PATIENCE;
        while Instant::now() < until {
            if init::is_pid_1() {
                // Spares the sender; ESRCH means that nobody was there to get it.
                let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
            } else {
                leftovers::kill_children(|_| true);
            }
            self.reaper.reap();
            if !self.reaper.has_children() {
                return;
            }
            sleep(Duration::from_millis(2)).await;
        }
        tracing::error!("some processes could not be ended");
    }

    async fn last_word(&self, outcome: Outcome) -> u8 {
        match outcome {
            Outcome::Ended(exit) => {
                self.recorder.ended(&self.agent.status.borrow(), exit);
                exit.code() as u8
            }
            Outcome::NeverRan => {
                self.recorder.stopped();
                0
            }
            Outcome::Failed(failed) => {
                let fault = Fault::new(failed.code(), &failed);
                tracing::error!(exit_code = fault.code, "{}", fault.reason);
                self.recorder.fault(&fault);
                fault.code
            }
        }
    }
}

impl Outputs {
    /// Everything written so far goes out, as far as its reader takes it before `deadline`.
    async fn drain(self, deadline: Instant) {
        for finish in &self.finish {
            finish.notify_one();
        }
        // At least an instant, also when the grace has been used up: what is in a pipe is written at once.
        let time = deadline.saturating_duration_since(Instant::now()).max(LAST_WORDS);
        let all = async {
            for task in self.tasks {
                let _ = task.await;
            }
        };
        if timeout(time, all).await.is_err() {
            tracing::warn!("output of the agent was lost, because nobody read it");
        }
    }
}
