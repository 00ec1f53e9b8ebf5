//! The other gateways on the same store: what only one of them can answer is passed on to it.
//!
//! Promises: a request is passed on once, with the caller's own token, so each gateway decides for itself who may ask; where it has
//! moved meanwhile the caller is told to ask again; nothing waits for a gateway whose lease is over; a call that comes a second after a newer
//! session of its sandbox has begun, wherever that is, is not answered by the older.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use peer::names::Names;
use peer::{Address, PeerError, Stream, tls};
use tokio::time::timeout;

use super::relay::relay;
use super::reply::Problem;
use super::{Api, Id};
use crate::advertise;
use crate::exit::reason;
use crate::registry::Live;
use crate::store::{Owner, Row, StoreError};

/// On a request that another gateway has passed on.
pub(super) const PASSED_ON: HeaderName = HeaderName::from_static("chaperone-passed-on");

/// For the store to say who has a session: whoever calls has others to ask.
const ROW: Duration = Duration::from_secs(2);
/// To a connection, TLS included.
const CONNECT: Duration = Duration::from_secs(5);

/// The way to them.
pub struct Others {
    names: Names,
    tls: Arc<tls::Tls>,
    name: Option<String>,
}

impl Others {
    /// Nobody is called yet.
    pub fn new(config: &advertise::Tls) -> Others {
        Others { names: Names::default(), tls: tls::Tls::new(config.config.clone()), name: config.name.clone() }
    }

    async fn connect(&self, to: &Address) -> Result<Box<dyn Stream>, PeerError> {
        let stream = peer::tcp(&self.names, &to.host, to.port).await?;
        if !to.tls {
            return Ok(Box::new(stream));
        }
        let name = self.name.as_deref().unwrap_or(&to.host);
        Ok(Box::new(self.tls.connect(name, stream).await?))
    }
}

/// Of what needs the sandbox's session: wherever that is.
pub(super) async fn at_owner(
    State(api): State<Arc<Api>>,
    Id(id): Id,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let (lease, here) = (&api.sessions.lease, api.sessions.registry.get(&id));
    if api.others.is_none() || here.as_ref().is_some_and(|live| lease.is_current(live.entered())) {
        return Ok(next.run(request).await);
    }
    let row = timeout(ROW, api.row(&id)).await.unwrap_or_else(|_| Err(StoreError::Silent.into()))?;
    // What this gateway has not heard yet stands in the row.
    if let Some(live) = here.filter(|live| live.fence < row.fence)
        && lease.other(row.owner.as_ref()).is_some()
    {
        live.give_way();
    }
    match api.elsewhere(&row) {
        Some(owner) => api.pass_on(request, owner).await,
        None => Ok(next.run(request).await),
    }
}

/// Of what a backend does: by the gateway that leads, where one task for each id does it.
pub(super) async fn at_leader(State(api): State<Arc<Api>>, request: Request, next: Next) -> Result<Response, Problem> {
    if api.made.is_none() || api.sessions.lease.leads() {
        return Ok(next.run(request).await);
    }
    let leader = api.sessions.lease.leader().ok_or_else(|| {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "no gateway makes sandboxes just now").retry_after(2)
    })?;
    api.pass_on(request, leader).await
}

impl Api {
    /// The sandbox's session at this gateway, where the row knows of no newer one.
    pub(super) fn here(&self, row: &Row) -> Option<Arc<Live>> {
        self.sessions.registry.get(&row.id).filter(|live| live.fence >= row.fence)
    }

    /// The other gateway that has the sandbox's session.
    pub(super) fn elsewhere(&self, row: &Row) -> Option<Owner> {
        self.sessions.lease.other(row.owner.as_ref()).filter(|_| self.here(row).is_none())
    }

    /// The other gateway that makes a sandbox without a session, where it is made.
    pub(super) fn leader_of(&self, row: &Row) -> Option<Owner> {
        let made = self.made.is_some() && row.spec.is_some() && row.owner.is_none();
        self.sessions.lease.leader().filter(|_| made)
    }

    /// To that gateway, and its answer back.
    pub(super) async fn pass_on(&self, request: Request, to: Owner) -> Result<Response, Problem> {
        let passed = self.try_pass_on(request, &to).await;
        let word = if passed.is_ok() { "answered" } else { "failed" };
        self.sessions.metrics.passed_on.get_or_create(&vec![("outcome", word.into())]).inc();
        passed
    }

    async fn try_pass_on(&self, mut request: Request, to: &Owner) -> Result<Response, Problem> {
        let again = |detail: String| Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).retry_after(1);
        let Some(others) = &self.others else { return Err(again("there are no other gateways".into())) };
        if self.sessions.lease.is_lost() {
            return Err(again("this gateway has no lease among the others just now".into()));
        }
        if request.headers().contains_key(&PASSED_ON) {
            return Err(again("what was asked for has just moved to another gateway".into()));
        }
        let unreachable = |why: String| {
            tracing::warn!(gateway = to.id, error = why, "another gateway cannot be reached");
            again("the gateway that can answer this cannot be reached now".into())
        };
        let address: Address = to.url.parse().map_err(|error| unreachable(reason(&error)))?;
        let connected = timeout(CONNECT, others.connect(&address)).await;
        let connected = connected.map_err(|_| unreachable("it does not answer in time".into()))?;
        let connection = connected.map_err(|error| unreachable(reason(&error)))?;

        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        *request.uri_mut() = format!("{}{path}", address.base).parse().map_err(|_| Problem::bad("the path is none"))?;
        let host = HeaderValue::try_from(&address.authority).unwrap_or(HeaderValue::from_static("gateway"));
        request.headers_mut().insert(header::HOST, host);
        request.headers_mut().insert(PASSED_ON, HeaderValue::from_static("1"));
        let (lease, id) = (self.sessions.lease.clone(), to.id.clone());
        let over = move || {
            let (mut lease, id) = (lease.clone(), id.clone());
            async move { lease.until_gone(&id).await }
        };
        relay(connection, request, over).await.map_err(|error| {
            let detail = format!("the gateway that has this did not answer: {}", reason(&error));
            Problem::new(StatusCode::BAD_GATEWAY, detail).retry_after(1)
        })
    }
}
