//! A sum over all messages that went one way: both ends have the same one as long as nothing was lost, doubled, turned round or changed.

use serde::{Deserialize, Serialize};

/// CRC32C (RFC 3720, appendix B.4) of all messages so far, each behind its length as eight bytes, little-endian; 0 before the first.
/// In a frame eight hex digits, so that a frame is as long whatever came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Sum(pub u32);

impl Sum {
    /// One more message, text or binary: what it carries.
    pub fn add(&mut self, message: &[u8]) {
        let length = (message.len() as u64).to_le_bytes();
        self.0 = crc32c::crc32c_append(crc32c::crc32c_append(self.0, &length), message);
    }
}

/// Of all messages of a session, each way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sums {
    /// What came to the gateway before the beat, the hello first.
    pub received: Sum,
    /// What it sent before this answer, the welcome first.
    pub sent: Sum,
}

impl From<Sum> for String {
    fn from(sum: Sum) -> String {
        format!("{:08x}", sum.0)
    }
}

/// It is not eight hex digits.
#[derive(Debug, thiserror::Error)]
#[error("a sum has eight hex digits")]
pub struct NoSum;

impl TryFrom<String> for Sum {
    type Error = NoSum;

    fn try_from(text: String) -> Result<Sum, NoSum> {
        // The radix alone would let a sign and fewer digits pass.
        let digits = text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let sum = u32::from_str_radix(&text, 16).ok().filter(|_| digits);
        sum.map(Sum).ok_or(NoSum)
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
    fn another_sum_comes_of_messages_that_were_lost_doubled_turned_round_joined_or_changed() {
        let sum = of(&["one", "two", "three"]);
        for other in [
            &["one", "three"][..],
            &["one", "two", "two", "three"],
            &["one", "two", "two"],
            &["two", "one", "three"],
            &["onetwo", "three"],
            &["one", "two", "threw"],
            &["one", "two", "three", ""],
        ] {
            assert_ne!(of(other), sum, "{other:?}");
        }
        assert_eq!(of(&["one", "two", "three"]), sum);
    }

    #[test]
    fn the_sum_is_that_of_the_standard() {
        // A single message of nothing: eight zeros, as any CRC32C of them.
        assert_eq!(of(&[""]).0, 0x8c28_b28a);
    }
}
