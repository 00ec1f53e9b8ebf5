//! One stream of a task's output, from a byte cursor to its end, whatever becomes of the gateway meanwhile.
//!
//! Promises: every byte once and in order; what is no longer kept is told as a cut; the end is told only when the task has
//! said that nothing more comes, never because a connection ended; where its sandbox was made again without it, that is said.

use axum::http::{HeaderValue, StatusCode, header};

use super::events::Events;
use super::patience::Patience;
use super::{Client, ClientError, request};

mod place;

pub(crate) use place::Place;

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Bytes as the task wrote them.
    Bytes(Vec<u8>),
    /// These are no longer kept.
    Cut {
        /// The first.
        from: u64,
        /// The first that follows.
        to: u64,
    },
    /// The sandbox no longer knows the task: what it wrote after this byte will not come.
    Lost(u64),
}

/// A follower of one stream.
pub struct Follow {
    client: Client,
    /// Of the task, in the gateway's API.
    path: String,
    stream: &'static str,
    place: Place,
    /// Also what is yet to be written.
    on: bool,
    patience: Patience,
    events: Option<Events>,
    /// The task was there.
    found: bool,
}

impl Follow {
    /// Of `stdout` or `stderr` of the task at `path`; only what there is already, unless it follows `on`.
    pub fn new(client: Client, path: String, stream: &'static str, on: bool, patience: Patience) -> Follow {
        Follow { client, path, stream, place: Place::default(), on, patience, events: None, found: false }
    }

    /// The next piece; `None` when nothing more will come.
    pub async fn next(&mut self) -> Result<Option<Piece>, ClientError> {
        while !self.place.ended {
            match self.step().await {
                Ok(piece) => {
                    self.patience.back();
                    if piece.is_some() {
                        return Ok(piece);
                    }
                }
                Err(error) if self.found && error.status() == Some(StatusCode::NOT_FOUND) => {
                    self.place.ended = true;
                    return Ok(Some(Piece::Lost(self.place.cursor)));
                }
                Err(error) => {
                    self.events = None;
                    self.patience.bear(error).await?;
                }
            }
        }
        Ok(None)
    }

    async fn step(&mut self) -> Result<Option<Piece>, ClientError> {
        let events = match &mut self.events {
            Some(events) => events,
            None => {
                let events = self.open().await?;
                self.found = true;
                self.events.insert(events)
            }
        };
        match events.next().await? {
            Some(event) => self.place.take(&event),
            // A body that ended without saying so was broken off by somebody on the way.
            None => Err(ClientError::broken("the output ended without its end")),
        }
    }

    async fn open(&mut self) -> Result<Events, ClientError> {
        let Follow { path, stream, place: Place { cursor, .. }, on, .. } = self;
        let mut request = request("GET", &format!("{path}/logs?stream={stream}&cursor={cursor}&follow={on}"));
        request.headers_mut().insert(header::ACCEPT, HeaderValue::from_static("text/event-stream"));
        Ok(Events::new(self.client.send(request).await?.into_body()))
    }
}
