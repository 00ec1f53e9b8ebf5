//! A real launch of the supervisor's own program, confined as an agent would be. What it reports was enforced by this
//! kernel a moment ago; nothing is concluded from version numbers.

use std::ffi::OsString;
use std::sync::Arc;

use protocol::control::{Failure, Report};
use protocol::guarantee::{Standing, State};
use protocol::policy::{Enforcement, ExecutionClass};
use serde::Serialize;
use tokio::sync::{mpsc, watch};

use crate::init::{Init, Reaper, Stops, signals::Rules};
use crate::launch::{Config, Event, Launcher, Request, Streams, find_shim};
use crate::metrics::Metrics;

/// What the launches showed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Trial {
    /// Landlock ABI in force, 0 for none.
    pub(super) landlock_abi: u32,
    /// Every guarantee, for whichever class asks for it.
    pub(super) guarantees: Vec<Standing>,
    /// The step that failed, where nothing could be started.
    pub(super) failure: Option<Failure>,
}

/// Launch twice: class `networked` with a port list and class `readonly` together ask for every guarantee.
pub(super) async fn run(config: &Config) -> Result<Trial, String> {
    let metrics = Arc::new(Metrics::default());
    let reaper = Reaper::new(metrics.clone());
    let (stops, _stops) = watch::channel(Stops::default());
    let (forwards, _forwards) = mpsc::channel(1);
    let rules = Rules { shield: false, metrics: metrics.clone() };
    let init = Init::new(reaper.clone(), rules, stops, forwards).map_err(|e| e.to_string())?;
    let reaping = tokio::spawn(init.run());
    let mut merged = Trial::default();
    for (class, connect_ports) in [(ExecutionClass::Networked, vec![443]), (ExecutionClass::Readonly, Vec::new())] {
        let config = Config { class, connect_ports, enforcement: Enforcement::BestEffort, ..config.clone() };
        let shim = find_shim().map_err(|e| e.to_string())?;
        let launcher = Launcher::new(config, shim, reaper.clone(), metrics.clone(), (None, None));
        merged.add(once(&launcher).await?);
    }
    reaping.abort();
    Ok(merged)
}

impl Trial {
    fn add(&mut self, other: Trial) {
        self.landlock_abi = self.landlock_abi.max(other.landlock_abi);
        self.failure = self.failure.take().or(other.failure);
        for standing in other.guarantees {
            match self.guarantees.iter_mut().find(|s| s.guarantee == standing.guarantee) {
                Some(known) if known.state == State::NotAsked => *known = standing,
                Some(_) => {}
                None => self.guarantees.push(standing),
            }
        }
    }
}

async fn once(launcher: &Launcher) -> Result<Trial, String> {
    let own = std::env::current_exe().map_err(|e| e.to_string())?;
    let argv = vec![own.into_os_string(), OsString::from("--version")];
    let request = Request { argv, env: Vec::new(), cwd: None, streams: Streams::Null };
    let mut tree = launcher.start(&request).await.map_err(|e| crate::exit::reason(&e))?;
    let mut trial = Trial::default();
    while let Some(event) = tree.event().await {
        match event {
            Event::Report(Report::Started { guarantees, landlock_abi, .. }) => {
                (trial.guarantees, trial.landlock_abi) = (guarantees, landlock_abi);
            }
            Event::Report(Report::Failed(failure)) => trial.failure = Some(failure),
            Event::ShimLost(exit) => return Err(format!("the shim was lost: {exit:?}")),
            Event::Report(_) => {}
        }
    }
    Ok(trial)
}
