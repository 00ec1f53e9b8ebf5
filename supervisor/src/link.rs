//! The link to the gateway: when to dial, and what to say.
//!
//! One task owns it; everybody else reads its [`Phase`]. Promises:
//!
//! - It never gives up, and nothing else waits for it: the agent, the tasks and readiness go on without a gateway.
//! - It is always in one of the states of [`Phase`]: connecting → connected → waiting → connecting → …
//! - A fleet that loses its gateway does not come back in one second ([`reconnect`]).
//! - Every span is measured on the boot clock, so a suspended machine, a stopped process and a changed date are survived.
//! - The token stands in one header of one request, and nowhere else.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use protocol::session::{Class, Extent, Hello, Pace, Range, Welcome};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

mod beat;
pub(crate) mod commands;
pub mod config;
mod deliver;
pub(crate) mod dial;
mod end;
pub mod feed;
pub(crate) mod kept;
pub mod lines;
mod offline;
pub(crate) mod proxy;
pub(crate) mod reconnect;
mod sample;
mod session;
mod socket;
mod state;
mod streams;
mod sums;
mod trust;

use commands::Inbox;
pub use config::Config;
use dial::{Connection, DialError, Dialler};
use end::End;
pub use feed::Feed;
use kept::Kept;
pub use lines::Lines;
use reconnect::{Reconnect, Why};
use session::Session;
use streams::Streams;
pub use trust::Trust;

use crate::buffer;
use crate::exit;
use crate::http::View;
use crate::machine::Machine;
use crate::metrics::Metrics;
use crate::state::{StateDir, StateError};

/// While dials fail for one reason, it is logged this often.
const REMIND: Duration = Duration::from_secs(60);

/// At the end: for what the gateway does not have yet. What is left then stays on disk for the next supervisor.
const LAST_RECORDS: Duration = Duration::from_millis(700);

/// What the link is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// No gateway is configured.
    Off,
    /// Dialling, or waiting for the gateway's welcome.
    Connecting,
    /// In session.
    Connected,
    /// Between two dials.
    Waiting,
    /// Over, because the supervisor stops.
    Closed,
}

impl Phase {
    /// All, for metrics.
    pub const ALL: [Phase; 5] = [Phase::Off, Phase::Connecting, Phase::Connected, Phase::Waiting, Phase::Closed];

    /// The word in health and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Phase::Off => "off",
            Phase::Connecting => "connecting",
            Phase::Connected => "connected",
            Phase::Waiting => "waiting",
            Phase::Closed => "closed",
        }
    }
}

/// Reads the link's state, and ends it.
#[derive(Clone)]
pub struct Handle {
    /// Now.
    pub phase: watch::Receiver<Phase>,
    /// What calls past the session are checked with; `None` before the first session.
    pub trust: watch::Receiver<Option<Trust>>,
    stop: Arc<watch::Sender<bool>>,
}

impl Handle {
    /// Say goodbye, in at most this time.
    pub async fn finish(&self, patience: Duration) {
        self.stop.send_replace(true);
        let mut phase = self.phase.clone();
        let _ = timeout(patience, phase.wait_for(|phase| matches!(phase, Phase::Off | Phase::Closed))).await;
    }
}

/// The part's end of the handle.
pub struct Ends {
    phase: watch::Sender<Phase>,
    trust: watch::Sender<Option<Trust>>,
    stop: watch::Receiver<bool>,
}

/// A handle that can be given away before there is a part.
pub fn handle() -> (Handle, Ends) {
    let (phase_sender, phase) = watch::channel(Phase::Off);
    let (trust_sender, trust) = watch::channel(None);
    let (stop_sender, stop) = watch::channel(false);
    (Handle { phase, trust, stop: Arc::new(stop_sender) }, Ends { phase: phase_sender, trust: trust_sender, stop })
}

/// Until the supervisor stops.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// The part.
pub struct Link {
    config: Config,
    ends: Ends,
    dialler: Dialler,
    view: Arc<View>,
    /// Answer the gateway's calls.
    routes: Router,
    buffer: buffer::Handle,
    directory: Arc<StateDir>,
    machine: Machine,
    metrics: Arc<Metrics>,
    kept: Kept,
    reconnect: Reconnect,
    /// Of this start.
    boot_id: String,
    inbox: Inbox,
    trouble: Trouble,
}

/// The sandbox is to end: the gateway says so, or it was away for too long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// Not before the tasks that run have ended; no other one is started.
    pub after_tasks: bool,
    /// Who wants it, for people.
    pub reason: String,
}

/// What the link works with.
pub struct Inputs {
    /// The state that the gateway is told.
    pub view: Arc<View>,
    /// What answers the gateway's calls.
    pub routes: Router,
    /// What waits for the gateway.
    pub buffer: buffer::Handle,
    /// Where the link remembers.
    pub directory: Arc<StateDir>,
    /// Takes what happened.
    pub feed: Feed,
    /// Takes the end of the sandbox.
    pub endings: mpsc::Sender<Ending>,
    /// Time, chance and connections.
    pub machine: Machine,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

/// What was logged of an outage.
#[derive(Default)]
struct Trouble {
    kind: &'static str,
    logged: Duration,
}

impl Link {
    /// Nothing is dialled yet. Blocks on the disk for a moment; an error where that cannot say now what was done before.
    pub fn new(config: Config, ends: Ends, inputs: Inputs) -> Result<Link, StateError> {
        let Inputs { view, routes, buffer, directory, feed, endings, machine, metrics } = inputs;
        let (inbox, commands) = commands::new(commands::Inputs {
            routes: routes.clone(),
            epoch: buffer.epoch().into(),
            endings: endings.clone(),
            directory: directory.clone(),
            machine: machine.clone(),
            metrics: metrics.clone(),
        })?;
        tokio::spawn(commands.run());
        let phase = ends.phase.subscribe();
        tokio::spawn(offline::watch(config.offline, machine.clone(), phase, feed, endings, metrics.clone()));
        let kept = Kept::load(&directory);
        // What the gateway said last is newer than what the Pod was made with.
        let reconnect = Reconnect::new(kept.window().or(config.window));
        let dialler = Dialler::new(&config, machine.clone());
        let boot_id = format!("{:016x}{:016x}", peer::random::bits(), peer::random::bits());
        ends.phase.send_replace(Phase::Waiting);
        let trouble = Trouble::default();
        Ok(Link {
            config,
            ends,
            dialler,
            view,
            routes,
            buffer,
            directory,
            machine,
            metrics,
            kept,
            reconnect,
            boot_id,
            inbox,
            trouble,
        })
    }

    /// Until the supervisor stops.
    pub async fn run(mut self) {
        let mut why = Why::Lost(Duration::ZERO);
        while let Some(next) = self.once(why).await {
            why = next;
        }
        self.ends.phase.send_replace(Phase::Closed);
    }

    /// Wait, dial, talk; why there is no session any more. `None` when the supervisor stops.
    async fn once(&mut self, why: Why) -> Option<Why> {
        let wait = self.reconnect.wait(why, self.machine.random());
        self.ends.phase.send_replace(Phase::Waiting);
        self.pause(wait).await?;
        self.ends.phase.send_replace(Phase::Connecting);
        let dialled = tokio::select! {
            biased;
            dialled = self.dialler.dial() => dialled,
            () = stopped(&mut self.ends.stop) => return None,
        };
        let outcome = dialled.as_ref().err().map_or("connected", DialError::name);
        self.metrics.link_dials.get_or_create(&vec![("outcome", outcome.into())]).inc();
        match dialled {
            Ok(connection) => {
                let begun = self.machine.now();
                let end = self.talk(connection).await;
                let lasted = self.machine.now().saturating_sub(begun);
                self.metrics.link_ends.get_or_create(&vec![("reason", end.name().into())]).inc();
                if matches!(end, End::Stopped) {
                    return None;
                }
                self.report(end.name(), &end);
                Some(end.why(lasted))
            }
            Err(error) => {
                self.report(error.name(), &error);
                if let DialError::Refused { window: Some(window), .. } = &error {
                    self.learn(*window).await;
                }
                Some(error.why())
            }
        }
    }

    /// Until then by the boot clock. `None` when the supervisor stops.
    async fn pause(&mut self, wait: Duration) -> Option<()> {
        tokio::select! {
            biased;
            () = self.machine.until(self.machine.now() + wait) => Some(()),
            () = stopped(&mut self.ends.stop) => None,
        }
    }

    async fn talk(&mut self, connection: Connection) -> End {
        let state = state::Watch::new(self.view.clone());
        let streams = Streams::new(self.routes.clone());
        let (metrics, machine) = (self.metrics.clone(), self.machine.clone());
        let extents = match self.buffer.extents().await {
            Ok(extents) => extents,
            Err(error) => return End::Buffer(error),
        };
        let hello = self.hello(extents.clone());
        let opened = tokio::select! {
            biased;
            opened = Session::open(connection, hello, state, streams, self.inbox.clone(), &machine, &metrics) => opened,
            () = stopped(&mut self.ends.stop) => return End::Stopped,
        };
        let (mut session, welcome) = match opened {
            Ok(opened) => opened,
            Err(end) => return end,
        };
        if let Err(end) = session.deliver(self.buffer.clone(), &welcome, &extents).await {
            return session.close(end).await;
        }
        self.connected(&welcome).await;
        loop {
            match session.next(&mut self.ends.stop).await {
                Ok(pace) => self.pace(&pace).await,
                Err(End::Stopped) => {
                    let end = match timeout(LAST_RECORDS, session.drain()).await {
                        // What was lost is on disk, for the next supervisor; this one still says goodbye.
                        Ok(Err(end @ End::Missed(_))) => {
                            self.report(end.name(), &end);
                            End::Stopped
                        }
                        Ok(Err(end)) => end,
                        Ok(Ok(())) | Err(_) => End::Stopped,
                    };
                    session.close(end).await;
                    return End::Stopped;
                }
                Err(end) => return session.close(end).await,
            }
        }
    }

    async fn connected(&mut self, welcome: &Welcome) {
        let (gateway, session) = (&self.config.gateway, &welcome.session);
        tracing::info!(?gateway, session, fence = welcome.fence, version = welcome.version, "the link is connected");
        self.trouble = Trouble::default();
        self.ends.trust.send_modify(|trust| *trust = Some(Trust::new(welcome, trust.as_ref())));
        self.ends.phase.send_replace(Phase::Connected);
        self.pace(&welcome.pace).await;
    }

    async fn pace(&mut self, pace: &Pace) {
        if let Some(window) = pace.window_ms {
            self.learn(Duration::from_millis(window)).await;
        }
    }

    async fn learn(&mut self, window: Duration) {
        self.reconnect.learn(window);
        self.kept.set_window(window, &self.directory, &self.machine).await;
    }

    fn hello(&self, classes: BTreeMap<Class, Extent>) -> Hello {
        let identity = &self.view.identity;
        Hello {
            protocol: Range::OURS,
            version: env!("CARGO_PKG_VERSION").into(),
            capabilities: vec!["stream".into()],
            agent_id: self.config.agent_id.clone(),
            project_id: identity.project_id.clone(),
            controller_id: identity.controller_id.clone(),
            pod: self.config.pod.clone(),
            boot_id: self.boot_id.clone(),
            log_epoch: self.buffer.epoch().into(),
            classes,
            applied: self.inbox.applied(),
            offline: Some(self.config.offline),
            boot_ms: self.machine.boot_ms(),
            wall_ms: self.machine.wall_ms(),
        }
    }

    /// One line when it begins or becomes something else, and one a minute: an outage may last for days.
    fn report(&mut self, kind: &'static str, error: &dyn std::error::Error) {
        let now = self.machine.now();
        if self.trouble.kind != kind || now >= self.trouble.logged + REMIND {
            self.trouble = Trouble { kind, logged: now };
            let reason = exit::reason(error);
            tracing::warn!(gateway = ?self.config.gateway, kind, reason, "there is no link to the gateway");
        }
    }
}
