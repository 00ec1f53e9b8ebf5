//! The agent: started, watched, stopped and, where the operator wants it, started again.
//!
//! One task owns the state. Everybody else reads [`Status`] through a `watch` and sends [`Order`]s; what is told is
//! always what happened, in this order: starting, running, (ready), stopping or ended.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use protocol::control::{Command, Exit, Failure, Report, Scope, Step};
use protocol::guarantee::Standing;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

pub mod config;
pub mod notify;
pub mod readiness;
pub mod restart;
pub mod watching;

pub use config::Config;
use restart::{Decision, Restart};
use watching::{Observation, Watcher};

use crate::cgroup::Cgroup;
use crate::exit::Fault;
use crate::launch::{Event, LaunchError, Launcher, ProgramError, Request, Streams, Tree};
use crate::metrics::Metrics;

/// A moment of the agent's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// No agent was asked for: the health-only baseline (000-41).
    Absent,
    /// Not yet executed.
    Starting,
    /// It runs.
    Running,
    /// It runs and failed its hung check; it is being ended.
    Hung,
    /// Told to end.
    Stopping,
    /// Waits for its next start.
    Waiting,
    /// Ended for good.
    Ended,
}

impl Phase {
    /// All, for metrics.
    pub const ALL: [Phase; 7] =
        [Phase::Absent, Phase::Starting, Phase::Running, Phase::Hung, Phase::Stopping, Phase::Waiting, Phase::Ended];

    /// The word in health, metrics, logs and the termination message.
    pub const fn name(self) -> &'static str {
        match self {
            Phase::Absent => "absent",
            Phase::Starting => "starting",
            Phase::Running => "running",
            Phase::Hung => "hung",
            Phase::Stopping => "stopping",
            Phase::Waiting => "waiting",
            Phase::Ended => "ended",
        }
    }
}

/// What is known of the agent.
#[derive(Clone, Debug)]
pub struct Status {
    /// Now.
    pub phase: Phase,
    /// Whether it counts as ready, by the operator's check.
    pub ready: bool,
    /// Main program, while it runs.
    pub pid: Option<i32>,
    /// When this run was started.
    pub started: Option<SystemTime>,
    /// Starts after the first.
    pub restarts: u64,
    /// How the last run ended.
    pub last_exit: Option<Exit>,
    /// That run is the present one: its program has ended.
    pub over: bool,
    /// Whether the last run ended because memory ran out; `None` where that is not known or was not the question.
    pub oom: Option<bool>,
    /// Why, where it was more than its own will: hung, killed after the grace, fault.
    pub reason: String,
    /// What it said by `STATUS=`.
    pub status_text: Option<String>,
    /// What holds for the present run.
    pub guarantees: Vec<Standing>,
    /// Landlock ABI in force.
    pub landlock_abi: u32,
}

impl Status {
    /// Before anything happened.
    pub fn new(phase: Phase) -> Status {
        Status {
            phase,
            ready: false,
            pid: None,
            started: None,
            restarts: 0,
            last_exit: None,
            over: false,
            oom: None,
            reason: String::new(),
            status_text: None,
            guarantees: Vec::new(),
            landlock_abi: 0,
        }
    }
}

/// What the agent's task is asked to do.
#[derive(Clone, Copy, Debug)]
pub enum Order {
    /// Send `signal`, KILL at `deadline`, do not start again. Again: the earlier deadline counts.
    Stop {
        /// First signal.
        signal: i32,
        /// KILL.
        deadline: Instant,
    },
    /// Pass a signal on.
    Forward(i32),
}

/// Why the agent's task ended.
#[derive(Debug)]
pub enum Outcome {
    /// The agent ended and is not started again.
    Ended(Exit),
    /// It was stopped before it ran, or between two runs.
    NeverRan,
    /// It could not be started.
    Failed(Failed),
}

/// The agent could not be started.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// By the launcher.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// The socket for its notifications.
    #[error(transparent)]
    Notify(#[from] notify::NotifyError),
    /// By the shim, at one of its steps.
    #[error("{}", .0.message)]
    Step(Failure),
    /// Something that it needs could not be put in place.
    #[error("{}", .0.reason)]
    Prepare(Fault),
    /// A part that never ends has ended.
    #[error("{0}; this is a bug of the supervisor")]
    Bug(String),
    /// The shim was gone before the program ran.
    #[error("the shim ended with {0:?} before the agent was started; is it the one of this build?")]
    Shim(Exit),
}

impl Failed {
    /// Which of our reserved exit codes says it best.
    pub fn code(&self) -> u8 {
        match self {
            Failed::Launch(LaunchError::Program(ProgramError::Paths(_))) => crate::exit::TEMPORARY,
            Failed::Launch(LaunchError::Program(_) | LaunchError::TooLarge(_)) | Failed::Notify(_) => {
                crate::exit::CONFIGURATION
            }
            Failed::Launch(LaunchError::Shim { .. }) => crate::exit::CONFINEMENT,
            Failed::Launch(LaunchError::Socket(_)) => crate::exit::TEMPORARY,
            Failed::Prepare(fault) => fault.code,
            Failed::Bug(_) | Failed::Shim(_) => crate::exit::INTERNAL,
            Failed::Step(failure) if crate::exit::is_scarce(failure.errno) => crate::exit::TEMPORARY,
            Failed::Step(failure) => match failure.step {
                Step::Exec | Step::WorkingDirectory | Step::Limits | Step::OomScore | Step::Nice => {
                    crate::exit::CONFIGURATION
                }
                Step::Policy | Step::Descriptors => crate::exit::INTERNAL,
                Step::Fork => crate::exit::TEMPORARY,
                _ => crate::exit::CONFINEMENT,
            },
        }
    }
}

/// Reads and orders.
#[derive(Clone)]
pub struct Handle {
    /// What is known.
    pub status: watch::Receiver<Status>,
    orders: mpsc::Sender<Order>,
}

impl Handle {
    /// Queue an order; waits while eight are under way. An agent that has ended ignores it.
    pub async fn order(&self, order: Order) {
        let _ = self.orders.send(order).await;
    }
}

/// The part.
pub struct Agent {
    config: Config,
    launcher: Launcher,
    metrics: Arc<Metrics>,
    status: watch::Sender<Status>,
    orders: mpsc::Receiver<Order>,
    restart: Restart,
}

/// How one run ended.
struct Run {
    exit: Exit,
    stopped: bool,
    /// The main program has ended; others of its tree may live.
    main_ended: bool,
    /// When its whole tree gets KILL, once it has been told to end.
    kill_at: Option<Instant>,
    /// A KILL without a count before and after is reported as unknown, never guessed.
    oom_kills_before: Option<u64>,
}

impl Agent {
    /// A handle, and the part to run.
    pub fn new(config: Config, launcher: Launcher, metrics: Arc<Metrics>) -> (Handle, Agent) {
        let phase = if config.program.is_some() { Phase::Starting } else { Phase::Absent };
        let (status, status_receiver) = watch::channel(Status::new(phase));
        let (order_sender, orders) = mpsc::channel(8);
        let restart = Restart::new(config.restart, config.restart_min, config.restart_max);
        let handle = Handle { status: status_receiver, orders: order_sender };
        (handle, Agent { config, launcher, metrics, status, orders, restart })
    }

    /// Until the agent has ended for good. Without a program: until an order to stop.
    pub async fn run(mut self) -> Outcome {
        let Some(program) = self.config.program.clone() else {
            self.until_stopped().await;
            return Outcome::NeverRan;
        };
        loop {
            let started = Instant::now();
            let run = match self.run_once(&program).await {
                Ok(run) => run,
                Err(failed) => {
                    self.set(|s| (s.phase, s.reason) = (Phase::Ended, failed.to_string()));
                    return Outcome::Failed(failed);
                }
            };
            let decision = if run.stopped { Decision::End } else { self.restart.decide(run.exit, started.elapsed()) };
            let Decision::After(delay) = decision else {
                self.set(|s| s.phase = Phase::Ended);
                return Outcome::Ended(run.exit);
            };
            self.set(|s| s.phase = Phase::Waiting);
            tracing::info!(exit_code = run.exit.code(), delay_ms = delay.as_millis() as u64, "the agent starts again");
            if self.stopped_within(delay).await {
                self.set(|s| s.phase = Phase::Ended);
                return Outcome::Ended(run.exit);
            }
            self.metrics.restarts.inc();
            self.set(|s| {
                s.restarts += 1;
                s.over = false;
                s.phase = Phase::Starting;
            });
        }
    }

    /// Until an order to stop, starting nothing, because of `fault`.
    pub async fn run_nothing(mut self, fault: Fault) -> Outcome {
        self.set(|s| s.phase = Phase::Absent);
        self.until_stopped().await;
        Outcome::Failed(Failed::Prepare(fault))
    }

    async fn until_stopped(&mut self) {
        while let Some(Order::Forward(_)) = self.orders.recv().await {}
    }

    /// One start to the end of its whole tree.
    async fn run_once(&mut self, program: &config::Program) -> Result<Run, Failed> {
        let mut watcher = Watcher::new(&self.config, self.launcher.clone(), self.metrics.clone())?;
        let request = Request {
            argv: program.argv.clone(),
            env: program.env.iter().cloned().chain(watcher.environment()).collect(),
            cwd: program.cwd.clone(),
            streams: Streams::Agent,
        };
        let mut tree = self.launcher.start(&request).await?;
        watcher.belongs_to(tree.shim());
        let mut run = Run {
            exit: Exit::Signal(libc::SIGKILL),
            stopped: false,
            main_ended: false,
            kill_at: None,
            oom_kills_before: Cgroup::own(Path::new("/proc")).oom_kills(),
        };
        let mut running = false;
        loop {
            tokio::select! {
                event = tree.event() => match event {
                    Some(Event::Report(Report::Started { pid, guarantees, landlock_abi })) => {
                        running = true;
                        self.started(pid, guarantees, landlock_abi, run.stopped);
                        watcher.started();
                    }
                    Some(Event::Report(Report::Failed(failure))) => return Err(Failed::Step(failure)),
                    Some(Event::Report(Report::Exited(exit))) => {
                        run.exit = exit;
                        run.main_ended = true;
                        watcher.ended();
                        self.exited(&run);
                    }
                    Some(Event::Report(Report::Ended { exit, usage, killed })) => {
                        tracing::info!(exit_code = exit.code(), killed, user_us = usage.user_us,
                            system_us = usage.system_us, max_rss_kib = usage.max_rss_kib, "the agent's tree has ended");
                        return Ok(Run { exit, ..run });
                    }
                    Some(Event::Report(Report::Orphans(_))) => {}
                    // By KILL others end it: whoever is root here, or the kernel for want of memory.
                    Some(Event::ShimLost(exit)) if !running && exit != Exit::Signal(libc::SIGKILL) => {
                        return Err(Failed::Shim(exit));
                    }
                    Some(Event::ShimLost(_)) | None => {
                        run.exit = self.shim_lost(run.main_ended.then_some(run.exit));
                        self.launcher.end_leftovers().await;
                        return Ok(run);
                    }
                },
                order = self.orders.recv() => {
                    self.obey(order, &tree, &mut run).await;
                    if run.stopped {
                        // As with systemd: who is told to end may stop answering.
                        watcher.ended();
                    }
                }
                observation = watcher.observe() => self.observed(observation, &tree, &mut run).await,
            }
        }
    }

    /// Pass an order to the tree.
    async fn obey(&mut self, order: Option<Order>, tree: &Tree, run: &mut Run) {
        match order {
            Some(Order::Forward(signal)) => tree.command(Command::Signal(signal)).await,
            Some(Order::Stop { signal, deadline }) => {
                run.stopped = true;
                run.kill_at = Some(deadline);
                self.set(|s| (s.phase, s.ready) = (Phase::Stopping, false));
                let grace = deadline.saturating_duration_since(Instant::now());
                tree.command(Command::Stop { signal, scope: Scope::Main, grace }).await;
            }
            // All handles are gone: the app is being dropped, and so will be this task.
            None => std::future::pending().await,
        }
    }

    fn started(&self, pid: i32, guarantees: Vec<Standing>, landlock_abi: u32, stopping: bool) {
        for standing in guarantees.iter().filter(|s| s.state == protocol::guarantee::State::Missing) {
            tracing::warn!(guarantee = standing.guarantee.name(), by = standing.by, "a guarantee does not hold");
        }
        tracing::info!(pid, landlock_abi, "the agent runs");
        let ready = !stopping && self.config.ready == readiness::Check::Started;
        self.set(|s| {
            s.phase = if stopping { Phase::Stopping } else { Phase::Running };
            s.ready = ready;
            s.pid = Some(pid);
            s.started = Some(SystemTime::now());
            s.reason.clear();
            s.oom = None;
            (s.guarantees, s.landlock_abi) = (guarantees, landlock_abi);
        });
    }

    fn exited(&self, run: &Run) {
        let exit = run.exit;
        let killed = exit == Exit::Signal(libc::SIGKILL);
        let overran = killed && run.kill_at.is_some_and(|at| Instant::now() >= at);
        let counts =
            run.oom_kills_before.filter(|_| killed && !overran).zip(Cgroup::own(Path::new("/proc")).oom_kills());
        let oom = counts.map(|(before, after)| after > before);
        tracing::info!(exit_code = exit.code(), oom, "the agent has ended");
        self.metrics.exits.get_or_create(&vec![("code", exit.code().to_string())]).inc();
        self.set(|s| {
            // What it left behind is being ended.
            s.phase = Phase::Stopping;
            s.ready = false;
            s.pid = None;
            s.last_exit = Some(exit);
            s.over = true;
            s.oom = oom;
            if s.reason.is_empty() && oom == Some(true) {
                s.reason = "killed by the kernel, because memory ran out".into();
            }
            if s.reason.is_empty() && overran {
                s.reason = "killed, because it did not end within its grace".into();
            }
        });
    }

    /// The program goes with its shim (`PR_SET_PDEATHSIG`), unless it had ended before.
    fn shim_lost(&self, before: Option<Exit>) -> Exit {
        tracing::error!("the agent's shim was killed; what it left behind is ended");
        let exit = before.unwrap_or(Exit::Signal(libc::SIGKILL));
        if before.is_none() {
            self.metrics.exits.get_or_create(&vec![("code", exit.code().to_string())]).inc();
        }
        self.set(|s| {
            s.ready = false;
            s.pid = None;
            s.last_exit = Some(exit);
            s.over = true;
            if before.is_none() {
                // Of whom memory ran out for, nothing is known here.
                s.oom = None;
            }
            s.reason = "the shim of the agent was killed".into();
        });
        exit
    }

    async fn observed(&mut self, observation: Observation, tree: &Tree, run: &mut Run) {
        match observation {
            // Seen before it was told to end.
            Observation::Ready(_) | Observation::Hung(_) if run.stopped => {}
            Observation::Ready(ready) => self.set(|s| s.ready = ready && s.phase == Phase::Running),
            Observation::Text(text) => self.set(|s| s.status_text = Some(text)),
            Observation::Hung(why) => {
                self.metrics.hangs.inc();
                tracing::error!(why, "the agent hangs and is ended");
                self.set(|s| (s.phase, s.ready, s.reason) = (Phase::Hung, false, format!("hung: {why}")));
                let grace = self.launcher.config().grace;
                run.kill_at = Some(Instant::now() + grace);
                // systemd's watchdog sends ABRT, so that a hung program leaves a trace of where it hung.
                tree.command(Command::Stop { signal: libc::SIGABRT, scope: Scope::Main, grace }).await;
            }
        }
    }

    /// Wait for the next start; true where an order to stop came first.
    async fn stopped_within(&mut self, delay: Duration) -> bool {
        let deadline = Instant::now() + delay;
        loop {
            match tokio::time::timeout_at(deadline, self.orders.recv()).await {
                Err(_) => return false,
                Ok(Some(Order::Forward(_))) => {}
                Ok(Some(Order::Stop { .. }) | None) => return true,
            }
        }
    }

    fn set(&self, change: impl FnOnce(&mut Status)) {
        self.status.send_modify(change);
    }
}
