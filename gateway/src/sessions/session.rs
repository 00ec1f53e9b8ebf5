//! One session, one task: from hello to its end.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use protocol::session::{COMMANDS, Command, FromSupervisor, Pace, Sum, close, silence_ms};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;

use super::end::End;
use super::outbox::{Answer, Outbox};
use super::under_way::{Stored, UnderWay};
use super::upgrade::Who;
use super::wire::{Event, Wire};
use super::{Sessions, sequence};
use crate::awake::wall_ms;
use crate::registry::{Coming, Live, Order, Told};
use crate::store::{Cursors, Outcomes};
use crate::tokens::is_name;

mod beginning;
mod ending;
mod records;

/// A peer that has not taken what we sent for so long is cut.
const SLOW: Duration = Duration::from_secs(10);
/// The longest state, bytes: it is kept in memory.
const MAX_STATE: usize = 16 * 1024;

/// Speak with whoever has the token of `sandbox`, until the session is over.
pub(super) async fn run<S: AsyncRead + AsyncWrite + Unpin>(part: Arc<Sessions>, who: Who, coming: Coming, stream: S) {
    let sandbox = who.sandbox.clone();
    let mut wire = Wire::new(stream).await;
    // What is needed for a moment is in a box for that moment, here and below: else the room for it, several KiB, would be held by
    // each of thousands of sessions for as long as it lasts.
    let begun = Box::pin(Session::begin(&part, who, &mut wire)).await;
    drop(coming);
    let end = match begun {
        Ok(session) => Box::pin(session.run(&mut wire)).await,
        Err(end) => end,
    };
    part.metrics.session_ends.get_or_create(&vec![("end", end.label())]).inc();
    if end.is_trouble() {
        tracing::warn!(sandbox, end = end.label(), "a session ended: {}", end.reason());
    } else {
        tracing::info!(sandbox, end = end.label(), "a session ended: {}", end.reason());
    }
    Box::pin(wire.close(&end)).await;
}

struct Session<'p> {
    part: &'p Sessions,
    live: Arc<Live>,
    /// The name that the gateway had when it began.
    owner: Option<String>,
    orders: watch::Receiver<Order>,
    outbox: Outbox,
    epoch: String,
    /// What is expected next of each class, stored or on its way there.
    next: Cursors,
    under_way: UnderWay,
    /// The newest command that was sent.
    commanded: i64,
    /// The newest command that was applied.
    applied: i64,
    /// The newest command of which this session was told what became.
    told_of: i64,
    /// Of all messages of this session, each way.
    received: Sum,
    sent: Sum,
    window: Duration,
    /// By the awake clock.
    heard_ms: i64,
}

impl<'p> Session<'p> {
    async fn run<S: AsyncRead + AsyncWrite + Unpin>(mut self, wire: &mut Wire<S>) -> End {
        let end = match self.speak(wire).await {
            Ok(never) => match never {},
            Err(end) => end,
        };
        self.over(&end).await;
        end
    }

    async fn speak<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        wire: &mut Wire<S>,
    ) -> Result<std::convert::Infallible, End> {
        loop {
            self.fill(wire).await?;
            if wire.is_stuck(SLOW).await? {
                return Err(End::close(close::SLOW, "the peer does not read"));
            }
            // Not reading is what slows a peer down that sends more than it was allowed.
            let receive = !self.under_way.is_full();
            let deadline = self.deadline(wire, receive);
            // In this order: what came before a stall is heard before anybody is called late.
            tokio::select! {
                biased;
                order = next_order(&mut self.orders) => self.obey(order)?,
                stored = self.under_way.stored() => self.stored(stored?),
                event = wire.event(receive) => self.take(event?).await?,
                () = self.live.woken() => {}
                () = tokio::time::sleep_until(deadline) => self.check_silence()?,
            }
        }
    }

    /// Put on the wire what has a place there.
    async fn fill<S: AsyncRead + AsyncWrite + Unpin>(&mut self, wire: &mut Wire<S>) -> Result<(), End> {
        let room = COMMANDS as i64 - (self.commanded - self.applied);
        if self.outbox.commands.is_empty() && room > 0 && self.live.take_commands() {
            Box::pin(self.load_commands(room)).await?;
        }
        while wire.has_room() {
            let message = if let Some(text) = self.outbox.next(self.sent) {
                Message::text(text)
            } else if let Some(bytes) = self.live.streams.as_ref().and_then(|streams| streams.next_message()) {
                Message::binary(bytes)
            } else {
                break;
            };
            self.sent.add(&message.clone().into_data());
            wire.put(message)?;
        }
        Ok(())
    }

    /// At most `room`: more may not be under way.
    async fn load_commands(&mut self, room: i64) -> Result<(), End> {
        let (part, sandbox, after) = (self.part, self.live.sandbox.clone(), self.commanded);
        let waiting = self.unless_closed(part.store.waiting_commands(&sandbox, after, room)).await??;
        if waiting.len() as i64 == room {
            // There may be more.
            self.live.tell_of_commands();
        }
        for command in waiting {
            let after = Some(std::mem::replace(&mut self.commanded, command.n));
            let body = serde_json::from_str(&command.body).unwrap_or_default();
            self.outbox.commands.push_back(Command { n: command.n, after, verb: command.verb, body });
        }
        Ok(())
    }

    fn deadline<S: AsyncRead + AsyncWrite + Unpin>(&self, wire: &Wire<S>, receive: bool) -> Instant {
        let silence = if receive { self.silence_left() } else { SLOW };
        let slow = wire.waiting_since().map_or(SLOW, |since| SLOW.saturating_sub(since.elapsed()));
        Instant::now() + silence.min(slow)
    }

    fn silence_left(&self) -> Duration {
        let beat_ms = u64::try_from(self.part.beat.as_millis()).unwrap_or(u64::MAX / 4);
        let silent_ms = u64::try_from(self.part.awake.now() - self.heard_ms).unwrap_or(0);
        Duration::from_millis(silence_ms(beat_ms).saturating_sub(silent_ms))
    }

    fn check_silence(&self) -> Result<(), End> {
        if !self.under_way.is_full() && self.silence_left().is_zero() {
            return Err(End::close(close::TIMEOUT, "nothing was heard for 1.5 T + 5 s"));
        }
        Ok(())
    }

    fn obey(&mut self, order: Order) -> Result<(), End> {
        match order {
            Order::Run => {}
            Order::Goaway { reason, reconnect_in_ms } => self.outbox.goaway = Some((reason, reconnect_in_ms)),
            Order::Close(code, reason) => return Err(End::close(code, reason)),
        }
        Ok(())
    }

    fn stored(&mut self, stored: Stored) {
        // Where we did not read, silence was ours.
        self.heard_ms = self.part.awake.now();
        match stored {
            Stored::Records { class, last } => {
                self.outbox.acks.insert(class, last);
                self.part.store.followers().wake(&self.live.sandbox);
            }
            Stored::Outcomes { n } => self.outbox.applied = Some(n),
        }
    }

    async fn take(&mut self, event: Event) -> Result<(), End> {
        if matches!(event, Event::Sent) {
            return Ok(());
        }
        self.heard_ms = self.part.awake.now();
        self.live.heard_ms.store(wall_ms(), Ordering::Relaxed);
        match event {
            Event::Text(text) => {
                let before = self.received;
                self.received.add(text.as_bytes());
                let frame = FromSupervisor::decode(&text).map_err(|error| End::malformed(error.to_string()))?;
                self.take_frame(frame, before).await
            }
            Event::Binary(message) => {
                self.received.add(&message);
                let Some(streams) = &self.live.streams else {
                    return Err(End::malformed("a binary message, and the hello did not say `stream`"));
                };
                streams.receive(&message).map_err(|error| End::malformed(error.to_string()))
            }
            Event::Sign | Event::Sent => Ok(()),
        }
    }

    /// Behind the messages that were received `before`.
    async fn take_frame(&mut self, frame: FromSupervisor, before: Sum) -> Result<(), End> {
        match frame {
            FromSupervisor::Hello(_) => Err(End::malformed("a second hello")),
            FromSupervisor::Beat { n, d } => {
                self.outbox.beat = Some(Answer { n, state: !self.live.has_state(&d), received: before });
                self.tell_of_window();
                Ok(())
            }
            FromSupervisor::State(state) => {
                if !is_name(&state.d) {
                    return Err(End::malformed("a digest has letters and digits"));
                }
                let told = Told { digest: state.d, json: state.state.to_string() };
                if told.json.len() + told.digest.len() > MAX_STATE {
                    return Err(End::close(close::TOO_LARGE, format!("a state is longer than {MAX_STATE} bytes")));
                }
                self.live.set_state(told);
                Ok(())
            }
            FromSupervisor::Data(data) => {
                let class = data.class;
                let (pieces, next) = sequence::of_data(self.expected(class), data)?;
                Box::pin(self.append(class, pieces, next)).await
            }
            FromSupervisor::Gap(gap) => {
                let class = gap.class;
                let (pieces, next) = sequence::of_gap(self.expected(class), gap)?;
                Box::pin(self.append(class, pieces, next)).await
            }
            FromSupervisor::Applied { n, .. } if n > self.commanded => {
                Err(End::malformed(format!("command {n} was never sent")))
            }
            FromSupervisor::Applied { after: Some(after), .. } if after > self.told_of => {
                Err(End::close(close::SEQUENCE, format!("what became of commands up to {after} never came")))
            }
            FromSupervisor::Applied { n, outcomes, .. } => {
                let (sandbox, fence) = (self.live.sandbox.clone(), self.live.fence);
                let part = self.part;
                let receipt = self.unless_closed(part.store.submit(Outcomes { sandbox, fence, n, outcomes })).await??;
                self.applied = self.applied.max(n);
                self.told_of = self.told_of.max(n);
                self.under_way.outcomes(n, receipt);
                Ok(())
            }
            FromSupervisor::Bye { last, .. } => Err(End::Bye { last }),
            FromSupervisor::Unknown => Ok(()),
        }
    }

    /// The fleet has grown or shrunk so much that the supervisor should know.
    fn tell_of_window(&mut self) {
        let window = self.part.admission.window();
        if window > self.window * 5 / 4 || window < self.window * 3 / 4 {
            self.window = window;
            let window_ms = u64::try_from(window.as_millis()).ok();
            self.outbox.pace = Some(Pace { window_ms, ..Pace::default() });
        }
    }

    /// Whoever waits for the store can still be told to end.
    async fn unless_closed<T>(&mut self, work: impl Future<Output = T>) -> Result<T, End> {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return Ok(done),
                order = next_order(&mut self.orders) => self.obey(order)?,
            }
        }
    }
}

/// The next order; waits for ever where nobody can give one.
async fn next_order(orders: &mut watch::Receiver<Order>) -> Order {
    match orders.changed().await {
        Ok(()) => orders.borrow_and_update().clone(),
        Err(_) => std::future::pending().await,
    }
}
