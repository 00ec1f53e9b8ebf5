//! The gateway of a simulation: the parts of the real one on a real SQLite file, from its connections on.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use gateway::admission::Admission;
use gateway::api::{self, Api};
use gateway::awake::Awake;
use gateway::lease::Lease;
use gateway::listener;
use gateway::metrics::Metrics;
use gateway::registry::Registry;
use gateway::sessions::{self, Sessions};
use gateway::signing::Signer;
use gateway::store::{self, Event, InPlace, Page, Register, Store, StoreError};
use gateway::tokens::Hash;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use peer::places::Places;

use super::database::{Database, in_place, url};
use super::net::Net;
use crate::control_plane::token_of;

/// T.
pub(super) const BEAT: Duration = Duration::from_secs(5);
/// Sessions in a second.
const RATE: u32 = 20;
/// Of a drain.
pub(super) const GRACE: Duration = Duration::from_secs(5);

/// One life of it.
pub(super) struct Gateway {
    pub(super) sessions: Arc<Sessions>,
    draining: watch::Sender<bool>,
    closing: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Gateway {
    /// Serve whoever dials on `net`.
    pub(super) async fn start(place: &Path, net: &Net, database: &Database) -> Gateway {
        let metrics = Arc::new(Metrics::default());
        let asked = database.clone();
        let in_place_of_waiting: InPlace = Arc::new(move |work| asked.work(work));
        // What the one before writes last of a session outlives it here by a moment; a process would end with it.
        let (store, writer) = loop {
            match in_place(Store::open_in_place(&url(place), in_place_of_waiting.clone(), metrics.clone())) {
                Ok(opened) => break opened,
                Err(StoreError::Taken(_)) => sleep(Duration::from_millis(1)).await,
                Err(error) => panic!("{error}"),
            }
        };
        let mut tasks = vec![tokio::spawn(database.clone().hold_up(writer.run()))];
        let awake = Awake::starting_at(store.awake_ms().await.expect("it can be read"));
        let wake = store::Wake { alone: true, now_ms: 0, awake_ms: awake.now() };
        store.write(wake).await.expect("it can be written");
        let (draining, drained) = watch::channel(false);
        let (closing, closed) = watch::channel(false);
        let sessions = Arc::new(Sessions {
            admission: Admission::new(RATE, Instant::now()),
            registry: Registry::default(),
            tokens: None,
            identity: None,
            signer: Signer::new().expect("random numbers"),
            metrics,
            lease: Lease::alone(),
            awake: awake.clone(),
            beat: BEAT,
            draining: drained,
            begun: AtomicU64::new(0),
            store,
        });
        tasks.push(tokio::spawn(awake.run()));
        let api = Api { sessions: sessions.clone(), users: None, made: None, others: None };
        let routes = api::routes(Arc::new(api));
        let mut dialled = net.listen();
        tasks.push(tokio::spawn(async move {
            let places = Places::new(16);
            while let Some(end) = dialled.recv().await {
                let Some(place) = places.admit(|| ()).await else { continue };
                let (routes, closed) = (routes.clone(), closed.clone());
                tokio::spawn(async move {
                    tokio::select! {
                        biased;
                        () = place.given_away() => {}
                        () = listener::connection(end, routes, &place, closed) => {}
                    }
                });
            }
        }));
        Gateway { sessions, draining, closing, tasks }
    }

    /// Let this sandbox dial in.
    pub(super) async fn register(&self, sandbox: &str) {
        let token = Hash::of(&token_of(sandbox)).hex();
        let register = Register { id: sandbox.into(), token, now_ms: 0 };
        self.sessions.store.write(register).await.expect("it can be written");
        let fleet = self.sessions.store.fleet().await.expect("it can be read");
        self.sessions.admission.set_fleet(fleet.unsigned_abs());
    }

    /// Give a command; its number, where the database says that it has it.
    pub(super) async fn command(&self, sandbox: &str) -> Option<i64> {
        let body = r#"{"argv":["true"]}"#.into();
        let give = store::Give { sandbox: sandbox.into(), verb: "task.create".into(), body, now_ms: 0 };
        let n = self.sessions.store.write(give).await.ok()?.expect("it is registered");
        if let Some(live) = self.sessions.registry.get(sandbox) {
            live.tell_of_commands();
        }
        Some(n)
    }

    /// Which of the commands 1 to `given` have no outcome.
    pub(super) async fn without_outcome(&self, sandbox: &str, given: i64) -> Vec<i64> {
        let mut missing = Vec::new();
        for n in 1..=given {
            let command = self.sessions.store.command(sandbox, n).await.expect("it can be read");
            if command.is_none_or(|command| command.outcome.is_none()) {
                missing.push(n);
            }
        }
        missing
    }

    /// Every event of a sandbox.
    pub(super) async fn events(&self, sandbox: &str) -> Vec<Event> {
        let mut events: Vec<Event> = Vec::new();
        loop {
            let after = events.last().map_or(0, |event| event.position);
            let page = Page { class: None, after, limit: 10_000 };
            let more = self.sessions.store.events(sandbox, page).await.expect("it can be read");
            if more.is_empty() {
                return events;
            }
            events.extend(more);
        }
    }

    /// It stops as an operator stops it.
    pub(super) async fn drain(self, net: &Net) {
        self.draining.send_replace(true);
        sessions::drain(&self.sessions, Instant::now() + GRACE).await;
        self.closing.send_replace(true);
        net.close();
        net.cut(None);
        self.end().await;
    }

    /// Its process is killed: nothing that it began goes on. Its connections are the caller's matter.
    pub(super) async fn kill(self, net: &Net) {
        net.close();
        net.end_gateway();
        self.closing.send_replace(true);
        self.end().await;
    }

    async fn end(self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        in_place(self.sessions.store.close());
        // Its sessions see that their connections and their store are gone.
        let weak = Arc::downgrade(&self.sessions);
        drop(self);
        for _ in 0..1_000 {
            if weak.strong_count() == 0 {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("a session of a gateway that was killed goes on");
    }
}
