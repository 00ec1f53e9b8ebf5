//! How far one stream of a task's output was read, by its events.
//!
//! Promise: it only moves on, by as many bytes as came or as are said to be missing; what says otherwise is none of a supervisor's.

use base64::Engine;

use super::super::ClientError;
use super::super::events::Event;
use super::Piece;

/// Where the next byte is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Place {
    pub(crate) cursor: u64,
    /// Nothing more will come.
    pub(crate) ended: bool,
}

impl Place {
    /// What an event says; `None` where that is nothing for a reader.
    pub(crate) fn take(&mut self, event: &Event) -> Result<Option<Piece>, ClientError> {
        let next = || event.id.parse::<u64>().map_err(|_| ClientError::Nonsense("an event has no cursor"));
        let from = self.cursor;
        match event.name.as_str() {
            "output" => {
                let bytes = base64::engine::general_purpose::STANDARD.decode(&event.data);
                let bytes = bytes.map_err(|_| ClientError::Nonsense("an event is not base64"))?;
                if from.checked_add(bytes.len() as u64) != Some(next()?) {
                    return Err(ClientError::Nonsense("an event does not end where its bytes do"));
                }
                self.cursor = next()?;
                Ok(Some(Piece::Bytes(bytes)))
            }
            "cut" => {
                let to = next()?;
                if to < from {
                    return Err(ClientError::Nonsense("a cut ends before it begins"));
                }
                self.cursor = to;
                Ok(Some(Piece::Cut { from, to }))
            }
            "end" => {
                self.ended = true;
                Ok(None)
            }
            // Of a later supervisor.
            _ => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(name: &str, id: &str, data: &str) -> Event {
        Event { name: name.into(), id: id.into(), data: data.into() }
    }

    #[test]
    fn a_cut_that_goes_back_and_bytes_that_end_elsewhere_are_no_output() {
        let mut place = Place::default();
        assert_eq!(place.take(&event("output", "3", "YWJj")).expect("whole"), Some(Piece::Bytes(b"abc".to_vec())));
        for (name, id, data) in [("cut", "2", ""), ("output", "3", "YWJj"), ("output", "9", "YWJj"), ("output", "", "")]
        {
            assert!(place.take(&event(name, id, data)).is_err(), "{name} {id}");
            assert_eq!(place.cursor, 3);
        }
        assert_eq!(place.take(&event("cut", "9", "")).expect("whole"), Some(Piece::Cut { from: 3, to: 9 }));
    }
}
