//! Builds the parts, joins them, and stops them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::admission::Admission;
use crate::advertise;
use crate::api::{self, Api, Others};
use crate::awake::{Awake, wall_ms};
use crate::backend::Backend;
use crate::backend::kubernetes::preflight::Finding;
use crate::backend::kubernetes::{self, Kubernetes};
use crate::cluster;
use crate::config::{Mistake, Reader, parse};
use crate::exit::{self, Fault};
use crate::identity::{self, Identity};
use crate::lease::{Keeper, Lease};
use crate::listener;
use crate::metrics::Metrics;
use crate::registry::Registry;
use crate::sandboxes::Sandboxes;
use crate::sessions::{self, Sessions};
use crate::signing::Signer;
use crate::store::{Keep, Leases, Leave, Reading, Store, StoreError, Wake};
use crate::tls;
use crate::tokens::Tokens;

/// What `serve` needs.
#[derive(Clone)]
pub struct Config {
    /// Of everything.
    pub listen: SocketAddr,
    /// Certificate and key of the listener.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Of the store.
    pub database_url: String,
    /// How other gateways on the same store reach this one, where there may be others.
    pub advertise: Option<advertise::Config>,
    /// Who may call the API.
    pub users: Option<PathBuf>,
    /// Who may dial in.
    pub sandboxes: Option<PathBuf>,
    /// Sessions in a second.
    pub admission_rate: u32,
    /// T.
    pub beat: Duration,
    /// Of the events of each sandbox.
    pub keep: Keep,
    /// Makes sandboxes in a cluster, where that is asked for.
    pub kubernetes: Option<kubernetes::Config>,
    /// Whose service accounts' tokens count.
    pub identity: Option<identity::Config>,
    /// Where the cluster is.
    pub cluster: cluster::Config,
    /// From a stop signal to the end.
    pub grace: Duration,
}

impl Config {
    /// From the settings.
    pub fn read(mut reader: Reader) -> Result<Config, Vec<Mistake>> {
        let tls = (reader.optional("tls_cert_file", parse::path), reader.optional("tls_key_file", parse::path));
        match tls {
            (Some(_), None) => reader.mistake("tls_key_file", "is missing beside GATEWAY_TLS_CERT_FILE"),
            (None, Some(_)) => reader.mistake("tls_cert_file", "is missing beside GATEWAY_TLS_KEY_FILE"),
            _ => {}
        }
        let cluster = cluster::Config::read(&mut reader);
        let database_url = reader.value("database_url", parse::database);
        let config = Config {
            listen: reader.value("listen", parse::address),
            tls: tls.0.zip(tls.1),
            advertise: advertise::Config::read(&mut reader, &database_url),
            database_url,
            users: reader.optional("user_tokens_file", parse::path),
            sandboxes: reader.optional("sandbox_tokens_file", parse::path),
            admission_rate: reader.value("admission_rate", parse::number(1, 100_000)),
            beat: reader.value("beat", parse::duration),
            keep: Keep {
                age: reader.value("events_keep_age", parse::duration),
                count: reader.value("events_keep_count", parse::number(1, u32::MAX)),
            },
            kubernetes: kubernetes::Config::read(&mut reader, &cluster),
            identity: identity::Config::read(&mut reader),
            cluster,
            grace: reader.value("grace", parse::duration),
        };
        let mistakes = reader.finish();
        if mistakes.is_empty() { Ok(config) } else { Err(mistakes) }
    }
}

/// For what the cluster is asked at the start: a start that takes longer is taken for a hung one (chart: 60 s).
const LOOK: Duration = Duration::from_secs(10);
/// How often the fleet is counted.
const COUNT: Duration = Duration::from_secs(5);
/// How often the reading of the awake clock is kept.
const KEEP: Duration = Duration::from_secs(30);

/// A gateway that serves.
pub struct Running {
    /// Where it listens.
    pub address: SocketAddr,
    /// Sessions, and through them registry and store.
    pub sessions: Arc<Sessions>,
    /// Those that this gateway makes, where it makes any.
    pub made: Option<Sandboxes>,
    grace: Duration,
    draining: watch::Sender<bool>,
    closing: watch::Sender<bool>,
    serving: JoinHandle<()>,
    keeping: Option<JoinHandle<()>>,
    /// Keeps the signal's handler.
    _size_limit: Signal,
}

/// Serve until a stop signal.
pub async fn serve(mut config: Config) -> Result<(), Fault> {
    let mut stops = Stops::new()?;
    let listener = listen(config.listen)?;
    let (mut backend, mut follow) = (None::<Arc<dyn Backend>>, None);
    if let Some(kubernetes) = config.kubernetes.clone() {
        let kubernetes = connect(kubernetes).await?;
        let identity = kubernetes.identity(config.identity.take());
        config.identity = Some(identity.map_err(|error| Fault::new(exit::CONFIGURATION, &error))?);
        follow = Some(kubernetes.follow());
        backend = Some(Arc::new(kubernetes));
    }
    let mut running = start(config, listener, backend).await?;
    if let Some(made) = &running.made {
        tokio::spawn(made.clone().lead());
    }
    // Now somebody listens, so what has changed since the last life is told.
    follow.map(tokio::spawn);
    tokio::select! {
        () = stops.next() => {}
        // Nobody else would close its sessions before others count them as ended.
        () = running.keeper_ended() => {
            return Err(Fault { code: exit::INTERNAL, reason: "nobody keeps the lease any more; this is a bug".into() });
        }
    }
    running.stop(&mut stops).await;
    Ok(())
}

/// The backend, which does not follow its cluster yet. A right that is missing is a mistake of the configuration; a cluster that
/// does not answer, or would take no Pod now, may do so later, and is no reason not to serve those that run.
async fn connect(config: kubernetes::Config) -> Result<Kubernetes, Fault> {
    let kubernetes = Kubernetes::new(config).await.map_err(|error| Fault::new(exit::CONFIGURATION, &error))?;
    let looks = async { (kubernetes.rights().await, kubernetes.dry_run().await) };
    match tokio::time::timeout(LOOK, looks).await {
        Ok((rights, dry_run)) => {
            let missing: Vec<String> = rights.into_iter().filter_map(bad).collect();
            if !missing.is_empty() {
                return Err(Fault { code: exit::CONFIGURATION, reason: missing.join("\ngateway: ") });
            }
            for text in dry_run.into_iter().filter_map(bad) {
                tracing::warn!("sandboxes cannot be made now: {text}");
            }
        }
        Err(_) => tracing::warn!("the cluster says nothing: whether this gateway may do what it needs is not known"),
    }
    Ok(kubernetes)
}

fn bad(finding: Finding) -> Option<String> {
    match finding {
        Finding::Bad(text) => Some(text),
        Finding::Unknown(text) => {
            tracing::warn!("the cluster cannot be asked now: {text}");
            None
        }
        Finding::Good(_) | Finding::Warning(_) => None,
    }
}

/// The listener, to be given to [`start`].
pub fn listen(address: SocketAddr) -> Result<TcpListener, Fault> {
    peer::listen::bind(address).map_err(|error| {
        let reason = format!("cannot listen on {address}: {error}");
        Fault { code: exit::unless_temporary(exit::UNAVAILABLE, &error), reason }
    })
}

/// Begin to serve; sandboxes are made by `backend`, where there is one.
pub async fn start(config: Config, listener: TcpListener, backend: Option<Arc<dyn Backend>>) -> Result<Running, Fault> {
    let internal = |error: std::io::Error| Fault::new(exit::INTERNAL, &error);
    // Taken note of, so that a file at its size limit is an error of the store and not our end (setrlimit(2)).
    let size_limit = signal(SignalKind::from_raw(libc::SIGXFSZ)).map_err(internal)?;
    let tokens = |path: &Option<PathBuf>| {
        let tokens = path.clone().map(Tokens::new);
        // A file that is wrong from the start is a mistake of the configuration; later it closes doors, and says so.
        tokens.as_ref().map_or(Ok(()), Tokens::check).map_err(|error| Fault::new(exit::CONFIGURATION, &error))?;
        Ok(tokens)
    };
    let certificate = config.tls.clone().map(|(certificate, key)| tls::Identity::new(certificate, key)).transpose();
    let certificate = certificate.map_err(|error| Fault::new(exit::CONFIGURATION, &error))?;
    let (users, sandboxes) = (tokens(&config.users)?, tokens(&config.sandboxes)?);
    let metrics = Arc::new(Metrics::default());
    tell_panics(metrics.clone());
    let (store, writer) =
        Store::open(&config.database_url, config.advertise.is_some(), metrics.clone()).await.map_err(fault)?;
    tokio::spawn(writer.run());
    let awake = Awake::starting_at(store.awake_ms().await.map_err(fault)?);
    let alone = config.advertise.is_none();
    store.write(Wake { alone, now_ms: wall_ms(), awake_ms: awake.now() }).await.map_err(fault)?;
    let (lease, keeper) = lease(&config, &awake).await.map_err(fault)?;
    let (draining, drained) = watch::channel(false);
    let sessions = Arc::new(Sessions {
        admission: Admission::new(config.admission_rate, Instant::now()),
        registry: Registry::default(),
        tokens: sandboxes,
        identity: pods(&config).await?,
        signer: Signer::new().map_err(no_random_numbers)?,
        metrics: metrics.clone(),
        lease: lease.clone(),
        awake: awake.clone(),
        beat: config.beat,
        draining: drained,
        begun: AtomicU64::new(0),
        store,
    });
    count_fleet(&sessions).await.map_err(fault)?;
    let address = listener.local_addr().map_err(internal)?;
    let made = backend.map(|backend| Sandboxes::new(&sessions, backend));
    let others = config.advertise.as_ref().map(|advertise| Others::new(&advertise.tls));
    let routes = api::routes(Arc::new(Api { sessions: sessions.clone(), users, made: made.clone(), others }));
    let (closing, closed) = watch::channel(false);
    tokio::spawn(config.keep.enforce(sessions.store.clone(), lease, metrics.clone()));
    let serving = tokio::spawn(listener::serve(listener, certificate, routes, metrics, closed));
    tokio::spawn(awake.run());
    tokio::spawn(chores(sessions.clone()));
    if keeper.is_some() {
        tokio::spawn(sessions.store.clone().watch_others());
    }
    if let Some(advertise) = &config.advertise {
        tokio::spawn(sessions::balance::run(sessions.clone(), advertise.balance_after));
    }
    let keeping = keeper.map(|keeper| tokio::spawn(keeper.run(sessions.clone())));
    tracing::info!(%address, "the gateway listens");
    let grace = config.grace;
    Ok(Running { address, sessions, made, grace, draining, closing, serving, keeping, _size_limit: size_limit })
}

impl Running {
    /// Comes where the keeper of the lease has ended, which it never does by itself.
    async fn keeper_ended(&mut self) {
        match &mut self.keeping {
            Some(keeping) => drop(keeping.await),
            None => std::future::pending().await,
        }
    }

    /// In this order: no new session; goodbyes; calls that are being answered; the lease; what is left to write. One deadline for all,
    /// and a further signal of `stops` cuts it short.
    pub async fn stop(self, stops: &mut Stops) {
        let Running { sessions, grace, draining, closing, serving, keeping, .. } = self;
        tracing::info!(sessions = sessions.registry.len(), "the gateway stops");
        let deadline = Instant::now() + grace;
        let wind_down = async {
            draining.send_replace(true);
            sessions::drain(&sessions, deadline).await;
            closing.send_replace(true);
            let _ = serving.await;
            if let Some(keeping) = keeping {
                keeping.abort();
                give_back(&sessions).await;
            }
            keep_clock(&sessions).await;
            sessions.store.close().await;
        };
        tokio::select! {
            done = tokio::time::timeout_at(deadline, wind_down) => match done {
                Ok(()) => tracing::info!("everything has ended"),
                Err(_) => tracing::warn!("the grace is over; what has not ended is cut off"),
            },
            () = stops.next() => tracing::warn!("a second stop signal; what has not ended is cut off"),
        }
    }
}

/// The signals that stop: TERM, INT, and HUP unless somebody like nohup(1) had it ignored.
pub struct Stops {
    terminate: Signal,
    interrupt: Signal,
    hangup: Option<Signal>,
}

impl Stops {
    /// From here on none of them ends the process by itself.
    pub fn new() -> Result<Stops, Fault> {
        let of = |kind| signal(kind).map_err(|error| Fault::new(exit::INTERNAL, &error));
        let hangup = if hangup_is_ignored() { None } else { Some(of(SignalKind::hangup())?) };
        Ok(Stops { terminate: of(SignalKind::terminate())?, interrupt: of(SignalKind::interrupt())?, hangup })
    }

    /// The next one.
    pub async fn next(&mut self) {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = hangup => {}
        }
    }
}

/// The lowest bit of the mask is signal 1 (proc_pid_status(5)).
fn hangup_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    mask.is_some_and(|mask| mask & 1 == 1)
}

/// A panic is counted and told as one log line. Not its text: that may quote what somebody sent.
fn tell_panics(metrics: Arc<Metrics>) {
    std::panic::set_hook(Box::new(move |panic| {
        metrics.panics.inc();
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, "a part of the gateway panicked; this is a bug of it");
    }));
}

/// What goes on beside the sessions.
async fn chores(sessions: Arc<Sessions>) {
    let (mut count, mut keep) = (tokio::time::interval(COUNT), tokio::time::interval(KEEP));
    loop {
        tokio::select! {
            _ = count.tick() => {
                if let Err(error) = count_fleet(&sessions).await {
                    tracing::warn!(error = exit::reason(&error), "the fleet cannot be counted");
                }
            }
            _ = keep.tick() => keep_clock(&sessions).await,
        }
    }
}

/// Where there are several, each renewal of a lease does it, and would wait for this one.
async fn keep_clock(sessions: &Sessions) {
    if !sessions.lease.is_alone() {
        return;
    }
    if let Err(error) = sessions.store.write(Reading(sessions.awake.shared())).await {
        tracing::warn!(error = exit::reason(&error), "the awake clock cannot be kept");
    }
}

async fn count_fleet(sessions: &Sessions) -> Result<(), StoreError> {
    let fleet = u64::try_from(sessions.store.fleet().await?).unwrap_or(0);
    sessions.admission.set_fleet(fleet);
    Ok(())
}

/// A lease where there may be other gateways.
async fn lease(config: &Config, awake: &Awake) -> Result<(Lease, Option<Keeper>), StoreError> {
    let Some(advertise) = &config.advertise else { return Ok((Lease::alone(), None)) };
    let leases = Leases::connect(&config.database_url).await?;
    let (lease, keeper) = Keeper::start(leases, advertise.url.clone(), awake.shared()).await?;
    Ok((lease, Some(keeper)))
}

/// So that nobody waits for its end.
async fn give_back(sessions: &Sessions) {
    let Some(id) = sessions.lease.id() else { return };
    if let Err(error) = sessions.store.write(Leave::now(id, sessions.awake.shared())).await {
        tracing::warn!(error = exit::reason(&error), "the lease cannot be given back; it ends by itself");
    }
}

/// Whose tokens count, where there are Pods that dial by their own.
async fn pods(config: &Config) -> Result<Option<Identity>, Fault> {
    let Some(identity) = config.identity.clone() else { return Ok(None) };
    let client = cluster::connect(&config.cluster).await.map_err(|error| Fault::new(exit::CONFIGURATION, &error))?;
    Ok(Some(Identity::new(identity, client)))
}

fn no_random_numbers(_: ring::error::Unspecified) -> Fault {
    Fault { code: exit::TEMPORARY, reason: "this machine has no random numbers".into() }
}

/// A schema is the operator's to make and to change; the rest may be there later.
pub fn fault(error: StoreError) -> Fault {
    let operators = matches!(error, StoreError::Schema(_) | StoreError::Missing(_));
    let code = if operators { exit::CONFIGURATION } else { exit::TEMPORARY };
    Fault::new(code, &error)
}
