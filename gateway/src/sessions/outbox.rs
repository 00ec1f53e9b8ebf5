//! What is to be sent: a place for each kind, so that it does not grow while a peer does not read. The newest of a kind is
//! what counts: acknowledgements are cumulative, an older beat needs no answer.

use std::collections::{BTreeMap, VecDeque};

use protocol::session::{Class, Command, FromGateway, Pace, Sum, Sums, encode};

/// In the order in which they are sent; byte streams come after all of them.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    pub(super) welcome: Option<FromGateway>,
    /// To the newest beat.
    pub(super) beat: Option<Answer>,
    pub(super) acks: BTreeMap<Class, i64>,
    /// Up to here the outcomes of commands are stored.
    pub(super) applied: Option<i64>,
    pub(super) goaway: Option<(&'static str, u64)>,
    pub(super) pace: Option<Pace>,
    /// Refilled from the store when it is empty.
    pub(super) commands: VecDeque<Command>,
}

/// To a beat.
#[derive(Debug)]
pub(super) struct Answer {
    /// The beat's number.
    pub(super) n: u64,
    /// Whether its state is wanted.
    pub(super) state: bool,
    /// Of all messages that came before it.
    pub(super) received: Sum,
}

impl Outbox {
    /// The next message, as text, behind those that were `sent`.
    pub(super) fn next(&mut self, sent: Sum) -> Option<String> {
        let frame = if let Some(welcome) = self.welcome.take() {
            welcome
        } else if let Some(Answer { n, state, received }) = self.beat.take() {
            FromGateway::Beat { n, state, sums: Some(Sums { received, sent }) }
        } else if !self.acks.is_empty() || self.applied.is_some() {
            FromGateway::Ack { acks: std::mem::take(&mut self.acks), applied: self.applied.take() }
        } else if let Some((reason, reconnect_in_ms)) = self.goaway.take() {
            FromGateway::Goaway { reason: reason.into(), reconnect_in_ms }
        } else if let Some(pace) = self.pace.take() {
            FromGateway::Pace(pace)
        } else {
            FromGateway::Command(Box::new(self.commands.pop_front()?))
        };
        Some(encode(&frame))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_does_not_read_holds_one_answer_of_each_kind() {
        let mut outbox = Outbox::default();
        for n in 0..1_000 {
            outbox.beat = Some(Answer { n, state: false, received: Sum(n as u32) });
            outbox.acks.insert(Class::Logs, n as i64);
        }
        assert_eq!(
            outbox.next(Sum(7)).as_deref(),
            Some(r#"{"t":"beat","n":999,"sums":{"received":"000003e7","sent":"00000007"}}"#)
        );
        assert_eq!(outbox.next(Sum(8)).as_deref(), Some(r#"{"t":"ack","acks":{"logs":999}}"#));
        assert_eq!(outbox.next(Sum(9)), None);
    }
}
