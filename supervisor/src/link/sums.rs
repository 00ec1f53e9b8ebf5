//! Whether all that one end sent is what came to the other, compared at each answer to a beat.

use std::collections::VecDeque;

use protocol::session::{Sum, Sums};

use super::end::End;

/// Beats whose answers may be under way; older ones are not compared.
const BEATS: usize = 16;

/// The sums over all messages of one session, and what they were at its newest beats.
#[derive(Default)]
pub(super) struct Compared {
    sent: Sum,
    received: Sum,
    /// Without the newest message.
    received_before: Sum,
    /// The newest beats, and what was sent before each.
    beats: VecDeque<(u64, Sum)>,
}

impl Compared {
    /// The message that is sent next is this beat.
    pub(super) fn beat(&mut self, n: u64) {
        self.beats.push_back((n, self.sent));
        if self.beats.len() > BEATS {
            self.beats.pop_front();
        }
    }

    /// One more message went.
    pub(super) fn sent(&mut self, message: &[u8]) {
        self.sent.add(message);
    }

    /// One more message came.
    pub(super) fn received(&mut self, message: &[u8]) {
        self.received_before = self.received;
        self.received.add(message);
    }

    /// The newest message answers beat `n`: whether the gateway has all that we sent before it, and we have all that it sent before its
    /// answer.
    pub(super) fn compare(&mut self, n: u64, sums: Sums) -> Result<(), End> {
        if sums.sent != self.received_before {
            return Err(End::Missed("what the gateway has sent is not what came"));
        }
        self.beats.retain(|(beat, _)| *beat >= n);
        match self.beats.front() {
            Some((beat, sent)) if *beat == n && *sent != sums.received => {
                Err(End::Missed("what came to the gateway is not what was sent"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(messages: &[&str]) -> Sum {
        let mut sum = Sum::default();
        messages.iter().for_each(|message| sum.add(message.as_bytes()));
        sum
    }

    #[test]
    fn an_answer_is_compared_with_what_was_sent_before_its_own_beat() {
        let mut compared = Compared::default();
        compared.sent(b"hello");
        for n in 1..=2 {
            compared.beat(n);
            compared.sent(b"beat");
        }
        compared.received(b"welcome");
        compared.received(b"answer");
        let sums = |came: &[&str], went: &[&str]| Sums { received: of(came), sent: of(went) };
        compared.compare(1, sums(&["hello"], &["welcome"])).expect("nothing was lost");
        compared.compare(2, sums(&["hello", "beat"], &["welcome"])).expect("nothing was lost");
        compared.compare(2, sums(&["hello"], &["welcome"])).expect_err("a beat was lost");
        compared.compare(2, sums(&["hello", "beat"], &["welcome", "ack"])).expect_err("an ack was lost");
        compared.compare(1, sums(&[], &["welcome"])).expect("it is not known any more");
    }
}
