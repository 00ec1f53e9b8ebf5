//! Events of a sandbox: its records and gaps, in pages, or followed as server-sent events.
//!
//! No reader misses one without being told: whose cursor is older than what is kept gets 410, which says where to go on.
//! Without a cursor, or with 0, it begins with the oldest that is kept.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::Response;
use protocol::session::Class;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::mpsc;

use super::query::Query;
use super::reply::{self, Problem};
use super::sandboxes::time;
use super::{Api, Id};
use crate::store::{self, Page, told};

/// Events on a page: default and most.
const LIMIT: (i64, i64) = (100, 1000);
/// A follower hears something at least so often, so that whatever lies between does not cut an idle connection.
const IDLE: Duration = Duration::from_secs(15);

/// One event as it is told: a record as the supervisor wrote it, or a gap.
#[derive(Serialize)]
struct Event {
    /// Go on here.
    cursor: String,
    class: String,
    epoch: String,
    stored_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    record: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gap: Option<Box<RawValue>>,
}

impl From<store::Event> for Event {
    fn from(event: store::Event) -> Event {
        let body = RawValue::from_string(event.body).ok();
        let (record, gap) = if event.gap { (None, body) } else { (body, None) };
        Event {
            cursor: event.position.to_string(),
            class: event.class,
            epoch: event.epoch,
            stored_at: time(event.stored_ms),
            seq: (!event.gap).then_some(event.seq),
            record,
            gap,
        }
    }
}

/// `GET /v1/sandboxes/{id}/events`.
pub(super) async fn events(
    State(api): State<Arc<Api>>,
    Id(id): Id,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Problem> {
    let (asked, follow) = asked(uri.query())?;
    api.row(&id).await?;
    if follow {
        let page = Page { after: last_event_id(&headers)?.unwrap_or(asked.after), limit: LIMIT.1, ..asked };
        check_kept(&api, &id, page).await?;
        return Ok(followed(api, id, page));
    }
    page(&api, &id, asked).await
}

/// The query: which page, and whether what comes behind it is followed.
pub(crate) fn asked(query: Option<&str>) -> Result<(Page, bool), Problem> {
    let mut query = Query::parse(query)?;
    let class = query.text("class").map(|word| class_of(&word)).transpose()?;
    let after = query.number("cursor", 0, i64::MAX)?.unwrap_or(0);
    let limit = query.number("limit", 1, LIMIT.1)?.unwrap_or(LIMIT.0);
    let follow = query.flag("follow")?;
    query.finish()?;
    Ok((Page { class, after, limit }, follow))
}

fn class_of(word: &str) -> Result<&'static str, Problem> {
    let of_supervisors = Class::from_name(word).map(|class| class.name());
    let known = of_supervisors.or((word == told::CLASS).then_some(told::CLASS));
    known.ok_or_else(|| Problem::field("class", "is lifecycle, results, metrics, logs or backend"))
}

/// To be asked after a page was read: what was removed before is missing in it.
async fn check_kept(api: &Api, id: &str, page: Page) -> Result<(), Problem> {
    let removed = if page.after > 0 { api.sessions.store.removed(id).await? } else { 0 };
    if page.after < removed { Err(Problem::removed(removed)) } else { Ok(()) }
}

/// Where a reader stands to whom the page shows nothing. To be asked before it is read: of another class there may be events that
/// it passes over.
async fn passed(api: &Api, id: &str, page: Page) -> Result<i64, Problem> {
    let newest = if page.class.is_some() { api.sessions.store.newest(id).await? } else { 0 };
    Ok(page.after.max(newest))
}

async fn page(api: &Api, id: &str, page: Page) -> Result<Response, Problem> {
    #[derive(Serialize)]
    struct Body {
        events: Vec<Event>,
        /// Behind the last of them: there may be more, or there will be.
        cursor: String,
    }
    let passed = passed(api, id, page).await?;
    let events = api.sessions.store.events(id, page).await?;
    check_kept(api, id, page).await?;
    let cursor = events.last().map_or(passed, |event| event.position).to_string();
    Ok(reply::json(StatusCode::OK, &Body { events: events.into_iter().map(Event::from).collect(), cursor }))
}

/// Where an `EventSource` that lost its connection goes on.
pub(crate) fn last_event_id(headers: &HeaderMap) -> Result<Option<i64>, Problem> {
    let Some(value) = headers.get("last-event-id") else { return Ok(None) };
    let id = value.to_str().ok().and_then(|value| value.parse().ok()).filter(|id| *id >= 0);
    id.map(Some).ok_or_else(|| Problem::field("Last-Event-ID", "is not an id of this stream"))
}

fn followed(api: Arc<Api>, id: String, page: Page) -> Response {
    // One piece waits at a time, so the reader sets the pace.
    let (sender, mut receiver) = mpsc::channel(1);
    tokio::spawn(follow(api, id, page, sender));
    let pieces = futures_util::stream::poll_fn(move |context| receiver.poll_recv(context));
    let mut response = Response::new(Body::from_stream(pieces));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

async fn follow(api: Arc<Api>, id: String, mut page: Page, body: mpsc::Sender<std::io::Result<Bytes>>) {
    // Before the first look, so that nothing falls between.
    let mut following = api.sessions.store.followers().follow(&id);
    let mut draining = api.sessions.draining.clone();
    loop {
        let passed = passed(&api, &id, page).await;
        let events = api.sessions.store.events(&id, page).await.map_err(Problem::from);
        let (Ok(passed), Ok(events), Ok(())) = (passed, events, check_kept(&api, &id, page).await) else {
            // Broken off, so that the reader comes again with the id of the last event, and is told where it is too old.
            let _ = body.send(Err(std::io::Error::other("the events behind cannot be read now"))).await;
            return;
        };
        let mut text = String::new();
        for event in events {
            page.after = event.position;
            let name = if event.gap { "gap" } else { "record" };
            let data = serde_json::to_string(&Event::from(event)).unwrap_or_default();
            text += &format!("id: {}\nevent: {name}\ndata: {data}\n\n", page.after);
        }
        if text.is_empty() {
            page.after = passed;
            tokio::select! {
                () = following.news() => continue,
                () = body.closed() => return,
                // The reader comes again, with the id of the last event, to whoever is there then.
                _ = draining.wait_for(|draining| *draining) => return,
                // Without data this is no event, and moves the id with which a reader comes again.
                () = tokio::time::sleep(IDLE) => text = format!("id: {}\n\n", page.after),
            }
        }
        if body.send(Ok(text.into())).await.is_err() {
            return;
        }
    }
}
