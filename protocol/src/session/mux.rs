//! Many byte streams over one session, without any input or output of its own: messages go in and come out.
//!
//! Promises: what is held for one stream is bounded in both directions by [`INITIAL_CREDIT`]; streams that have something to
//! send take turns, one message each; opening, credit, closing and reset go before data; a peer that sends more than its
//! credit loses that stream and no other; messages of a later protocol are skipped; a peer that asks for more answers than it reads is
//! malformed, so they are bounded, too.
//!
//! Both ends use it. Whoever feeds it wakes its readers and writers with the [`Event`]s.

use std::collections::{BTreeMap, VecDeque};

use super::stream::{Frame, INITIAL_CREDIT, MAX_PAYLOAD, MAX_STREAMS, Malformed, Part};

/// Bytes that wait to be sent, for each stream; a writer then waits for the wire.
const QUEUE: usize = 64 * 1024;

/// Frames that wait to be sent before a peer that opens one stream too many has asked for too many answers.
const MAX_CONTROL: usize = 16 * MAX_STREAMS;

/// Which end this is: only the gateway opens streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Opens streams.
    Gateway,
    /// Answers on them.
    Supervisor,
}

/// What a message has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The gateway opened this stream.
    Opened(u32),
    /// There may be more to read.
    Readable(u32),
    /// There may be room to write.
    Writable(u32),
    /// Over in both directions: readers and writers will be told why.
    Over(u32),
}

/// What a reader gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// So many bytes were put in.
    Bytes(usize),
    /// Nothing yet.
    Wait,
    /// The peer has closed and all was read.
    End,
    /// The stream was reset, or never was.
    Reset(String),
}

/// What a writer gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// So many bytes were taken.
    Taken(usize),
    /// No room until [`Event::Writable`] or until messages were sent.
    Wait,
    /// The stream was reset, closed for writing, or never was.
    Reset(String),
}

/// All streams of one session.
#[derive(Debug)]
pub struct Mux {
    side: Side,
    streams: BTreeMap<u32, Stream>,
    /// Of a gateway.
    next: u32,
    /// Goes before data.
    control: VecDeque<Frame>,
    /// Who has data to send and credit for it, in the order of their turns.
    turns: VecDeque<u32>,
}

#[derive(Debug)]
struct Stream {
    received: VecDeque<u8>,
    /// What the peer may still send.
    granted: u32,
    /// Read here, and not yet given back as credit.
    owed: u32,
    queued: VecDeque<u8>,
    /// What we may still send.
    credit: u32,
    in_turns: bool,
    /// The peer sends no more.
    peer_closed: bool,
    /// We send no more, once the queue is empty.
    closing: bool,
    /// That was told.
    closed: bool,
    /// Nobody here reads or writes it any more; what is queued still goes out.
    forgotten: bool,
    over: Option<String>,
}

impl Stream {
    fn new() -> Stream {
        Stream {
            received: VecDeque::new(),
            granted: INITIAL_CREDIT,
            owed: 0,
            queued: VecDeque::new(),
            credit: INITIAL_CREDIT,
            in_turns: false,
            peer_closed: false,
            closing: false,
            closed: false,
            forgotten: false,
            over: None,
        }
    }

    fn is_live(&self) -> bool {
        self.over.is_none() && !(self.closed && self.peer_closed)
    }
}

impl Mux {
    /// No streams yet.
    pub fn new(side: Side) -> Mux {
        Mux { side, streams: BTreeMap::new(), next: 1, control: VecDeque::new(), turns: VecDeque::new() }
    }

    /// Streams that are not over.
    pub fn live(&self) -> usize {
        self.streams.values().filter(|stream| stream.is_live()).count()
    }

    /// Open a stream; `None` where [`MAX_STREAMS`] are open.
    pub fn open(&mut self) -> Option<u32> {
        if self.live() >= MAX_STREAMS {
            return None;
        }
        let id = self.next;
        self.next += 1;
        self.streams.insert(id, Stream::new());
        self.control.push_back(Frame { stream: id, part: Part::Open });
        Some(id)
    }

    /// Take one binary message. An error is a message that no peer of this protocol sends; the session ends then.
    pub fn receive(&mut self, message: &[u8]) -> Result<Option<Event>, Malformed> {
        let Frame { stream: id, part } = match Frame::decode(message) {
            Ok(frame) => frame,
            // Of a later protocol.
            Err(Malformed::Kind(_)) => return Ok(None),
            Err(malformed) => return Err(malformed),
        };
        if part == Part::Open {
            return self.opened(id);
        }
        // What was under way when this side gave the stream up.
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| stream.over.is_none()) else { return Ok(None) };
        Ok(match part {
            Part::Open => None,
            Part::Data(bytes) => {
                let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                if length > stream.granted || stream.peer_closed {
                    return Ok(self.refuse(id, "more data than there was credit for"));
                }
                stream.granted -= length;
                stream.received.extend(bytes);
                Some(Event::Readable(id))
            }
            Part::Credit(bytes) => {
                stream.credit = stream.credit.saturating_add(bytes);
                self.take_turn(id);
                Some(Event::Writable(id))
            }
            Part::Close => {
                stream.peer_closed = true;
                Some(Event::Readable(id))
            }
            Part::Reset(reason) => {
                stream.end(reason);
                if stream.forgotten {
                    self.streams.remove(&id);
                }
                Some(Event::Over(id))
            }
        })
    }

    fn opened(&mut self, id: u32) -> Result<Option<Event>, Malformed> {
        if self.side == Side::Gateway {
            return Err(Malformed::Open);
        }
        if self.streams.contains_key(&id) {
            return Ok(self.refuse(id, "opened twice"));
        }
        if self.live() >= MAX_STREAMS {
            if self.control.len() >= MAX_CONTROL {
                return Err(Malformed::Flood);
            }
            self.control.push_back(Frame { stream: id, part: Part::Reset("too many streams at once".into()) });
            return Ok(None);
        }
        self.streams.insert(id, Stream::new());
        Ok(Some(Event::Opened(id)))
    }

    fn refuse(&mut self, id: u32, reason: &str) -> Option<Event> {
        self.reset(id, reason);
        Some(Event::Over(id))
    }

    /// Read what came. What was read is given back as credit, in steps of a quarter.
    pub fn read(&mut self, id: u32, into: &mut [u8]) -> Read {
        let Some(stream) = self.streams.get_mut(&id) else { return Read::Reset("there is no such stream".into()) };
        let count = stream.received.len().min(into.len());
        if count > 0 {
            for (place, byte) in into.iter_mut().zip(stream.received.drain(..count)) {
                *place = byte;
            }
            stream.owed += count as u32;
            if stream.owed >= INITIAL_CREDIT / 4 && !stream.peer_closed {
                let owed = std::mem::take(&mut stream.owed);
                stream.granted += owed;
                self.control.push_back(Frame { stream: id, part: Part::Credit(owed) });
            }
            return Read::Bytes(count);
        }
        match &stream.over {
            // Everything came before a reset that follows a close.
            _ if stream.peer_closed => Read::End,
            Some(reason) => Read::Reset(reason.clone()),
            None => Read::Wait,
        }
    }

    /// Queue bytes to send.
    pub fn write(&mut self, id: u32, bytes: &[u8]) -> Write {
        let Some(stream) = self.streams.get_mut(&id) else { return Write::Reset("there is no such stream".into()) };
        if let Some(reason) = &stream.over {
            return Write::Reset(reason.clone());
        }
        if stream.closing {
            return Write::Reset("closed for writing".into());
        }
        let room = QUEUE.saturating_sub(stream.queued.len()).min(bytes.len());
        if room == 0 && !bytes.is_empty() {
            return Write::Wait;
        }
        stream.queued.extend(&bytes[..room]);
        self.take_turn(id);
        Write::Taken(room)
    }

    /// Send no more than what is queued.
    pub fn close(&mut self, id: u32) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.closing = true;
            self.close_when_empty(id);
        }
    }

    /// End a stream in both directions; nothing happens where it is over.
    pub fn reset(&mut self, id: u32, reason: &str) {
        if let Some(stream) = self.streams.get_mut(&id).filter(|stream| stream.is_live()) {
            stream.end(reason.into());
            self.control.push_back(Frame { stream: id, part: Part::Reset(reason.into()) });
        }
    }

    /// Nobody here reads or writes it any more: it is forgotten, and the peer is told where it is not over. Where it was
    /// closed, what is queued goes out first.
    pub fn forget(&mut self, id: u32) {
        if let Some(stream) = self.streams.get_mut(&id)
            && stream.closing
            && !stream.closed
            && stream.over.is_none()
        {
            stream.forgotten = true;
            return;
        }
        self.reset(id, "gone");
        self.streams.remove(&id);
    }

    /// The next message to send, and who may write again after it.
    pub fn next_message(&mut self) -> Option<(Vec<u8>, Option<Event>)> {
        if let Some(frame) = self.control.pop_front() {
            return Some((frame.encode(), None));
        }
        while let Some(id) = self.turns.pop_front() {
            let Some(stream) = self.streams.get_mut(&id) else { continue };
            stream.in_turns = false;
            let count = stream.queued.len().min(stream.credit as usize).min(MAX_PAYLOAD);
            if count == 0 {
                continue;
            }
            let bytes: Vec<u8> = stream.queued.drain(..count).collect();
            stream.credit -= count as u32;
            self.take_turn(id);
            self.close_when_empty(id);
            return Some((Frame { stream: id, part: Part::Data(bytes) }.encode(), Some(Event::Writable(id))));
        }
        None
    }

    /// Whether [`Mux::next_message`] has one.
    pub fn has_message(&self) -> bool {
        !self.control.is_empty() || !self.turns.is_empty()
    }

    fn take_turn(&mut self, id: u32) {
        if let Some(stream) = self.streams.get_mut(&id)
            && !stream.in_turns
            && !stream.queued.is_empty()
            && stream.credit > 0
        {
            stream.in_turns = true;
            self.turns.push_back(id);
        }
    }

    /// Control goes before data, so a close may only be queued behind the last of it.
    fn close_when_empty(&mut self, id: u32) {
        if let Some(stream) = self.streams.get_mut(&id)
            && stream.closing
            && !stream.closed
            && stream.over.is_none()
            && stream.queued.is_empty()
        {
            stream.closed = true;
            let forgotten = stream.forgotten;
            self.control.push_back(Frame { stream: id, part: Part::Close });
            if forgotten {
                self.forget(id);
            }
        }
    }
}

impl Stream {
    /// What came before can still be read.
    fn end(&mut self, reason: String) {
        self.over = Some(reason);
        self.queued.clear();
    }
}

#[cfg(test)]
mod tests;
