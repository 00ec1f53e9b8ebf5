//! One session, from hello to its end.
//!
//! Promises: hello within the connection's first moment, and no beat before the welcome; the state travels only when its
//! digest is new to the gateway, at most once a second; beats and answers go before everything else; a gateway that is
//! silent for 1.5 T + 5 s of the boot clock, or that takes nothing for 20 s, is left; one with whom the sum of all messages differs at a
//! beat is left too, for something on the way has lost or changed some; frames of a later protocol are skipped.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use protocol::session::{Class, Extent, FromGateway, FromSupervisor, Hello, Pace, Range, Welcome, encode, silence_ms};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio_tungstenite::tungstenite::Message;

use super::beat::Beats;
use super::commands::Inbox;
use super::deliver::Delivery;
use super::end;
use super::end::End;
use super::socket::{Event, Socket};
use super::state::Watch;
use super::streams::Streams;
use super::sums::Compared;
use crate::buffer::{BufferError, Handle};
use crate::machine::{Alarm, Machine};
use crate::metrics::Metrics;

/// One message on its way to a peer that does not read.
const STALL: Duration = Duration::from_secs(20);
/// Between two states.
const STATES: Duration = Duration::from_secs(1);

/// One connection with a gateway.
pub(super) struct Session<'a, S> {
    socket: Socket<S>,
    machine: &'a Machine,
    alarm: Alarm,
    state: Watch,
    streams: Streams,
    commands: Inbox,
    /// The newest command that the gateway knows that we know.
    commanded: i64,
    /// The newest one of which it was told what became.
    told_of: i64,
    /// From the welcome on.
    delivery: Option<Delivery>,
    metrics: &'a Metrics,
    /// Control frames that wait for the socket.
    queue: VecDeque<Queued>,
    compared: Compared,
    heard: Duration,
    beats: Option<Beats>,
    /// The digest of the state that the gateway has.
    known: Option<String>,
    /// When the state was sent last, and whether it may have changed since.
    told: Duration,
    changed: bool,
}

/// A control frame that waits for the socket.
struct Queued {
    text: String,
    /// The number of a beat.
    beat: Option<u64>,
}

impl Queued {
    fn new(frame: &FromSupervisor) -> Queued {
        Queued { text: encode(frame), beat: None }
    }
}

impl<'a, S: AsyncRead + AsyncWrite + Unpin> Session<'a, S> {
    /// Send the hello and wait for the welcome.
    pub(super) async fn open(
        connection: S,
        hello: Hello,
        state: Watch,
        streams: Streams,
        commands: Inbox,
        machine: &'a Machine,
        metrics: &'a Metrics,
    ) -> Result<(Session<'a, S>, Welcome), End> {
        let mut session = Session {
            socket: Socket::new(connection, machine.clone()).await,
            machine,
            alarm: machine.alarm().map_err(End::Clock)?,
            state,
            streams,
            commands,
            commanded: hello.applied,
            told_of: 0,
            delivery: None,
            metrics,
            queue: VecDeque::new(),
            compared: Compared::default(),
            heard: machine.now(),
            beats: None,
            known: None,
            told: Duration::ZERO,
            changed: false,
        };
        session.queue.push_back(Queued::new(&FromSupervisor::Hello(Box::new(hello))));
        match session.welcome().await {
            Ok(welcome) => {
                session.beats = Some(Beats::new(machine.now(), &welcome.pace, machine.random()));
                session.known.clone_from(&welcome.d);
                session.changed = true;
                Ok((session, welcome))
            }
            Err(end) => Err(session.close(end).await),
        }
    }

    /// Records go from here on, beginning where the gateway says.
    pub(super) async fn deliver(
        &mut self,
        buffer: Handle,
        welcome: &Welcome,
        extents: &BTreeMap<Class, Extent>,
    ) -> Result<(), End> {
        self.delivery = Some(Delivery::new(buffer, welcome, extents).await.map_err(End::Buffer)?);
        Ok(())
    }

    async fn welcome(&mut self) -> Result<Welcome, End> {
        let deadline = self.machine.now() + end::WELCOME;
        loop {
            self.send().await?;
            let event = tokio::select! {
                biased;
                event = self.socket.event() => event,
                rung = self.alarm.at(deadline) => {
                    rung.map_err(End::Clock)?;
                    return Err(End::NoWelcome);
                }
            };
            match self.received(event)? {
                Some(FromGateway::Welcome(welcome)) => {
                    return match Range::OURS.agree(Range { min: welcome.protocol, max: welcome.protocol }) {
                        Some(_) => Ok(*welcome),
                        None => Err(End::Protocol(welcome.protocol)),
                    };
                }
                Some(FromGateway::Goaway { reconnect_in_ms, .. }) => return Err(End::goaway(reconnect_in_ms)),
                Some(FromGateway::Unknown) => {
                    self.metrics.link_skipped.inc();
                }
                Some(_) => return Err(End::Malformed),
                None => {}
            }
        }
    }

    /// Until the gateway says something that concerns the time after the session, or until it ends.
    pub(super) async fn next(&mut self, stop: &mut watch::Receiver<bool>) -> Result<Pace, End> {
        loop {
            if let Some(pace) = self.step(stop).await? {
                return Ok(pace);
            }
        }
    }

    async fn step(&mut self, stop: &mut watch::Receiver<bool>) -> Result<Option<Pace>, End> {
        self.tell_outcomes();
        self.send().await?;
        let wake = self.wake();
        let frame = tokio::select! {
            // What came while this process was stopped is read before silence is judged.
            biased;
            event = self.socket.event() => self.received(event)?,
            () = super::stopped(stop) => return Err(End::Stopped),
            () = news(&mut self.delivery) => None,
            () = self.streams.wanted(), if self.socket.is_free() => None,
            () = self.commands.changed() => None,
            () = self.state.changed() => {
                self.changed = true;
                None
            }
            rung = self.alarm.at(wake) => {
                rung.map_err(End::Clock)?;
                self.judge()?;
                None
            }
        };
        match frame {
            Some(FromGateway::Beat { n, state, sums }) => {
                sums.map_or(Ok(()), |sums| self.compared.compare(n, sums))?;
                if state {
                    self.known = None;
                    self.changed = true;
                }
            }
            Some(FromGateway::Pace(new)) => {
                if let Some(beats) = &mut self.beats {
                    beats.pace(self.machine.now(), &new);
                }
                return Ok(Some(new));
            }
            Some(FromGateway::Goaway { reconnect_in_ms, .. }) => return Err(End::goaway(reconnect_in_ms)),
            Some(FromGateway::Ack { acks, applied }) => {
                self.acknowledged(acks).await?;
                applied.into_iter().for_each(|n| self.commands.stored(n));
            }
            Some(FromGateway::Command(command)) => {
                if command.after.is_some_and(|after| after > self.commanded) {
                    return Err(End::Missed("a command of the gateway did not come"));
                }
                self.commanded = self.commanded.max(command.n);
                if !self.commands.take(*command) {
                    return Err(End::Commands);
                }
            }
            Some(FromGateway::Unknown) => {
                self.metrics.link_skipped.inc();
            }
            Some(FromGateway::Welcome(_)) => return Err(End::Malformed),
            None => {}
        }
        Ok(None)
    }

    /// The next moment at which something has to be done, if nothing comes.
    fn wake(&self) -> Duration {
        let mut wake = self.heard + self.patience();
        if let Some(beats) = &self.beats {
            wake = wake.min(beats.next());
        }
        if self.changed {
            wake = wake.min(self.told + STATES);
        }
        if let Some(since) = self.socket.sending() {
            wake = wake.min(since + STALL);
        }
        wake
    }

    fn patience(&self) -> Duration {
        let every = self.beats.as_ref().map_or(Duration::ZERO, Beats::every);
        Duration::from_millis(silence_ms(every.as_millis() as u64))
    }

    /// The time has come for something.
    fn judge(&mut self) -> Result<(), End> {
        let now = self.machine.now();
        let silent = now.saturating_sub(self.heard);
        if silent >= self.patience() {
            return Err(End::Silent(silent));
        }
        if self.socket.sending().is_some_and(|since| now >= since + STALL) {
            return Err(End::Stalled);
        }
        if self.changed && now >= self.told + STATES {
            self.tell_state();
        }
        if self.beats.as_ref().is_some_and(|beats| now >= beats.next()) {
            self.beat();
        }
        Ok(())
    }

    /// A beat names a digest that the gateway has been told, so the state goes before it.
    fn beat(&mut self) {
        let state = self.tell_state();
        if let Some(beats) = &mut self.beats {
            let (n, beat) = beats.beat(self.machine.now(), state);
            self.queue.push_back(Queued { text: encode(&beat), beat: Some(n) });
            self.metrics.link_beats.inc();
        }
    }

    /// Send the state where its digest is new to the gateway; the digest.
    fn tell_state(&mut self) -> String {
        let state = self.state.now();
        let digest = state.d.clone();
        self.changed = false;
        if self.known.as_ref() != Some(&digest) {
            self.queue.push_back(Queued::new(&FromSupervisor::State(Box::new(state))));
            self.known = Some(digest.clone());
            self.told = self.machine.now();
            self.metrics.link_states.inc();
        }
        digest
    }

    /// What became of commands, as far as the gateway knows that we know them.
    fn tell_outcomes(&mut self) {
        let outcomes = self.commands.outcomes(self.told_of, self.commanded);
        if let Some(newest) = outcomes.last() {
            let after = Some(std::mem::replace(&mut self.told_of, newest.n));
            self.queue.push_back(Queued::new(&FromSupervisor::Applied { n: newest.n, after, outcomes }));
        }
    }

    fn say_goodbye(&mut self) {
        self.tell_outcomes();
        self.beat();
        let bye = FromSupervisor::Bye { reason: "the supervisor stops".into(), last: true };
        self.queue.push_back(Queued::new(&bye));
    }

    /// Put the next message under way, where the one before has gone.
    async fn send(&mut self) -> Result<(), End> {
        if !self.socket.is_free() {
            return Ok(());
        }
        let message = match self.queue.pop_front() {
            Some(Queued { text, beat }) => {
                beat.into_iter().for_each(|n| self.compared.beat(n));
                Some(Message::text(text))
            }
            None => match self.parcel().await? {
                Some(text) => Some(Message::text(text)),
                None => self.streams.message().map(Message::binary),
            },
        };
        let Some(message) = message else { return Ok(()) };
        self.compared.sent(&message.clone().into_data());
        self.socket.send(message).map_err(|error| End::Broken(error.to_string()))
    }

    async fn parcel(&mut self) -> Result<Option<String>, End> {
        let Some(delivery) = &mut self.delivery else { return Ok(None) };
        delivery.next().await.map_err(End::Buffer)
    }

    async fn acknowledged(&mut self, acks: BTreeMap<Class, i64>) -> Result<(), End> {
        let Some(delivery) = &mut self.delivery else { return Ok(()) };
        for (class, seq) in acks {
            match delivery.acknowledged(class, seq).await {
                Err(BufferError::Ahead { .. }) => return Err(End::Malformed),
                other => other.map_err(End::Buffer)?,
            }
        }
        Ok(())
    }

    /// Until the gateway has everything that there is. What it does not take in time stays on disk.
    pub(super) async fn drain(&mut self) -> Result<(), End> {
        let (_keep, mut never) = watch::channel(false);
        if let Some(delivery) = &mut self.delivery {
            delivery.look_again();
        }
        while self.delivery.as_ref().is_some_and(|delivery| !delivery.is_done()) {
            self.step(&mut never).await?;
        }
        Ok(())
    }

    fn hear(&mut self, message: &[u8]) {
        self.heard = self.machine.now();
        self.compared.received(message);
    }

    fn received(&mut self, event: Event) -> Result<Option<FromGateway>, End> {
        match event {
            Event::Sent => Ok(None),
            Event::Text(text) => {
                self.hear(text.as_bytes());
                FromGateway::decode(&text).map(Some).map_err(|_| End::Malformed)
            }
            Event::Binary(message) => {
                self.hear(&message);
                self.streams.receive(&message).map(|()| None).map_err(|_| End::Malformed)
            }
            Event::Closed(frame) => Err(match frame {
                Some((code, _)) => End::Closed { code },
                None => End::Broken("it was closed without a word".into()),
            }),
            Event::TooLarge => Err(End::TooLarge),
            Event::Broken(error) => Err(End::Broken(error.to_string())),
        }
    }

    /// What is queued goes out first, as far as the peer takes it in time.
    pub(super) async fn close(mut self, end: End) -> End {
        if matches!(end, End::Stopped) && self.beats.is_some() {
            self.say_goodbye();
        }
        let Some(code) = end.code() else { return end };
        let queued = async {
            while !self.queue.is_empty() {
                if self.send().await.is_err()
                    || !matches!(self.socket.event().await, Event::Sent | Event::Text(_) | Event::Binary(_))
                {
                    return;
                }
            }
        };
        if tokio::time::timeout(STATES, queued).await.is_ok() {
            self.socket.close(code, &end.to_string()).await;
        }
        end
    }
}

/// Until there may be something new in the buffer.
async fn news(delivery: &mut Option<Delivery>) {
    match delivery {
        Some(delivery) => delivery.news().await,
        None => std::future::pending().await,
    }
}
