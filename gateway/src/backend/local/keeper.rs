//! Keeps one supervisor running until it is told to stop.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{broadcast, watch};
use tokio::time::{Instant, sleep, timeout};

use super::Config;
use super::process::{self, Process};
use crate::backend::State;

/// Until a supervisor that ended is started again: doubles to the longest; a run of the longest forgives.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);
/// From TERM to KILL: the supervisor's own grace, and time to write its last words.
const GRACE: Duration = Duration::from_secs(10);

pub(super) struct Keeper {
    config: Arc<Config>,
    id: String,
    directory: PathBuf,
    tell: (watch::Sender<State>, broadcast::Sender<String>),
    stop: watch::Receiver<bool>,
}

impl Keeper {
    pub(super) fn new(
        config: Arc<Config>,
        id: String,
        tell: (watch::Sender<State>, broadcast::Sender<String>),
        stop: watch::Receiver<bool>,
    ) -> Keeper {
        let directory = config.root.join(&id);
        Keeper { config, id, directory, tell, stop }
    }

    fn tell(&self, state: State) {
        self.tell.0.send_replace(state);
        // Nobody may be listening.
        let _ = self.tell.1.send(self.id.clone());
    }

    /// Until the stop, and until nothing runs any more.
    pub(super) async fn run(mut self) {
        let mut found = Process::find(&self.directory.join("state"));
        let mut delay = FIRST;
        // One that was found is ended by a stop, however early that comes.
        while found.is_some() || !*self.stop.borrow() {
            let began = Instant::now();
            let process = match found.take() {
                Some(process) => Ok(process),
                None => Process::start(&self.config, &self.directory, &self.id),
            };
            let (code, reason) = match process {
                Ok(process) => match self.watch(process).await {
                    Some(code) => (code, process::last_words(&self.directory.join("log"))),
                    None => return,
                },
                Err(error) => (None, format!("{} cannot be started: {error}", self.config.supervisor.display())),
            };
            if began.elapsed() >= LONGEST {
                delay = FIRST;
            }
            tracing::warn!(sandbox = self.id, code, reason, "a supervisor ended and will be started again");
            self.tell(State::Failed { code, reason });
            tokio::select! {
                () = sleep(delay) => {}
                () = stopped(&mut self.stop) => {}
            }
            delay = (delay * 2).min(LONGEST);
        }
    }

    /// How it ended by itself; `None` after a stop.
    async fn watch(&mut self, mut process: Process) -> Option<Option<i32>> {
        self.tell(State::Running);
        tokio::select! {
            code = process.ended() => return Some(code),
            () = stopped(&mut self.stop) => {}
        }
        process.terminate();
        if timeout(GRACE, process.ended()).await.is_err() {
            tracing::warn!(sandbox = self.id, "a supervisor does not stop and is killed");
            process.kill();
            process.ended().await;
        }
        None
    }
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // A backend that is gone without a stop leaves its supervisors running.
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}
