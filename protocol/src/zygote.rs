//! Between the supervisor and its zygote, a shim that forks itself into further shims (decision 0015).
//!
//! One stream socket. An order is one byte with [`DESCRIPTORS`] descriptors beside it (`SCM_RIGHTS`, unix(7)): standard
//! input, output and error of the new shim, and its own control socket. The answer is [`answer`]: its pid, or why there
//! is none. When the supervisor's end closes, the zygote exits.

/// The argument that makes a shim a zygote; the number of its socket follows.
pub const FLAG: &str = "--zygote";
/// What an order says.
pub const ORDER: [u8; 1] = [1];
/// How many descriptors come with an order.
pub const DESCRIPTORS: usize = 4;

/// A pid, or an `errno`, as it goes over the socket.
pub fn answer(forked: Result<i32, i32>) -> [u8; 4] {
    forked.unwrap_or_else(|errno| -errno).to_le_bytes()
}

/// What an answer says.
pub fn read_answer(bytes: [u8; 4]) -> Result<i32, i32> {
    let number = i32::from_le_bytes(bytes);
    if number > 0 { Ok(number) } else { Err(-number) }
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
}
