//! Builds the parts, joins them, and stops them.
//!
//! Start: listener (health answers from here on) → state directory → bootstrap → agent. Stop, on one page and under
//! one deadline: see [`stop`].

use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use nix::unistd::isatty;
use serde_json::json;
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::task::{JoinHandle, spawn_blocking};

pub mod config;
mod prepare;
mod record;
mod stop;

pub use config::Config;
use record::Recorder;

use crate::agent::{Agent, Handle, Outcome};
use crate::buffer;
use crate::exit::{self, Fault};
use crate::http;
use crate::init::{self, Init, Reaper, Stops, signals::Rules};
use crate::launch::output::{Output, Sink};
use crate::launch::{Launcher, find_shim};
use crate::link::{self, Feed, Lines, Link};
use crate::machine::Machine;
use crate::metrics::Metrics;
use crate::state::{RunRecord, StateDir, boot_id};
use crate::tasks::{self, Tasks};
use crate::termination::TerminationLog;
use crate::workspace::seeds::Seeds;
use crate::workspace::workers::Workers;

/// How far the supervisor is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Initialising.
    Starting,
    /// Initialised.
    Running,
    /// Initialisation failed in a way that an operator should read in health (000-78): no agent is started, probes
    /// are answered.
    Failed(String),
    /// Stopping.
    Draining,
}

/// Made in `main`, before the event loop.
pub struct Edges {
    /// Standard output and error.
    pub sinks: (Arc<Sink>, Arc<Sink>),
    /// The kubelet's file.
    pub termination: Arc<Mutex<TerminationLog>>,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

/// Everything that runs.
struct App {
    config: Config,
    /// Ends only by a bug; without it nothing is reaped and no signal is heard.
    init: JoinHandle<()>,
    /// The same for the listener.
    listener: JoinHandle<Infallible>,
    reaper: Reaper,
    stops: watch::Receiver<Stops>,
    stopper: watch::Sender<Stops>,
    /// The link's word that the sandbox is to end.
    endings: mpsc::Receiver<link::Ending>,
    /// Stop signals that the agent was told of.
    heard: u32,
    forwards: mpsc::Receiver<i32>,
    stage: watch::Sender<Stage>,
    agent: Handle,
    /// A task of its own, so that it goes on while it is being given an order.
    agent_task: JoinHandle<Outcome>,
    recorder: Arc<Recorder>,
    recording: JoinHandle<()>,
    tasks: tasks::Handle,
    link: link::Handle,
    feed: Feed,
    lines: Lines,
    /// What waits for the gateway, where there is a link.
    buffer: Option<buffer::Handle>,
    outputs: Outputs,
}

/// The agent's streams on their way out.
#[derive(Default)]
struct Outputs {
    finish: Vec<Arc<Notify>>,
    tasks: Vec<JoinHandle<()>>,
}

/// Run until the agent has ended for good or a stop signal came; the process's exit code.
pub async fn run(config: Config, edges: Edges) -> u8 {
    let (stdout, stderr) = edges.sinks.clone();
    tell_panics(edges.metrics.clone());
    let lines = tokio::spawn(stderr.clone().write_lines());
    let termination = edges.termination.clone();
    let agent_id = config.identity.agent_id.clone();
    let code = match start(config, edges).await {
        Ok(app) => app.supervise().await,
        Err(fault) => {
            tracing::error!(exit_code = fault.code, "{}", fault.reason);
            let record = record::of_fault(&fault, &agent_id);
            termination.lock().unwrap_or_else(PoisonError::into_inner).write(&record);
            fault.code
        }
    };
    lines.abort();
    // Bounded: a reader that has stopped must not keep the Pod.
    let last_words = async { tokio::join!(stdout.flush(true), stderr.flush(true)) };
    let _ = tokio::time::timeout(stop::LAST_WORDS, last_words).await;
    code
}

/// A panic is counted and told as one log line. The standard hook would write to stderr itself, which may block.
fn tell_panics(metrics: Arc<Metrics>) {
    std::panic::set_hook(Box::new(move |panic| {
        metrics.panics.inc();
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        // Not its text: that may quote what a client or the agent sent.
        tracing::error!(place, "a part of the supervisor panicked; this is a bug of it");
    }));
}

async fn start(config: Config, edges: Edges) -> Result<App, Fault> {
    let metrics = edges.metrics.clone();
    let reaper = Reaper::new(metrics.clone());
    let (stop_sender, mut stops) = watch::channel(Stops::default());
    let (forward_sender, forwards) = mpsc::channel(16);
    let (ending_sender, endings) = mpsc::channel(1);
    let rules = Rules { shield: init::is_pid_1() && !config.signals_from_inside, metrics: metrics.clone() };
    let init = Init::new(reaper.clone(), rules, stop_sender.clone(), forward_sender)
        .map_err(|e| Fault::new(exit::INTERNAL, &e))?;
    let init = tokio::spawn(init.run());

    let machine = Machine::default();
    let lines = Lines::new(config.link.as_ref().and_then(|link| link.logs), machine.clone());
    let (outputs, ends) =
        outputs(&edges, &lines, config.launch.user.is_some()).map_err(|e| Fault::new(exit::INTERNAL, &e))?;
    let shim = find_shim().map_err(|e| Fault::new(exit::INTERNAL, &e))?;
    let launcher = Launcher::new(config.launch.clone(), shim, reaper.clone(), metrics.clone(), ends);
    let (agent, agent_part) = Agent::new(config.agent.clone(), launcher.clone(), metrics.clone());

    let (tasks, asks) = tasks::handle();
    let (stage, stage_receiver) = watch::channel(Stage::Starting);
    let (previous_sender, previous) = watch::channel(None);
    let (link, link_ends) = link::handle();
    let view = Arc::new(http::View {
        identity: config.identity.clone(),
        stage: stage_receiver,
        agent: agent.status.clone(),
        enforcement: config.launch.enforcement,
        previous,
        link: link.phase.clone(),
        metrics: metrics.clone(),
    });
    let workers = Workers::new(launcher.clone());
    let archives = config.state_dir.join("archives");
    let api = http::Api {
        tasks: tasks.clone(),
        seeds: Seeds::new(archives, workers.clone(), config.upload, config.tasks.unpacked),
        workers,
        relay: config.relay.clone(),
        workspace: config.launch.workspace.clone(),
        large: Arc::new(Semaphore::new(1)),
        upload: config.upload,
        attach_silence: config.attach_silence,
        attached: metrics.attached.clone(),
    };
    let signed = config.link.as_ref().filter(|_| config.api_signed);
    let verifier = http::Verifier {
        token_file: config.api_token_file.clone(),
        signed: signed.map(|to| http::Signed::new(to.agent_id.clone(), to.audience().to_owned(), link.trust.clone())),
    };
    let routes = http::routes(view.clone(), api, verifier);
    let listener = listen(&config, routes.clone(), metrics.clone())?;

    let state = tokio::select! {
        state = open_state(&config, &metrics) => state?,
        // A volume that hangs must not hold back a stop, here and below.
        _ = stops.wait_for(|stops| stops.count > 0) => {
            let reason = format!("stopped while the state directory {} was being opened", config.state_dir.display());
            return Err(Fault { code: exit::TEMPORARY, reason });
        }
    };
    let lost = state.lost.clone();
    if let Some(lost) = &lost {
        tracing::warn!(previous = lost, "the run before this supervisor left no last word");
    }
    previous_sender.send_replace(lost);
    let (feed, buffer) = match config.link.clone() {
        Some(settings) => {
            let buffer = open_buffer(&config, &state, machine.clone(), &metrics).await?;
            let (feed, writer) =
                Feed::new(buffer.clone(), machine.clone()).await.map_err(|e| Fault::new(exit::INTERNAL, &e))?;
            tokio::spawn(writer.run());
            lines.open(buffer.clone());
            tokio::spawn(lines.clone().run());
            let workspace = config.launch.workspace.clone();
            tokio::spawn(feed.clone().sample(settings.samples, buffer.clone(), workspace, metrics.clone()));
            let inputs = link::Inputs {
                view,
                routes,
                buffer: buffer.clone(),
                directory: state.directory.clone(),
                feed: feed.clone(),
                endings: ending_sender,
                machine,
                metrics: metrics.clone(),
            };
            let link = Link::new(settings, link_ends, inputs).map_err(|e| Fault::new(exit::TEMPORARY, &e))?;
            tokio::spawn(link.run());
            (feed, Some(buffer))
        }
        None => (Feed::default(), None),
    };
    let mut dev_tasks = Tasks::new(
        config.tasks.clone(),
        launcher.clone(),
        metrics.clone(),
        (feed.clone(), lines.clone()),
        state.directory.path().join("tasks"),
        asks,
    )
    .map_err(|e| Fault::new(exit::CONFIGURATION, &e))?;
    dev_tasks.tell_what_was_noted().await;
    feed.tell("supervisor.started", json!({ "version": env!("CARGO_PKG_VERSION"), "previous": state.lost })).await;
    if buffer.is_some() {
        tokio::spawn(feed.clone().follow(agent.status.clone()));
    }
    tokio::spawn(dev_tasks.run());
    let agent_id = config.identity.agent_id.clone();
    let recorder = Arc::new(Recorder::new(state.directory, edges.termination, agent_id, state.boot_id, metrics));
    let prepared = tokio::select! {
        prepared = prepare::run(&config, &launcher) => Some(prepared),
        // The worker ends with its lifeline.
        _ = stops.wait_for(|stops| stops.count > 0) => None,
    };
    let agent_task = match prepared {
        None => tokio::spawn(std::future::ready(Outcome::NeverRan)),
        Some(Ok(())) => {
            stage.send_replace(Stage::Running);
            let (first, status) = (recorder.clone(), agent.status.borrow().clone());
            let _ = spawn_blocking(move || first.change(&status)).await;
            tokio::spawn(agent_part.run())
        }
        Some(Err(fault)) => {
            tracing::error!("{}", fault.reason);
            let (first, told) = (recorder.clone(), fault.clone());
            let _ = spawn_blocking(move || first.fault(&told, false)).await;
            // Health is open to everybody and names no path; the log and the termination message do.
            let settings = "SUPERVISOR_BOOTSTRAP_SOURCE, SUPERVISOR_BOOTSTRAP_TARGET and the provider's settings";
            let reason = format!("bootstrap failed with {}: check {settings}; the log says where and why", fault.code);
            stage.send_replace(Stage::Failed(reason));
            tokio::spawn(agent_part.run_nothing(fault))
        }
    };
    let recording = tokio::spawn(recorder.clone().follow(agent.status.clone()));
    Ok(App {
        config,
        init,
        listener,
        reaper,
        stops,
        stopper: stop_sender,
        endings,
        heard: 0,
        forwards,
        stage,
        agent,
        agent_task,
        recorder,
        recording,
        tasks,
        link,
        feed,
        lines,
        buffer,
        outputs,
    })
}

/// Bind and serve; the address goes to the log, since port 0 picks one.
fn listen(config: &Config, routes: axum::Router, metrics: Arc<Metrics>) -> Result<JoinHandle<Infallible>, Fault> {
    let unavailable = |source: io::Error| Fault {
        code: exit::unless_temporary(exit::UNAVAILABLE, &source),
        reason: format!("cannot listen on {}: {source}; free the port or set SUPERVISOR_LISTEN", config.listen),
    };
    let listener = peer::listen::bind(config.listen).map_err(unavailable)?;
    let address = listener.local_addr().map_err(unavailable)?;
    tracing::info!(%address, version = env!("CARGO_PKG_VERSION"), "listening");
    Ok(tokio::spawn(http::serve(listener, routes, metrics)))
}

/// The open state directory, and how the run that it remembers ended.
struct State {
    directory: Arc<StateDir>,
    boot_id: String,
    lost: Option<String>,
}

async fn open_state(config: &Config, metrics: &Metrics) -> Result<State, Fault> {
    let path = config.state_dir.clone();
    let passable = config.tasks.directory.as_deref().is_some_and(|directory| directory.starts_with(&path));
    let open = if passable { StateDir::open_passable } else { StateDir::open };
    let opened = spawn_blocking(move || open(&path)).await;
    let directory =
        opened.map_err(|e| Fault::new(exit::INTERNAL, &e))?.map_err(|e| Fault::setting(&e, e.is_temporary()))?;
    metrics.state_tampered.inc_by(directory.tampered());
    let boot_id = boot_id(Path::new("/proc")).map_err(|e| Fault::new(exit::TEMPORARY, &e))?;
    let last = RunRecord::load(&directory).map_err(|e| Fault::new(exit::TEMPORARY, &e))?;
    let lost = last.and_then(|record| {
        let end = record.silent_end()?;
        let with = if record.boot_id == boot_id { "container" } else { "node" };
        Some(format!("{end} with the {with} while {}", record.state.name()))
    });
    Ok(State { directory: Arc::new(directory), boot_id, lost })
}

/// Records that wait for the gateway, in the state directory.
async fn open_buffer(
    config: &Config,
    state: &State,
    machine: Machine,
    metrics: &Arc<Metrics>,
) -> Result<buffer::Handle, Fault> {
    let (settings, directory) = (config.buffer, state.directory.clone());
    let opened = spawn_blocking(move || buffer::open(&directory, &settings)).await;
    let opened = opened.map_err(|e| Fault::new(exit::INTERNAL, &e))?;
    let buffer = opened.map_err(|e| Fault::new(exit::CONFIGURATION, &e))?;
    let (handle, part) = buffer::new(buffer, &config.buffer, machine, metrics.clone());
    tokio::spawn(part.run());
    Ok(handle)
}

type AgentEnds = (Option<std::os::fd::OwnedFd>, Option<std::os::fd::OwnedFd>);

/// Pipes for what is not a terminal; a terminal is given to the agent as it is.
fn outputs(edges: &Edges, lines: &Lines, for_other_uid: bool) -> io::Result<(Outputs, AgentEnds)> {
    let mut outputs = Outputs { finish: Vec::new(), tasks: Vec::new() };
    let mut pipe = |name, sink: &Arc<Sink>, terminal: bool, bytes: &crate::metrics::Counter| {
        if terminal {
            return Ok::<_, io::Error>(None);
        }
        let mut copier = lines.of(None, name);
        let (output, end) = Output::new(sink.clone(), bytes.clone(), Box::new(move |bytes| copier.take(bytes)))?;
        if for_other_uid {
            // A pipe belongs to who made it; opening /dev/stdout anew is a check of its mode. runc gives the owner
            // away instead, which takes CAP_CHOWN.
            nix::sys::stat::fchmod(&end, nix::sys::stat::Mode::from_bits_truncate(0o666))?;
        }
        let finish = Arc::new(Notify::new());
        outputs.tasks.push(tokio::spawn(output.run(finish.clone())));
        outputs.finish.push(finish);
        Ok(Some(end))
    };
    let (stdout, stderr) = &edges.sinks;
    let ends = (
        pipe("stdout", stdout, isatty(io::stdout()).unwrap_or(false), &edges.metrics.stdout_bytes)?,
        pipe("stderr", stderr, isatty(io::stderr()).unwrap_or(false), &edges.metrics.stderr_bytes)?,
    );
    Ok((outputs, ends))
}
