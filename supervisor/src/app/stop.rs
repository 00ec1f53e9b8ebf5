//! From running to the exit code.
//!
//! not ready → the agent is told → the grace passes → its whole tree is killed by its shim → as PID 1 everything
//! else is killed → all are reaped → what they wrote is passed on → the last word is recorded → the gateway is told → exit as the agent
//! did. One deadline covers it; a second stop signal brings that deadline to now, at whichever of these steps it comes.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use protocol::control::Exit;
use protocol::session::Class;
use serde_json::json;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::{App, Outputs, Stage};
use crate::agent::{Failed, Order, Outcome};
use crate::exit::{self, Fault};
use crate::init::{self, Stops, leftovers};
use crate::link;

/// A shim that has not ended its tree this long after the deadline is itself ended.
const SHIM_PATIENCE: Duration = Duration::from_millis(500);
/// Reaping after the last KILL; the kernel needs microseconds, a process in uninterruptible sleep may need for ever.
const REAP_PATIENCE: Duration = Duration::from_secs(1);
/// The last beat. It is sent when everything else is done, and a gateway that is away must not keep the Pod.
const FAREWELL: Duration = Duration::from_secs(1);
/// The last log lines and the last record, when a reader or a disk is slow.
pub(super) const LAST_WORDS: Duration = Duration::from_secs(1);

impl App {
    /// Until the end; the exit code.
    pub(super) async fn supervise(mut self) -> u8 {
        let mut deadline: Option<Instant> = None;
        let outcome = loop {
            let patience = deadline.map(|d| d + SHIM_PATIENCE);
            tokio::select! {
                ended = &mut self.agent_task => break ended.unwrap_or_else(|e| bug(&e)),
                ended = &mut self.init => break bug(&format!("signals are no longer handled: {ended:?}")),
                ended = &mut self.listener => break bug(&format!("the listener has ended: {ended:?}")),
                Ok(()) = self.stops.changed() => deadline = Some(self.stop(deadline).await),
                Some(ending) = self.endings.recv() => self.end(ending),
                Some(signal) = self.forwards.recv() => self.agent.order(Order::Forward(signal)).await,
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
        self.drain(deadline).await;
        let (link, feed, buffer) = (self.link.clone(), self.feed.clone(), self.buffer.clone());
        self.lines.declare();
        let code = self.last_word(outcome).await;
        let last = async {
            feed.tell_for_good(Class::Lifecycle, "supervisor.stopped", json!({ "exit_code": code })).await;
            link.finish(FAREWELL).await;
            match buffer {
                Some(buffer) => buffer.close().await,
                None => Ok(()),
            }
        };
        match timeout(FAREWELL + LAST_WORDS, last).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(error = %exit::reason(&error), "the buffer could not be closed"),
            Err(_) => tracing::warn!("the buffer could not be closed in time"),
        }
        code
    }

    /// Not ready from here on; the stop itself is that of a signal.
    fn end(&self, link::Ending { after_tasks, reason }: link::Ending) {
        tracing::info!(reason, after_tasks, "the sandbox is to end");
        self.stage.send_replace(Stage::Draining);
        let (feed, tasks, stopper) = (self.feed.clone(), self.tasks.clone(), self.stopper.clone());
        tokio::spawn(async move {
            feed.tell("supervisor.draining", json!({ "reason": reason, "after_tasks": after_tasks })).await;
            if after_tasks {
                tasks.drain().await;
            }
            Stops::begin(&stopper);
        });
    }

    async fn stop(&mut self, earlier: Option<Instant>) -> Instant {
        let stops = *self.stops.borrow_and_update();
        self.heard = stops.count;
        let deadline = match earlier {
            None if stops.count <= 1 => Instant::now() + self.config.grace,
            // The first signal, after a stop that nobody sent a signal for.
            Some(deadline) if stops.count <= 1 => deadline,
            _ => Instant::now(),
        };
        let grace_ms = deadline.saturating_duration_since(Instant::now()).as_millis() as u64;
        tracing::info!(signal = stops.signal, grace_ms, "stopping");
        self.stage.send_replace(Stage::Draining);
        let feed = self.feed.clone();
        tokio::spawn(async move {
            feed.tell("supervisor.stopping", json!({ "signal": stops.signal, "grace_ms": grace_ms })).await;
        });
        let tasks = self.tasks.clone();
        tokio::spawn(async move { tasks.stop(deadline).await });
        self.agent.order(Order::Stop { signal: stops.signal, deadline }).await;
        deadline
    }

    /// The same deadline and the same second signal count for tasks that outlive the agent.
    async fn end_tasks(&mut self, deadline: Option<Instant>) {
        let mut told = deadline.is_some();
        let mut until = deadline.unwrap_or_else(|| Instant::now() + self.config.grace);
        loop {
            tokio::select! {
                () = self.tasks.stop(until) => return,
                _ = self.stops.changed() => {
                    let second = self.stops.borrow_and_update().count > 1;
                    until = if told && second { Instant::now() } else { until };
                    told = true;
                }
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

    /// Everything written so far goes out, as far as its reader takes it before the deadline, or until a stop signal
    /// that came after the agent's end, at whichever step.
    async fn drain(&mut self, deadline: Option<Instant>) {
        let deadline = deadline.unwrap_or_else(|| Instant::now() + self.config.grace);
        // At least an instant, also when the grace has been used up: what is in a pipe is written at once.
        let time = deadline.saturating_duration_since(Instant::now()).max(LAST_WORDS);
        let (outputs, heard) = (std::mem::take(&mut self.outputs), self.heard);
        tokio::select! {
            drained = timeout(time, outputs.drain()) => if drained.is_err() {
                tracing::warn!("output of the agent was lost, because nobody read it");
            },
            _ = self.stops.wait_for(|stops| stops.count > heard) => {
                tracing::warn!("output of the agent was lost, because a stop signal came");
            }
        }
    }

    async fn last_word(self, outcome: Outcome) -> u8 {
        self.recording.abort();
        let (recorder, status) = (self.recorder, self.agent.status.borrow().clone());
        let (code, word): (u8, Box<dyn FnOnce() + Send>) = match outcome {
            Outcome::Ended(exit) => (exit.code() as u8, Box::new(move || recorder.ended(&status, exit))),
            Outcome::NeverRan => (0, Box::new(move || recorder.stopped())),
            Outcome::Failed(failed) => {
                let fault = Fault::new(failed.code(), &failed);
                tracing::error!(exit_code = fault.code, "{}", fault.reason);
                (fault.code, Box::new(move || recorder.fault(&fault, true)))
            }
        };
        if timeout(LAST_WORDS, spawn_blocking(word)).await.is_err() {
            tracing::error!("the last word could not be recorded in time");
        }
        code
    }
}

fn bug(what: &dyn std::fmt::Display) -> Outcome {
    Outcome::Failed(Failed::Bug(what.to_string()))
}

impl Outputs {
    async fn drain(self) {
        for finish in &self.finish {
            finish.notify_one();
        }
        for task in self.tasks {
            let _ = task.await;
        }
    }
}
