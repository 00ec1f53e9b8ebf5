//! What a supervisor has around its link, for sandboxes that have nothing else of one: the view that the link tells of, and the ends of
//! channels that its other parts would hold open.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use protocol::health::SandboxIdentity;
use protocol::policy::Enforcement;
use protocol::session::{Offline, OfflineAction};
use supervisor::agent::{self, Status};
use supervisor::app::Stage;
use supervisor::http::View;
use supervisor::link::lines::Budget;
use supervisor::link::{self, Ending, Phase};
use supervisor::metrics::Metrics;
use tokio::sync::{mpsc, watch};

/// Of one link.
pub(crate) struct Surroundings {
    pub(crate) view: Arc<View>,
    pub(crate) ends: link::Ends,
    pub(crate) endings: mpsc::Sender<Ending>,
    pub(crate) phase: watch::Receiver<Phase>,
    /// To be held for as long as the link lasts.
    pub(crate) open: Open,
}

/// Ends of channels that must stay open.
pub(crate) struct Open {
    _link: link::Handle,
    _stage: watch::Sender<Stage>,
    _agent: watch::Sender<Status>,
    _previous: watch::Sender<Option<String>>,
    _endings: mpsc::Receiver<Ending>,
}

impl Surroundings {
    /// Of a sandbox whose agent runs and is ready.
    pub(crate) fn of(id: &str, metrics: &Arc<Metrics>) -> Surroundings {
        let (link, ends) = link::handle();
        let (stage, stages) = watch::channel(Stage::Running);
        let (agent, status) = watch::channel(Status { ready: true, ..Status::new(agent::Phase::Running) });
        let (previous, before) = watch::channel(None);
        let (sender, endings) = mpsc::channel(1);
        let phase = link.phase.clone();
        let view = View {
            identity: SandboxIdentity { agent_id: id.into(), ..SandboxIdentity::default() },
            stage: stages,
            agent: status,
            enforcement: Enforcement::Required,
            previous: before,
            link: phase.clone(),
            metrics: metrics.clone(),
        };
        let open = Open { _link: link, _stage: stage, _agent: agent, _previous: previous, _endings: endings };
        Surroundings { view: Arc::new(view), ends, endings: sender, phase, open }
    }
}

/// Of a link that tells everything, by a token in this file.
pub(crate) fn config(id: &str, gateway: &str, token: PathBuf, window: Duration, logs: Budget) -> link::Config {
    link::Config {
        gateway: gateway.parse().expect("an address"),
        agent_id: id.into(),
        proxy: None,
        token_file: Some(token),
        tls: Default::default(),
        window: Some(window),
        offline: Offline { after_ms: 24 * 3600 * 1000, action: OfflineAction::Keep },
        samples: Duration::from_secs(60),
        pod: None,
        logs: Some(logs),
    }
}
