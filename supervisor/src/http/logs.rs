//! `GET /dev-tasks/{id}/logs`: bytes of one stream from a cursor on, at once or as they come.
//!
//! A reader takes what it wants when it wants: bytes are read from the disk as its connection takes them, so a slow
//! one costs a chunk of memory and slows nobody. Plain bytes, or server-sent events where the client accepts them,
//! with the cursor to go on from as the event's id.

use std::io;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use base64::Engine;
use futures_core::Stream as Bodies;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::extract::Id;
use super::query::Query;
use super::reply::Problem;
use crate::tasks::output::{Chunk, Progress, Stream};
use crate::tasks::{Entry, Handle};

/// Read at once; also what one slow reader keeps in memory, twice.
const CHUNK: usize = 256 * 1024;

pub(super) async fn logs(
    State(tasks): State<Handle>,
    Id(id): Id,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let mut query = Query::parse(query.as_deref())?;
    let name = query.text("stream").unwrap_or_else(|| "stdout".into());
    let asked = query.number("cursor")?;
    // An event source that reconnects repeats its first address and adds how far it came.
    let cursor = last_event_id(&headers)?.or(asked).unwrap_or(0);
    let limit = query.number("limit")?;
    let follow = query.flag("follow")?;
    query.finish()?;
    let entry = tasks.get(id).await?;
    let stream = pick(&entry, &name)?;
    let progress = *stream.progress().borrow();
    if cursor > progress.total {
        return Err(Problem::field("cursor", format!("is beyond the end, which is {}", progress.total)));
    }
    let events = headers.get(header::ACCEPT).is_some_and(|a| a.as_bytes().starts_with(b"text/event-stream"));
    // Where the first byte really is, said before the body begins.
    let first = read(&stream, cursor, 1).await?.start;
    let gap = stream.gap();
    let reader = Reader { stream, cursor, first: cursor, gap, left: limit.unwrap_or(u64::MAX), follow, events };
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(reader.run(sender));
    let mut response = Response::new(Body::from_stream(Received(receiver)));
    *response.status_mut() = StatusCode::OK;
    let media_type = if events { "text/event-stream" } else { "application/octet-stream" };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    for (name, value) in [("output-cursor", first), ("output-total", progress.total), ("output-cut", progress.cut)] {
        headers.insert(HeaderName::from_static(name), HeaderValue::from(value));
    }
    if let Some((from, to)) = gap
        && let Ok(value) = HeaderValue::from_str(&format!("{from}-{to}"))
    {
        headers.insert(HeaderName::from_static("output-gap"), value);
    }
    Ok(response)
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let Some(value) = headers.get("last-event-id") else { return Ok(None) };
    let id = value.to_str().ok().and_then(|v| v.parse().ok());
    id.map(Some).ok_or_else(|| Problem::field("Last-Event-ID", "is not an id of this stream"))
}

fn pick(entry: &Entry, name: &str) -> Result<Arc<Stream>, Problem> {
    match name {
        "stdout" => Ok(entry.stdout.clone()),
        "stderr" => Ok(entry.stderr.clone()),
        _ => Err(Problem::field("stream", "is stdout or stderr")),
    }
}

async fn read(stream: &Arc<Stream>, cursor: u64, most: usize) -> Result<Chunk, Problem> {
    let stream = stream.clone();
    match spawn_blocking(move || stream.read(cursor, most)).await {
        Ok(Ok(chunk)) => Ok(chunk),
        _ => Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the output cannot be read")),
    }
}

struct Reader {
    stream: Arc<Stream>,
    cursor: u64,
    /// Where it was asked to begin; where it really began is in the head.
    first: u64,
    /// What the head of the answer said is missing.
    gap: Option<(u64, u64)>,
    left: u64,
    follow: bool,
    events: bool,
}

impl Reader {
    async fn run(mut self, body: mpsc::Sender<Part>) {
        let mut progress = self.stream.progress();
        while self.left > 0 {
            let seen = *progress.borrow_and_update();
            let most = CHUNK.min(usize::try_from(self.left).unwrap_or(CHUNK));
            let Ok(chunk) = read(&self.stream, self.cursor, most).await else { return self.fail(&body).await };
            if chunk.bytes.is_empty() {
                if seen.ended || !self.follow {
                    break;
                }
                let more = |p: &Progress| p.total > seen.total || p.ended;
                tokio::select! {
                    // A reader that has gone must not be waited for until the task writes again.
                    () = body.closed() => return,
                    changed = progress.wait_for(more) => if changed.is_err() { return },
                }
                continue;
            }
            if chunk.start > self.cursor {
                if self.events {
                    if body.send(Ok(cut(self.cursor, chunk.start))).await.is_err() {
                        return;
                    }
                } else if !self.announced(&chunk) {
                    return self.fail(&body).await;
                }
            }
            self.left -= chunk.bytes.len() as u64;
            self.cursor = chunk.start + chunk.bytes.len() as u64;
            let bytes = if self.events { event(&chunk, self.cursor) } else { chunk.bytes.into() };
            if body.send(Ok(bytes)).await.is_err() {
                return;
            }
        }
        if self.events {
            let _ = body.send(Ok(format!("event: end\nid: {}\ndata:\n\n", self.cursor).into())).await;
        }
    }

    /// Plain bytes have no place to say that some are missing, so it was said in the head or is not done.
    fn announced(&self, chunk: &Chunk) -> bool {
        self.cursor == self.first || self.gap == Some((self.cursor, chunk.start))
    }

    /// The connection is broken off, so that nobody takes what came for all there is.
    async fn fail(&self, body: &mpsc::Sender<Part>) {
        let why = "output was cut while it was read; ask again from the next cursor";
        let _ = body.send(Err(io::Error::other(why))).await;
    }
}

/// Base64, since output is bytes and events are text; the id is where to go on.
fn event(chunk: &Chunk, next: u64) -> Bytes {
    let data = base64::engine::general_purpose::STANDARD.encode(&chunk.bytes);
    format!("event: output\nid: {next}\ndata: {data}\n\n").into()
}

/// What is missing between two events.
fn cut(from: u64, to: u64) -> Bytes {
    format!("event: cut\nid: {to}\ndata: {{\"from\":{from},\"to\":{to}}}\n\n").into()
}

/// A channel as a body.
struct Received(mpsc::Receiver<Part>);

/// A piece of a body, or its breaking off.
type Part = io::Result<Bytes>;

impl Bodies for Received {
    type Item = Part;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Part>> {
        self.0.poll_recv(context)
    }
}
