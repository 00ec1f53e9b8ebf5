//! Looks at the running agent from outside: is it ready, does it hang, what does it say.
//!
//! Each check is a task of its own that lives as long as one run of the agent and sends what changed. Hung checks
//! begin when the agent has been ready once, as a startup probe holds back a liveness probe.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use protocol::control::{Command, Report, Scope};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::config::Config;
use super::notify::{self, Message, Notify};
use super::readiness::{self, Check};
use crate::launch::{Event, Launcher, Request, Streams};
use crate::metrics::Metrics;

/// What was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observation {
    /// It counts as ready, or no longer.
    Ready(bool),
    /// It said so by `STATUS=`.
    Text(String),
    /// It hangs, and why we think so.
    Hung(String),
}

/// The checks of one run.
pub struct Watcher {
    settings: Settings,
    notify: Option<Notify>,
    observations: mpsc::Receiver<Observation>,
    sender: mpsc::Sender<Observation>,
    ready: watch::Sender<bool>,
    tasks: JoinSet<()>,
    shim: i32,
}

/// Where the notification socket may lie: never in the state directory, which no child can reach.
fn directories() -> Vec<PathBuf> {
    ["/run", "/tmp", "/dev/shm"].map(PathBuf::from).to_vec()
}

/// A check's command that is still there when its run has ended gets no more.
const CHECK_GRACE: Duration = Duration::from_millis(500);

/// What every check needs.
#[derive(Clone)]
struct Settings {
    config: Config,
    launcher: Launcher,
    metrics: Arc<Metrics>,
}

impl Watcher {
    /// For the next run. Where notifications are wanted, their socket exists from now on.
    pub fn new(config: &Config, launcher: Launcher, metrics: Arc<Metrics>) -> Result<Watcher, notify::NotifyError> {
        let wanted = config.ready == Check::Notify || config.hung == Check::Notify;
        let (sender, observations) = mpsc::channel(16);
        Ok(Watcher {
            notify: wanted.then(|| Notify::bind(&directories())).transpose()?,
            settings: Settings { config: config.clone(), launcher, metrics },
            observations,
            sender,
            ready: watch::channel(config.ready == Check::Started).0,
            tasks: JoinSet::new(),
            shim: 0,
        })
    }

    /// Variables that tell the agent where to notify and how often (`sd_notify(3)`, `sd_watchdog_enabled(3)`).
    pub fn environment(&self) -> Vec<(OsString, OsString)> {
        let Some(notify) = &self.notify else { return Vec::new() };
        let mut variables = vec![("NOTIFY_SOCKET".into(), notify.path().as_os_str().to_owned())];
        if self.settings.config.hung == Check::Notify {
            let micros = self.settings.config.hung_interval.as_micros().to_string();
            variables.push(("WATCHDOG_USEC".into(), micros.into()));
        }
        variables
    }

    /// The tree that is watched: notifications from elsewhere are refused.
    pub fn belongs_to(&mut self, shim: i32) {
        self.shim = shim;
    }

    /// The program runs: begin.
    pub fn started(&mut self) {
        let Settings { config, .. } = &self.settings;
        if let Some(notify) = self.notify.take() {
            let task = Notifications {
                notify,
                shim: self.shim,
                sender: self.sender.clone(),
                ready: self.ready.clone(),
                watchdog: (config.hung == Check::Notify).then_some(config.hung_interval),
                tells_ready: config.ready == Check::Notify,
                metrics: self.settings.metrics.clone(),
            };
            self.tasks.spawn(task.run());
        }
        if !matches!(config.ready, Check::Started | Check::Notify) {
            self.tasks.spawn(self.settings.clone().watch_ready(self.sender.clone(), self.ready.clone()));
        }
        if !matches!(config.hung, Check::Never | Check::Notify) {
            self.tasks.spawn(self.settings.clone().watch_hung(self.sender.clone(), self.ready.subscribe()));
        }
    }

    /// The program has ended: nothing more is to be seen.
    pub fn ended(&mut self) {
        self.tasks.abort_all();
    }

    /// The next observation.
    pub async fn observe(&mut self) -> Observation {
        match self.observations.recv().await {
            Some(observation) => observation,
            // Not while we hold a sender ourselves.
            None => std::future::pending().await,
        }
    }
}

impl Settings {
    async fn watch_ready(self, sender: mpsc::Sender<Observation>, ready: watch::Sender<bool>) {
        loop {
            let good = self.check(&self.config.ready).await.is_ok();
            if ready.send_if_modified(|known| std::mem::replace(known, good) != good) {
                let _ = sender.send(Observation::Ready(good)).await;
            }
            sleep(self.config.ready_interval).await;
        }
    }

    async fn watch_hung(self, sender: mpsc::Sender<Observation>, mut ready: watch::Receiver<bool>) {
        let mut failures = 0;
        let _ = ready.wait_for(|ready| *ready).await;
        loop {
            sleep(self.config.hung_interval).await;
            match self.check(&self.config.hung).await {
                Ok(()) => failures = 0,
                Err(why) => {
                    failures += 1;
                    tracing::warn!(failures, why, "the agent failed its hung check");
                    if failures >= self.config.hung_failures {
                        let _ = sender.send(Observation::Hung(why)).await;
                        return;
                    }
                }
            }
        }
    }

    async fn check(&self, check: &Check) -> Result<(), String> {
        let time = self.config.check_timeout;
        match check {
            Check::Tcp { port } => readiness::tcp(*port, time).await.map_err(|e| e.to_string()),
            Check::Http { port, path } => readiness::http(*port, path, time).await.map_err(|e| e.to_string()),
            Check::Exec { argv } => self.run_command(argv, time).await,
            Check::Never | Check::Started | Check::Notify => Ok(()),
        }
    }

    /// A command counts as passed when it exits 0 in time. It is confined like the agent itself.
    async fn run_command(&self, argv: &[String], time: Duration) -> Result<(), String> {
        let cwd = self.config.program.as_ref().and_then(|p| p.cwd.clone());
        let argv = argv.iter().map(OsString::from).collect();
        let request = Request { argv, env: Vec::new(), cwd, streams: Streams::Null };
        // The why names paths, and what is said here shows in health: it goes to the log.
        let not_started = |why: String| {
            tracing::warn!(why, "the check's command could not be started");
            "the check's command could not be started; the log says why".to_string()
        };
        let launcher = self.launcher.with_grace(CHECK_GRACE);
        let mut tree = launcher.start(&request).await.map_err(|e| not_started(crate::exit::reason(&e)))?;
        let result = timeout(time, async {
            loop {
                match tree.event().await {
                    Some(Event::Report(Report::Exited(exit))) if exit.code() == 0 => return Ok(()),
                    Some(Event::Report(Report::Exited(exit))) => {
                        return Err(format!("the command ended with {}", exit.code()));
                    }
                    Some(Event::Report(Report::Failed(failure))) => return Err(not_started(failure.message)),
                    Some(Event::Report(_)) => {}
                    Some(Event::ShimLost(_)) | None => return Err("the command was killed".into()),
                }
            }
        });
        let result = result.await.unwrap_or_else(|_| Err(format!("the command took longer than {time:?}")));
        let kill = Command::Stop { signal: libc::SIGKILL, scope: Scope::Tree, grace: Duration::ZERO };
        tree.command(kill).await;
        while tree.event().await.is_some() {}
        result
    }
}

/// What arrives on `NOTIFY_SOCKET`.
struct Notifications {
    notify: Notify,
    shim: i32,
    sender: mpsc::Sender<Observation>,
    ready: watch::Sender<bool>,
    watchdog: Option<Duration>,
    tells_ready: bool,
    metrics: Arc<Metrics>,
}

impl Notifications {
    async fn run(mut self) {
        loop {
            // The watchdog runs from the moment the agent is ready, as with systemd.
            let patience = self.watchdog.filter(|_| *self.ready.borrow());
            let shim = self.shim;
            let metrics = self.metrics.clone();
            let accept = move |pid: i32, _uid: u32| {
                let ours = notify::is_descendant(pid, shim);
                // Said once: whoever else is in the Pod could fill the log. The counter has the rest.
                if !ours && metrics.notify_refused.inc() == 0 {
                    tracing::warn!(
                        pid,
                        "refused a notification from outside the agent's tree, or from one that has ended"
                    );
                }
                ours
            };
            let received = match patience {
                Some(time) => timeout(time, self.notify.next(accept)).await,
                None => Ok(self.notify.next(accept).await),
            };
            let messages = match received {
                Ok(Ok(messages)) => messages,
                Ok(Err(error)) => {
                    tracing::error!(%error, "notifications can no longer be read");
                    return;
                }
                Err(_) => {
                    let why = format!("no WATCHDOG=1 within {:?}", patience.unwrap_or_default());
                    let _ = self.sender.send(Observation::Hung(why)).await;
                    return;
                }
            };
            for message in messages {
                if !self.take(message).await {
                    return;
                }
            }
        }
    }

    /// False where nothing more is to be watched.
    async fn take(&mut self, message: Message) -> bool {
        match message {
            Message::Ready => self.set_ready(true).await,
            Message::Stopping | Message::Reloading => self.set_ready(false).await,
            Message::Status(text) => drop(self.sender.send(Observation::Text(text)).await),
            Message::WatchdogEvery(time) if self.watchdog.is_some() => self.watchdog = Some(time),
            Message::WatchdogTrigger => {
                let why = "the agent itself said WATCHDOG=trigger".to_string();
                let _ = self.sender.send(Observation::Hung(why)).await;
                return false;
            }
            _ => {}
        }
        true
    }

    async fn set_ready(&mut self, ready: bool) {
        self.ready.send_replace(ready);
        if self.tells_ready {
            let _ = self.sender.send(Observation::Ready(ready)).await;
        }
    }
}
