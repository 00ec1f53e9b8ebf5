//! One session, one task: from hello to its end.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use protocol::session::{
    COMMANDS, Command, FromGateway, FromSupervisor, Gap, Hello, Pace, Sum, Welcome, close, silence_ms,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;

use super::end::End;
use super::outbox::{Answer, Outbox};
use super::under_way::{IN_FLIGHT, Stored, UnderWay};
use super::upgrade::Who;
use super::wire::{Event, Wire};
use super::{Sessions, drain, hello, sequence};
use crate::awake::wall_ms;
use crate::lease;
use crate::registry::{Coming, Live, Order, Told};
use crate::store::{Begin, Begun, Cursors, NotBegun, Outcomes};
use crate::tokens::is_name;

mod ending;
mod records;

/// From the upgrade to the hello.
const HELLO: Duration = Duration::from_secs(5);
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
    async fn begin<S: AsyncRead + AsyncWrite + Unpin>(
        part: &'p Sessions,
        who: Who,
        wire: &mut Wire<S>,
    ) -> Result<Session<'p>, End> {
        let sandbox = &who.sandbox;
        let text = tokio::time::timeout(HELLO, first_text(wire)).await;
        let text = text.map_err(|_| End::close(close::TIMEOUT, "no hello within 5 s"))??;
        let mut received = Sum::default();
        received.add(text.as_bytes());
        let (hello, protocol) = hello::read(&text, sandbox)?;
        let now_ms = wall_ms();
        let begin = Begin {
            sandbox: sandbox.clone(),
            token: who.token,
            hello: protocol::session::encode(&hello),
            epoch: hello.log_epoch.clone(),
            applied: hello.applied,
            owner: part.lease.id(),
            now_ms,
        };
        let (owner, token) = (begin.owner.clone(), begin.token.clone());
        let lost = || End::close(close::STORE, lease::LOST);
        if part.lease.is_lost() {
            return Err(lost());
        }
        // The fence is in force before anybody is welcomed.
        let begun = part.store.write(begin).await?.map_err(|why| match why {
            NotBegun::Lease => lost(),
            NotBegun::Token => End::close(close::UNAUTHENTICATED, "the token counts no more"),
        })?;
        let streams = hello.capabilities.iter().any(|capability| capability == "stream");
        let live = Arc::new(Live::new(sandbox.clone(), begun.fence, now_ms, streams));
        let mut session = Session {
            part,
            orders: live.orders(),
            live,
            owner,
            outbox: Outbox::default(),
            epoch: hello.log_epoch.clone(),
            next: begun.next.clone(),
            under_way: UnderWay::default(),
            commanded: hello.applied,
            applied: hello.applied,
            told_of: 0,
            received,
            sent: Sum::default(),
            window: part.admission.window(),
            heard_ms: part.awake.now(),
        };
        session.mend(&hello).await?;
        if !part.registry.enter(&session.live) {
            return Err(End::fenced());
        }
        // Here it is closed with all others when the lease is lost; that may have been before.
        if part.lease.id() != session.owner {
            part.registry.leave(&session.live);
            return Err(lost());
        }
        // It may have been deleted before it was here to be told.
        if let Some(token) = token
            && part.store.sandbox_of_token(&token).await?.is_none()
        {
            part.registry.leave(&session.live);
            return Err(End::close(close::UNAUTHENTICATED, "the token counts no more"));
        }
        // A drain that began meanwhile has asked only those that it saw.
        if *part.draining.borrow() {
            session.live.order(drain::late(part));
        }
        tracing::info!(sandbox, fence = begun.fence, version = hello.version, "a session began");
        session.outbox.welcome = Some(FromGateway::Welcome(Box::new(session.welcome(protocol, begun))));
        Ok(session)
    }

    /// A gap for what only the store that is no more had.
    async fn mend(&mut self, hello: &Hello) -> Result<(), End> {
        for (class, from, to) in hello::lost_here(hello, &self.next) {
            tracing::warn!(sandbox = self.live.sandbox, class = class.name(), from, to, "this store has lost records");
            let gap = Gap { class, from, to, bytes: 0, reason: "store".into() };
            let (pieces, next) = sequence::of_gap(from, gap)?;
            self.append(class, pieces, next).await?;
        }
        Ok(())
    }

    fn welcome(&self, protocol: u32, begun: Begun) -> Welcome {
        let millis = |duration: Duration| Some(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
        Welcome {
            protocol,
            version: env!("CARGO_PKG_VERSION").into(),
            capabilities: vec!["stream".into()],
            session: format!("s-{}", begun.fence),
            fence: begun.fence,
            next: self.next.clone(),
            d: None,
            pace: Pace {
                beat_ms: millis(self.part.beat),
                phase_ms: millis(self.part.next_phase()),
                window_ms: millis(self.window),
            },
            in_flight: IN_FLIGHT as u64,
            now_ms: wall_ms(),
            keys: vec![self.part.signer.key()],
        }
    }

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

async fn first_text<S: AsyncRead + AsyncWrite + Unpin>(wire: &mut Wire<S>) -> Result<String, End> {
    loop {
        match wire.event(true).await? {
            Event::Text(text) => return Ok(text.to_string()),
            Event::Binary(_) => return Err(End::malformed("the first message is binary")),
            Event::Sign | Event::Sent => {}
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
