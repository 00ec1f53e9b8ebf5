//! Server-sent events, read from the pieces of a body.

use axum::body::{Body, BodyDataStream};
use futures_util::StreamExt;

use super::ClientError;

/// A longer event is none of a gateway's: 256 KiB of output make 350,000 characters.
const MAX_EVENT: usize = 4 * 1024 * 1024;

/// The events of one answer.
pub(crate) struct Events {
    body: BodyDataStream,
    buffer: Vec<u8>,
    /// So many bytes at the begin of the buffer were looked at in vain.
    searched: usize,
}

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) name: String,
    pub(crate) id: String,
    pub(crate) data: String,
}

impl Events {
    pub(crate) fn new(body: Body) -> Events {
        Events { body: body.into_data_stream(), buffer: Vec::new(), searched: 0 }
    }

    /// The next event; `None` at the end of the body. May be dropped and called again.
    pub(crate) async fn next(&mut self) -> Result<Option<Event>, ClientError> {
        loop {
            if let Some(text) = self.take() {
                let event = parse(&text);
                // What is empty keeps the connection busy and says nothing.
                if event != Event::default() {
                    return Ok(Some(event));
                }
                continue;
            }
            if self.buffer.len() > MAX_EVENT {
                return Err(ClientError::Nonsense("an event is too long"));
            }
            match self.body.next().await {
                Some(Ok(bytes)) => self.buffer.extend_from_slice(&bytes),
                Some(Err(error)) => return Err(ClientError::broken(error)),
                None => return Ok(None),
            }
        }
    }

    /// What is before the next empty line.
    fn take(&mut self) -> Option<String> {
        let from = self.searched.saturating_sub(1);
        let Some(at) = self.buffer[from..].windows(2).position(|pair| pair == b"\n\n") else {
            self.searched = self.buffer.len();
            return None;
        };
        self.searched = 0;
        let event: Vec<u8> = self.buffer.drain(..from + at + 2).collect();
        Some(String::from_utf8_lossy(&event).into_owned())
    }
}

fn parse(text: &str) -> Event {
    let mut event = Event::default();
    for line in text.lines() {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "event" => event.name = value.into(),
            "id" => event.id = value.into(),
            "data" => event.data.push_str(value),
            _ => {}
        }
    }
    event
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn events_are_read_however_they_are_cut() {
        let text = "event: output\nid: 3\ndata: YWJj\n\n: busy\n\nevent: end\nid: 3\ndata:\n\n";
        for size in 1..text.len() {
            let pieces: Vec<_> = text.as_bytes().chunks(size).map(|p| Ok::<_, std::io::Error>(p.to_vec())).collect();
            let mut events = Events::new(Body::from_stream(futures_util::stream::iter(pieces)));
            let first = events.next().await.expect("whole").expect("an event");
            assert_eq!((first.name.as_str(), first.id.as_str(), first.data.as_str()), ("output", "3", "YWJj"));
            assert_eq!(events.next().await.expect("whole").expect("an event").name, "end");
            assert_eq!(events.next().await.expect("whole"), None);
        }
    }

    #[tokio::test]
    async fn an_event_without_an_end_is_nonsense_and_no_outage() {
        let pieces = futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![b'x'; MAX_EVENT / 4]));
        let error = Events::new(Body::from_stream(pieces)).next().await.expect_err("it has no end");
        assert!(matches!(error, ClientError::Nonsense(_)), "{error:?}");
    }
}
