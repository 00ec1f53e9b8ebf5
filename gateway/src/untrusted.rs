//! Parsers of bytes that somebody else writes, each as a function of those bytes: those that `fuzz/` tries with any.
//!
//! Each answers with what it made of them, so that it can be held to its promises.

use std::path::Path;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, Uri};
use jsonwebtoken::decode_header;
use k8s_openapi::api::authentication::v1::TokenReviewStatus;
use k8s_openapi::api::core::v1::Pod;
use peer::Address;
use protocol::session::FromSupervisor;
use protocol::task::Task;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::api::sandboxes::Wanted;
use crate::api::{commands, events, forward, made, relay};
use crate::backend::kubernetes::Limits;
use crate::backend::kubernetes::stage::stage;
use crate::backend::kubernetes::template::Template;
use crate::backend::local::process;
use crate::backend::{Spec, State};
use crate::client::attach::{Attachment, Heard};
use crate::client::events::Events;
use crate::client::follow::{self, Place};
use crate::client::{ClientError, Context, Refusal};
use crate::exit::reason;
use crate::identity::claims::Bound;
use crate::identity::keys::Known;
use crate::identity::review;
use crate::sessions::wire::{Event, Wire};
use crate::sessions::{hello, sequence};
use crate::store::{Cursors, Page, Piece};
use crate::tokens;

/// What a session of `agent` begins with.
pub fn hello(text: &str, agent: &str) -> bool {
    hello::read(text, agent).is_ok()
}

/// One frame of records on its way to the store that expects `next`: what of it is stored. `None` where it ends the session.
pub fn records(text: &str, next: &mut Cursors) -> Option<Vec<Piece>> {
    let (class, taken) = match FromSupervisor::decode(text).ok()? {
        FromSupervisor::Data(data) => {
            (data.class, sequence::of_data(next.get(&data.class).copied().unwrap_or(1), data))
        }
        FromSupervisor::Gap(gap) => (gap.class, sequence::of_gap(next.get(&gap.class).copied().unwrap_or(1), gap)),
        _ => return Some(Vec::new()),
    };
    let (pieces, expected) = taken.ok()?;
    next.insert(class, expected);
    Some(pieces)
}

/// What comes over the WebSocket of a session: the lengths of its messages, until it ends.
pub async fn messages(stream: impl AsyncRead + AsyncWrite + Unpin) -> Vec<usize> {
    let mut wire = Wire::new(stream).await;
    let mut lengths = Vec::new();
    loop {
        match wire.event(true).await {
            Ok(Event::Text(text)) => lengths.push(text.len()),
            Ok(Event::Binary(bytes)) => lengths.push(bytes.len()),
            Ok(Event::Sign | Event::Sent) => {}
            Err(_) => return lengths,
        }
    }
}

/// A file of tokens; how many names it has.
pub fn tokens(text: &str) -> Option<usize> {
    tokens::parse(Path::new("tokens"), text).ok().map(|names| names.len())
}

/// The operator's Pod template; whether sandboxes are made of it.
pub fn template(text: &str) -> bool {
    Template::parse(text).is_ok()
}

/// The body of a request for a sandbox: its id, and what is asked for.
pub fn sandbox(body: &[u8]) -> Option<(String, Spec)> {
    made::asked(body).ok()
}

/// The body of a command to a sandbox: what is to be done, and the text of what belongs to it.
pub fn command(body: &[u8]) -> Option<(String, String)> {
    commands::given(body).ok()
}

/// The query of a request for a sandbox: how long is waited for it.
pub fn wait(query: &str) -> Option<Duration> {
    made::wait(Some(query)).ok()?
}

/// The query of a request for events.
pub fn page(query: &str) -> Option<Page> {
    events::asked(Some(query)).ok().map(|(page, _)| page)
}

/// The query of a request for sandboxes; how many are told at most.
pub fn list(query: &str) -> Option<usize> {
    Wanted::read(Some(query)).ok().map(|wanted| wanted.limit)
}

/// Where a reader of events goes on, by its headers.
pub fn last_event(headers: &HeaderMap) -> Option<i64> {
    events::last_event_id(headers).ok()?
}

/// What a request to the sandbox of this id asks it for.
pub fn inner(uri: &Uri, id: &str) -> Option<Uri> {
    forward::inner(uri, id).ok()
}

/// What of a request's headers a sandbox sees.
pub fn passed_on(mut headers: HeaderMap) -> HeaderMap {
    forward::hide(&mut headers);
    relay::strip(&mut headers);
    headers
}

/// A Pod that is somebody's, by a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub pod: String,
    /// Its uid.
    pub uid: String,
}

impl From<Bound> for Owner {
    fn from(Bound { namespace, pod, uid }: Bound) -> Owner {
        Owner { namespace, pod, uid }
    }
}

/// The cluster's keys.
pub struct Keys(Known);

impl Keys {
    /// By its discovery document and its set of keys.
    pub fn read(discovery: &str, keys: &str) -> Option<Keys> {
        Known::read(discovery, keys).ok().map(Keys)
    }

    /// Whose a token is that is shown to this audience now.
    pub fn owner(&self, token: &str, audience: &str) -> Option<Owner> {
        self.0.bound(&decode_header(token).ok()?, token, audience).ok()?.map(Owner::from)
    }
}

/// What the API server says of a token that was shown to this audience; whose it is.
pub fn reviewed(status: &str, audience: &str) -> Option<Owner> {
    let status: TokenReviewStatus = serde_json::from_str(status).ok()?;
    review::read(status, audience).ok()?.map(Owner::from)
}

/// A Pod, as the API server tells of it; what its sandbox is called at this time, whose agent's container has this name.
pub fn pod(text: &str, agent: &str, now_ms: i64) -> Option<State> {
    let limits = Limits { ready: Duration::from_secs(300), unschedulable: Duration::from_secs(120) };
    let pod: Pod = serde_json::from_str(text).ok()?;
    Some(stage(&pod, agent).state(now_ms, limits))
}

/// The end of a log of a supervisor that has ended; why it did.
pub fn last_words(log: &str) -> String {
    process::told(log)
}

/// The events of a task's output, in these pieces: what its reader is shown, and why no more of it, where the task has not said so.
pub async fn output(pieces: Vec<Vec<u8>>) -> (Vec<follow::Piece>, Option<String>) {
    let pieces = pieces.into_iter().map(Ok::<_, std::io::Error>);
    let mut events = Events::new(Body::from_stream(futures_util::stream::iter(pieces)));
    let (mut place, mut shown) = (Place::default(), Vec::new());
    while !place.ended {
        let piece = match events.next().await {
            Ok(Some(event)) => place.take(&event),
            Ok(None) => Err(ClientError::broken("it ended")),
            Err(error) => Err(error),
        };
        match piece {
            Ok(piece) => shown.extend(piece),
            Err(error) => return (shown, Some(reason(&error))),
        }
    }
    (shown, None)
}

/// What comes over the WebSocket of one who is attached: each with the places behind it, and why no more of it.
pub async fn attached(stream: impl AsyncRead + AsyncWrite + Unpin) -> (Vec<(Heard, [u64; 2])>, String) {
    let mut heard = Vec::new();
    let mut attachment = match Attachment::over(stream, None).await {
        Ok(attachment) => attachment,
        Err(error) => return (heard, reason(&error)),
    };
    loop {
        match attachment.next().await {
            Ok(what) => heard.push((what, attachment.cursors)),
            Err(error) => return (heard, reason(&error)),
        }
    }
}

/// An answer to a client that asked `gateway` for a task; what a person is told where it is none.
pub fn answered(gateway: &Address, body: &[u8]) -> Result<Task, String> {
    serde_json::from_slice(body).map_err(|error| reason(&ClientError::strange(gateway, &error)))
}

/// A refusal; what a person is told of it.
pub fn refused(gateway: &Address, status: u16, body: &[u8]) -> Option<String> {
    let context = Context { address: gateway.clone(), token_file: "/token".into(), ca_file: None };
    Some(Refusal::read(StatusCode::from_u16(status).ok()?, body, &context).detail)
}
