//! `GET /dev-tasks/{id}/logs`: bytes of one stream from a cursor on, at once or as they come.
//!
//! A reader takes what it wants when it wants: bytes are read from the disk as its connection takes them, so a slow
//! one costs a chunk of memory and slows nobody. Plain bytes, or server-sent events where the client accepts them,
//! with the cursor to go on from as the event's id.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use base64::Engine;
use futures_core::Stream as Bodies;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::query::Query;
use super::reply::Problem;
use crate::tasks::output::{Chunk, Progress, Stream};
use crate::tasks::{Entry, Handle};

/// Read at once; also what one slow reader keeps in memory, twice.
const CHUNK: usize = 256 * 1024;

pub(super) async fn logs(
    State(tasks): State<Handle>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let mut query = Query::parse(query.as_deref())?;
    let name = query.text("stream").unwrap_or_else(|| "stdout".into());
    let resume = headers.get("last-event-id").and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
    let cursor = query.number("cursor")?.or(resume).unwrap_or(0);
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
    let reader = Reader { stream, cursor: first, left: limit.unwrap_or(u64::MAX), follow, events };
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
    Ok(response)
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
    left: u64,
    follow: bool,
    events: bool,
}

impl Reader {
    async fn run(mut self, body: mpsc::Sender<Bytes>) {
        let mut progress = self.stream.progress();
        while self.left > 0 {
            let seen = *progress.borrow_and_update();
            let most = CHUNK.min(usize::try_from(self.left).unwrap_or(CHUNK));
            let Ok(chunk) = read(&self.stream, self.cursor, most).await else { return };
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
            self.left -= chunk.bytes.len() as u64;
            self.cursor = chunk.start + chunk.bytes.len() as u64;
            let bytes = if self.events { event(&chunk, self.cursor) } else { chunk.bytes };
            if body.send(bytes.into()).await.is_err() {
                return;
            }
        }
        if self.events {
            let _ = body.send(format!("event: end\nid: {}\ndata:\n\n", self.cursor).into()).await;
        }
    }
}

/// Base64, since output is bytes and events are text; the id is where to go on.
fn event(chunk: &Chunk, next: u64) -> Vec<u8> {
    let data = base64::engine::general_purpose::STANDARD.encode(&chunk.bytes);
    format!("event: output\nid: {next}\ndata: {data}\n\n").into_bytes()
}

/// A channel as a body.
struct Received(mpsc::Receiver<Bytes>);

impl Bodies for Received {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.0.poll_recv(context).map(|bytes| bytes.map(Ok))
    }
}
