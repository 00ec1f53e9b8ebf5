//! `GET /dev-tasks/{id}/attach`: a WebSocket that shows a task's output and types into it.
//!
//! - A client never holds its task back: output goes to the disk first and each client reads it from there.
//! - The end is told after the last byte. Bytes that are no longer kept are named.
//! - Leaving, by a word, by closing or by vanishing, leaves the task as it is.
//! - Nothing grows with a client: one chunk on its way to it, [`TYPED`] messages on their way from it. Whoever shows no
//!   sign of life for the configured time is cut.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{RawQuery, Request, State};
use axum::response::Response;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use protocol::attach::{Ask, Attached, Exited, Refused, Stream as Name, Told};
use protocol::object::Only;
use protocol::task::{State as TaskState, Terminal};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout};
use tokio_tungstenite::tungstenite::error::CapacityError;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::protocol::frame::{CloseFrame, coding::CloseCode};
use tokio_tungstenite::tungstenite::{Bytes, Error, Message};

mod outlet;

use outlet::{Outlet, Piece, Tap};

use super::api::Api;
use super::extract::Id;
use super::query::Query;
use super::reply::Problem;
use super::websocket::{Handshake, Socket};
use crate::metrics::Level;
use crate::tasks::{self, Entry};

/// The longest message of a client; a terminal's paste is cut into several by who sends it.
const MAX_MESSAGE: usize = 64 * 1024;
/// Messages of one client that wait for its task to read them. Then nothing more is read from it.
const TYPED: usize = 16;
/// Shown of what was written before, where the client names no place: more than one screen.
const TAIL: u64 = 64 * 1024;
/// For the other side's half of the closing handshake.
const LAST_WORDS: Duration = Duration::from_secs(2);

pub(super) async fn attach(
    State(api): State<Api>,
    Id(id): Id,
    RawQuery(query): RawQuery,
    mut request: Request,
) -> Result<Response, Problem> {
    let place = begin(&api, id, query).await?;
    let handshake = Handshake::new(&mut request)?;
    let config = WebSocketConfig::default()
        .read_buffer_size(4 * 1024)
        .write_buffer_size(0)
        .max_write_buffer_size(2 * MAX_MESSAGE)
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE));
    let counted = Counted::new(api.attached.clone());
    Ok(handshake.answer(config, move |socket| place.talk(socket, api.attach_silence, counted)))
}

/// One client's place at one task.
struct Place {
    entry: Arc<Entry>,
    cursors: [u64; 2],
    read_only: bool,
}

async fn begin(api: &Api, id: String, query: Option<String>) -> Result<Place, Problem> {
    let mut query = Query::parse(query.as_deref())?;
    let asked = [("cursor", query.number("cursor")?), ("stderr_cursor", query.number("stderr_cursor")?)];
    let tail = query.number("tail")?;
    let read_only = query.flag("read_only")?;
    query.finish()?;
    if tail.is_some() && asked.iter().any(|(_, cursor)| cursor.is_some()) {
        return Err(Problem::field("tail", "and a cursor exclude each other"));
    }
    let entry = api.tasks.get(id).await?;
    let totals = [&entry.stdout, &entry.stderr].map(|stream| stream.progress().borrow().total);
    let mut cursors = totals.map(|total| total.saturating_sub(tail.unwrap_or(TAIL)));
    for ((name, asked), (cursor, total)) in asked.into_iter().zip(cursors.iter_mut().zip(totals)) {
        if asked.is_some_and(|asked| asked > total) {
            return Err(Problem::field(name, format!("is beyond the end, which is {total}")));
        }
        *cursor = asked.unwrap_or(*cursor);
    }
    Ok(Place { entry, cursors, read_only })
}

/// A client in the metrics, for as long as this is there.
struct Counted(Level);

impl Counted {
    fn new(level: Level) -> Counted {
        level.inc();
        Counted(level)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// When a client was last heard of; `None` while nobody listens to it, because its task does not take what it typed.
type Life = watch::Sender<Option<Instant>>;

/// Why a client was let go, as its close frame says it; `None` where it has gone.
type Leave = Option<(CloseCode, String)>;

fn leave(code: CloseCode, why: impl Into<String>) -> Leave {
    Some((code, why.into()))
}

impl Place {
    async fn talk(self, socket: Socket, silence: Duration, _counted: Counted) {
        let (mut sink, mut stream) = socket.split();
        let life = Life::new(Some(Instant::now()));
        let (typed_sender, typed) = mpsc::channel(TYPED);
        let (told_sender, told) = mpsc::channel(TYPED);
        let why = tokio::select! {
            why = self.show(&mut sink, told, &life, silence) => why,
            why = self.listen(&mut stream, typed_sender, &life) => why,
            () = self.type_in(typed, told_sender) => None,
            () = silent(&life, silence) => leave(CloseCode::Policy, format!("no sign of life for {silence:?}")),
        };
        let Some((code, why)) = why else { return };
        let close = async {
            let reason = why.into();
            let _ = sink.send(Message::Close(Some(CloseFrame { code, reason }))).await;
            while let Some(Ok(_)) = stream.next().await {}
            // A connection that is dropped with bytes unread is reset, and the word is lost with it (RFC 9293, 3.10.4).
            let Ok(mut socket) = sink.reunite(stream) else { return };
            let _ = socket.get_mut().shutdown().await;
            let mut unread = vec![0; 4096];
            while socket.get_mut().read(&mut unread).await.is_ok_and(|count| count > 0) {}
        };
        // A client that does not answer has lost nothing but this word.
        let _ = timeout(LAST_WORDS, close).await;
    }

    /// Send what there is to see, and ask for a sign of life now and then.
    async fn show(
        &self,
        sink: &mut SplitSink<Socket, Message>,
        mut told: mpsc::Receiver<Told>,
        life: &Life,
        silence: Duration,
    ) -> Leave {
        let mut size = self.entry.size.subscribe();
        let [stdout, stderr] = self.cursors;
        let attached = Attached {
            cursor: stdout,
            stderr_cursor: stderr,
            terminal: *size.borrow_and_update(),
            read_only: self.read_only,
            state: self.entry.view.borrow().state,
        };
        let mut outlet = Outlet::new(
            Tap::new(Name::Stdout, &self.entry.stdout, stdout),
            Tap::new(Name::Stderr, &self.entry.stderr, stderr),
        );
        let mut pings = interval_at(Instant::now() + silence / 3, silence / 3);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut next = Some(word(&Told::Attached(attached)));
        loop {
            if let Some(message) = next
                && !send(sink, message, life).await
            {
                return None;
            }
            next = tokio::select! {
                biased;
                _ = pings.tick() => Some(Message::Ping(Bytes::new())),
                Some(told) = told.recv() => Some(word(&told)),
                Ok(()) = size.changed() => size.borrow_and_update().map(|size| word(&Told::Resized(size))),
                piece = outlet.next() => Some(match piece {
                    Ok(Piece::Bytes(bytes)) => Message::Binary(bytes.into()),
                    Ok(Piece::Switch(name)) => word(&Told::Stream(name)),
                    Ok(Piece::Cut(cut)) => word(&Told::Cut(cut)),
                    Ok(Piece::End) => break,
                    Err(error) => return unreadable(&error),
                }),
            };
        }
        let exited = word(&Told::Exited(self.exited()));
        send(sink, exited, life).await.then(|| (CloseCode::Normal, "the task has ended".into()))
    }

    /// The streams end after the state was told.
    fn exited(&self) -> Exited {
        let task = self.entry.view.borrow();
        Exited { state: task.state, exit_code: task.exit_code, signal: task.signal, reason: task.reason.clone() }
    }

    /// Hear what the client says, as far as there is room for it.
    async fn listen(&self, stream: &mut SplitStream<Socket>, typed: mpsc::Sender<Wish>, life: &Life) -> Leave {
        loop {
            let message = match stream.next().await {
                Some(Ok(message)) => message,
                Some(Err(error)) => return broken(error),
                None => return None,
            };
            life.send_replace(Some(Instant::now()));
            let wishes = match message {
                Message::Binary(bytes) => vec![Wish::Input(bytes.into())],
                Message::Text(text) => match serde_json::from_str::<Only<Ask>>(&text) {
                    Ok(Only(Ask { detach: true, .. })) => return leave(CloseCode::Normal, "detached"),
                    Ok(Only(ask)) => Wish::all(ask).collect(),
                    Err(error) => {
                        return leave(CloseCode::Policy, short(format!("a text message is no word: {error}")));
                    }
                },
                // Pings are answered by the library, closing too; then the stream ends.
                _ => continue,
            };
            for wish in wishes {
                let Err(mpsc::error::TrySendError::Full(wish)) = typed.try_send(wish) else { continue };
                // Not its silence but ours.
                life.send_replace(None);
                let _ = typed.send(wish).await;
                life.send_replace(Some(Instant::now()));
            }
        }
    }

    /// Hand the client's wishes to the task, one after the other.
    async fn type_in(&self, mut wishes: mpsc::Receiver<Wish>, told: mpsc::Sender<Told>) {
        while let Some(wish) = wishes.recv().await {
            let what = wish.name();
            let Err(refused) = self.grant(wish).await else { continue };
            // Who sends so much that is refused and does not read the answers misses some of them.
            let _ = told.try_send(Told::Refused(Refused { what: what.into(), why: refused.to_string() }));
        }
        // The client is being let go; why is not known here.
        std::future::pending().await
    }

    async fn grant(&self, wish: Wish) -> Result<(), tasks::Refused> {
        if self.read_only {
            return Err(tasks::Refused::State("this client only reads"));
        }
        let wish = match wish {
            Wish::Resize(size) => return self.entry.resize(size),
            wish => wish,
        };
        // What is typed ahead of the start is for the program that starts.
        let _ = self.entry.view.clone().wait_for(|task| task.state != TaskState::Queued).await;
        match wish {
            Wish::Input(bytes) => self.entry.input(bytes).await,
            _ => self.entry.close_input().await,
        }
    }
}

/// One thing that a client wants done.
enum Wish {
    Input(Vec<u8>),
    Eof,
    Resize(Terminal),
}

impl Wish {
    fn name(&self) -> &'static str {
        match self {
            Wish::Input(_) => "input",
            Wish::Eof => "eof",
            Wish::Resize(_) => "resize",
        }
    }

    fn all(ask: Ask) -> impl Iterator<Item = Wish> {
        ask.resize.map(Wish::Resize).into_iter().chain(ask.eof.then_some(Wish::Eof))
    }
}

/// Until the client was not heard of for too long.
async fn silent(life: &Life, silence: Duration) {
    let mut heard = life.subscribe();
    loop {
        let last = *heard.borrow_and_update();
        tokio::select! {
            // Its sender is this client's own.
            _ = heard.changed() => {}
            () = sleep_until(last.unwrap_or_else(Instant::now) + silence), if last.is_some() => return,
        }
    }
}

/// Whether it was taken. That it had to wait and went on is a sign of life as well: a ping is behind all that is
/// still on its way to a slow client.
async fn send(sink: &mut SplitSink<Socket, Message>, message: Message, life: &Life) -> bool {
    let mut sending = std::pin::pin!(sink.send(message));
    let sent = tokio::select! {
        biased;
        sent = &mut sending => sent,
        () = std::future::ready(()) => {
            let sent = sending.await;
            life.send_modify(|last| *last = last.map(|_| Instant::now()));
            sent
        }
    };
    sent.is_ok()
}

fn word(told: &Told) -> Message {
    // Numbers, words and options of them: always JSON.
    Message::text(serde_json::to_string(told).unwrap_or_default())
}

/// How a client that breaks the protocol is told so.
fn broken(error: Error) -> Leave {
    match error {
        Error::Capacity(CapacityError::MessageTooLong { .. }) => {
            leave(CloseCode::Size, format!("a message has at most {MAX_MESSAGE} bytes"))
        }
        Error::Utf8(_) => leave(CloseCode::Invalid, "a text message is not UTF-8"),
        Error::Protocol(error) => leave(CloseCode::Protocol, short(error.to_string())),
        _ => None,
    }
}

fn unreadable(error: &io::Error) -> Leave {
    tracing::error!(%error, "output of a task cannot be read");
    leave(CloseCode::Error, "the output cannot be read")
}

/// A close frame has 125 bytes, two of them for the code (RFC 6455, 5.5).
fn short(why: String) -> String {
    let end = (0..=why.len().min(120)).rev().find(|&end| why.is_char_boundary(end)).unwrap_or(0);
    why[..end].to_string()
}
