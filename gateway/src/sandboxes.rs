//! Sandboxes that this gateway makes: what is wanted stands in the store, the backend makes it so.
//!
//! Promises: what is wanted is stored before anything is made, and is forgotten only after all of it has ended, so a crash at any
//! step is mended by the next life ([`agree`]); once begun, making and ending go on to their end, whoever stops waiting for them
//! (002-16); a sandbox that was refused leaves nothing; one id is worked on by one task at a time; of several gateways, one that
//! does not lead any more gives up and forgets nothing: the one that leads goes on with it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{OwnedMutexGuard, Semaphore};
use tokio::task::JoinHandle;

use crate::awake::wall_ms;
use crate::backend::{Backend, BackendError, New, Seen, Spec, State};
use crate::exit::reason;
use crate::lease::Lease;
use crate::metrics::Metrics;
use crate::registry::Registry;
use crate::sessions::Sessions;
use crate::store::{Forget, Row, Store, StoreError, Term, Unwant, Want};
use crate::tokens::{Hash, new_token};

mod agree;
mod ready;
mod tell;

pub use agree::EVERY;
pub use ready::NotReady;

/// Why a sandbox was not made or ended.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum SandboxError {
    #[error(transparent)]
    Backend(#[from] BackendError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("this machine has no random numbers")]
    Random(#[source] std::io::Error),
    /// Another one of this id.
    #[error("{0}")]
    Conflict(String),
    #[error("there is no sandbox {0}")]
    Unknown(String),
    #[error("another gateway leads since, and goes on with sandbox {id}: ask again")]
    Over { id: String },
    #[error("what was asked for of sandbox {id} cannot be read by this version of the gateway")]
    Spec { id: String, source: serde_json::Error },
}

/// Whether it was there before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    /// It was made.
    New,
    /// The same was asked for before (003-20).
    Attached,
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Sandboxes(Arc<Inner>);

struct Inner {
    store: Store,
    registry: Registry,
    lease: Lease,
    backend: Arc<dyn Backend>,
    metrics: Arc<Metrics>,
    /// Who works on which id.
    busy: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
    /// Why some cannot be made again now.
    troubles: Mutex<HashMap<String, String>>,
    /// How many are mended at a time.
    places: Arc<Semaphore>,
}

/// So many are mended at a time.
const PLACES: usize = 64;

impl Sandboxes {
    /// Nothing is done yet.
    pub fn new(sessions: &Sessions, backend: Arc<dyn Backend>) -> Sandboxes {
        let (store, registry) = (sessions.store.clone(), sessions.registry.clone());
        let (lease, metrics) = (sessions.lease.clone(), sessions.metrics.clone());
        let (busy, troubles) = (Mutex::default(), Mutex::default());
        let places = Arc::new(Semaphore::new(PLACES));
        Sandboxes(Arc::new(Inner { store, registry, lease, metrics, backend, busy, troubles, places }))
    }

    /// For as long as the gateway runs: what one gateway does for all, while this is the one that leads.
    pub async fn lead(self) {
        let mut lease = self.0.lease.clone();
        loop {
            lease.until_leads(true).await;
            tokio::select! {
                () = self.clone().tell() => return,
                () = self.clone().agree() => return,
                () = lease.until_leads(false) => {}
            }
        }
    }

    /// Make one, or find the same there already.
    pub async fn create(&self, id: &str, spec: Spec) -> Result<Made, SandboxError> {
        let made = self.make(id, spec).await;
        let word = match &made {
            Ok(Made::New) => "made",
            Ok(Made::Attached) => "attached",
            Err(SandboxError::Backend(error)) => error.word(),
            Err(SandboxError::Conflict(_)) => "taken",
            Err(_) => "store",
        };
        self.0.metrics.sandboxes_asked_for.get_or_create(&vec![("outcome", word.into())]).inc();
        made
    }

    async fn make(&self, id: &str, spec: Spec) -> Result<Made, SandboxError> {
        self.0.backend.check(id, &spec)?;
        let (inner, id, term) = (self.0.clone(), id.to_string(), self.0.lease.term());
        to_the_end(tokio::spawn(async move {
            let _busy = inner.busy(&id).await;
            inner.create(&id, spec, term).await
        }))
        .await
    }

    /// End one and forget it. Where its end takes long, it goes on without whoever asked.
    pub async fn delete(&self, id: &str) -> Result<(), SandboxError> {
        let (inner, id, term) = (self.0.clone(), id.to_string(), self.0.lease.term());
        to_the_end(tokio::spawn(async move {
            // First, so that a crash while another one is busy with it forgets nothing. Whoever leads then ends it.
            let known = inner.store.write(Unwant { id: id.clone(), term: Term::always() }).await?;
            let _busy = inner.busy(&id).await;
            match inner.store.sandbox(&id).await? {
                Some(row) if row.ending => inner.end(&id, term).await?,
                // It has ended meanwhile, and this one was asked for since.
                Some(_) => {}
                None => inner.remove(&id).await?,
            }
            if known { Ok(()) } else { Err(SandboxError::Unknown(id)) }
        }))
        .await
    }

    /// Why none can be made or ended now.
    pub fn away(&self) -> Option<String> {
        self.0.backend.away()
    }

    /// What the backend knows of a sandbox, where it is the backend's.
    pub fn see(&self, row: &Row) -> Option<Seen> {
        row.spec.as_ref()?;
        let seen = self.0.backend.see(&row.id);
        let trouble = || lock(&self.0.troubles).get(&row.id).cloned();
        Some(match seen {
            Some(seen) if row.ending => Seen { state: State::Ending, ..seen },
            Some(seen) => seen,
            None => {
                let state = match trouble() {
                    _ if row.ending => State::Ending,
                    Some(reason) => State::Failed { code: None, reason },
                    None => State::Starting { reason: None },
                };
                Seen { state, place: String::new(), node: None }
            }
        })
    }
}

/// The task goes on where its caller is dropped; a panic in it is the caller's.
async fn to_the_end<T>(task: JoinHandle<Result<T, SandboxError>>) -> Result<T, SandboxError> {
    match task.await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(StoreError::Closed.into()),
        },
    }
}

impl Inner {
    /// Nobody else works on this id for as long as this is held.
    async fn busy(&self, id: &str) -> OwnedMutexGuard<()> {
        self.mutex(id).lock_owned().await
    }

    /// The same, where nobody does now.
    fn busy_if_free(&self, id: &str) -> Option<OwnedMutexGuard<()>> {
        self.mutex(id).try_lock_owned().ok()
    }

    fn mutex(&self, id: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut busy = lock(&self.busy);
        if let Some(held) = busy.get(id).and_then(Weak::upgrade) {
            return held;
        }
        busy.retain(|_, other| other.strong_count() > 0);
        let fresh = Arc::new(tokio::sync::Mutex::new(()));
        busy.insert(id.into(), Arc::downgrade(&fresh));
        fresh
    }

    async fn create(&self, id: &str, spec: Spec, term: Term) -> Result<Made, SandboxError> {
        let there = self.store.sandbox(id).await?;
        if there.is_some_and(|row| row.ending) {
            // Nobody else works on it, so an earlier end was cut short.
            self.end(id, term.clone()).await?;
        }
        let text = serde_json::to_string(&spec).unwrap_or_default();
        let token = self.backend.gives_tokens().then(new_token).transpose().map_err(SandboxError::Random)?;
        let hash = token.as_ref().map(|token| Hash::of(token).hex());
        let want = Want { id: id.into(), token: hash, spec: text.clone(), now_ms: wall_ms() };
        if !self.store.write(want).await? {
            let other = match self.store.sandbox(id).await?.and_then(|row| row.spec) {
                Some(there) if there == text => return Ok(Made::Attached),
                Some(_) => ", and it was asked for otherwise",
                None => "",
            };
            return Err(SandboxError::Conflict(format!("there is a sandbox {id} already{other}")));
        }
        let made = self.backend.create(New { id: id.into(), token, spec }).await;
        if let Err(error) = &made {
            self.undo(id, error, term).await?;
        }
        Ok(made.map(|()| Made::New)?)
    }

    /// What was refused leaves nothing. What others have under this name is theirs, and stays.
    async fn undo(&self, id: &str, error: &BackendError, term: Term) -> Result<(), SandboxError> {
        if !matches!(error, BackendError::Exists(_)) {
            // From here on also a crash ends it. Another one that leads since may have made it whole.
            if !self.store.write(Unwant { id: id.into(), term: term.clone() }).await? {
                return Err(SandboxError::Over { id: id.into() });
            }
            if let Err(error) = self.remove(id).await {
                let error = reason(&error);
                tracing::warn!(sandbox = id, error, "a sandbox that was not made whole is ended later");
                return Ok(());
            }
        }
        self.forget(id, term).await
    }

    /// With its records and its token; what the backend could not end is not forgotten.
    async fn end(&self, id: &str, term: Term) -> Result<(), SandboxError> {
        self.remove(id).await?;
        self.forget(id, term).await?;
        lock(&self.troubles).remove(id);
        self.registry.deleted(id);
        Ok(())
    }

    /// All that the backend has of it. Somebody else's was never ours.
    async fn remove(&self, id: &str) -> Result<(), BackendError> {
        match self.backend.delete(id, None).await {
            Ok(()) | Err(BackendError::Taken(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn forget(&self, id: &str, term: Term) -> Result<(), SandboxError> {
        let id = id.to_owned();
        if self.store.write(Forget { id: id.clone(), term }).await? { Ok(()) } else { Err(SandboxError::Over { id }) }
    }

    /// Make what is not there of one that is wanted. One that needs a token of ours would not know another one.
    async fn make_again(&self, row: &Row) -> Result<(), SandboxError> {
        let Some(text) = &row.spec else { return Ok(()) };
        // A later version may have written it; the template alone would be another sandbox.
        let spec: Spec =
            serde_json::from_str(text).map_err(|source| SandboxError::Spec { id: row.id.clone(), source })?;
        Ok(self.backend.create(New { id: row.id.clone(), token: None, spec }).await?)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
