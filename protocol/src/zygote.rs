//! Between the supervisor and its zygote, a shim that forks itself into further shims (decisions 0015, 0019).
//!
//! One stream socket. An order is one byte with one descriptor beside it (`SCM_RIGHTS`, unix(7)): the control socket of the
//! new shim. The answer is [`answer`]: its pid, or why there is none. When the supervisor's end closes, the zygote exits.
//!
//! A shim that is forked does at once what needs no policy. Beside the first byte of its policy come its [`STREAMS`].
//!
//! Between two orders [`HOLD`] and a frame ([`crate::control::encode`]) with a list of paths tell what most programs may
//! read: the zygote holds these places open, so that a shim that is forked need not look each of them up.

/// The argument that makes a shim a zygote; the number of its socket follows.
pub const FLAG: &str = "--zygote";
/// What an order says.
pub const ORDER: [u8; 1] = [1];
/// What comes before a list of paths.
pub const HOLD: [u8; 1] = [2];
/// Standard input, output and error, which come with the policy of a shim that was forked.
pub const STREAMS: usize = 3;

/// A pid, or an `errno`, as it goes over the socket.
pub fn answer(forked: Result<i32, i32>) -> [u8; 4] {
    forked.unwrap_or_else(|errno| -errno).to_le_bytes()
}

/// What an answer says.
pub fn read_answer(bytes: [u8; 4]) -> Result<i32, i32> {
    let number = i32::from_le_bytes(bytes);
    if number > 0 { Ok(number) } else { Err(number.saturating_neg()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_pid_or_an_errno() {
        for forked in [Ok(1), Ok(4_194_304), Err(11)] {
            assert_eq!(read_answer(answer(forked)), forked);
        }
    }

    #[test]
    fn a_number_without_an_opposite_is_an_errno_too() {
        assert_eq!(read_answer(i32::MIN.to_le_bytes()), Err(i32::MAX));
    }
}
