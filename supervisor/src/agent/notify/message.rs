//! The words of `sd_notify(3)` that a supervisor acts on.

use std::time::Duration;

use protocol::words::printable;

/// One assignment of a datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// `READY=1`
    Ready,
    /// `RELOADING=1`; `READY=1` follows when that is done.
    Reloading,
    /// `STOPPING=1`
    Stopping,
    /// `STATUS=…`, one line, at most 256 characters, no control characters.
    Status(String),
    /// `WATCHDOG=1`: alive.
    Watchdog,
    /// `WATCHDOG=trigger`: the agent asks to be treated as hung.
    WatchdogTrigger,
    /// `WATCHDOG_USEC=…`: from now on the agent calls this often.
    WatchdogEvery(Duration),
}

/// What a datagram says, in its order. The other words are left out: the supervisor knows the main program's pid
/// (`MAINPID`), keeps no descriptors for it (`FDSTORE`), and its time limits are the operator's (`EXTEND_TIMEOUT_USEC`).
pub fn parse(datagram: &[u8]) -> Vec<Message> {
    datagram.split(|byte| *byte == b'\n').filter_map(assignment).collect()
}

fn assignment(line: &[u8]) -> Option<Message> {
    let at = line.iter().position(|byte| *byte == b'=')?;
    let value = String::from_utf8_lossy(&line[at + 1..]);
    match (&line[..at], value.as_ref()) {
        (b"READY", "1") => Some(Message::Ready),
        (b"RELOADING", "1") => Some(Message::Reloading),
        (b"STOPPING", "1") => Some(Message::Stopping),
        (b"STATUS", text) => Some(Message::Status(status(text))),
        (b"WATCHDOG", "1") => Some(Message::Watchdog),
        (b"WATCHDOG", "trigger") => Some(Message::WatchdogTrigger),
        (b"WATCHDOG_USEC", text) => micros(text).map(Message::WatchdogEvery),
        _ => None,
    }
}

/// It goes into health bodies and logs, where a line or a terminal's escape would be the agent's to forge.
fn status(text: &str) -> String {
    printable(&text.chars().take(256).collect::<String>())
}

fn micros(text: &str) -> Option<Duration> {
    text.parse().ok().filter(|micros| *micros != 0).map(Duration::from_micros)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_word_is_understood_in_its_order() {
        let said = b"READY=1\nSTATUS=up = running\nWATCHDOG=1\nWATCHDOG=trigger\nWATCHDOG_USEC=1500000\n\
                     RELOADING=1\nSTOPPING=1";
        let expected = [
            Message::Ready,
            Message::Status("up = running".into()),
            Message::Watchdog,
            Message::WatchdogTrigger,
            Message::WatchdogEvery(Duration::from_millis(1500)),
            Message::Reloading,
            Message::Stopping,
        ];
        assert_eq!(parse(said), expected);
    }

    #[test]
    fn what_is_not_for_us_or_not_meant_is_left_out() {
        let said = b"MAINPID=1\nFDSTORE=1\nFDNAME=x\nBARRIER=1\nREADY=0\nREADY\n=1\nready=1\nWATCHDOG=0\n\
                     WATCHDOG_USEC=0\nWATCHDOG_USEC=-1\nEXTEND_TIMEOUT_USEC=2000\nERRNO=2\n\n READY=1";
        assert_eq!(parse(said), []);
    }

    #[test]
    fn a_status_cannot_forge_lines_or_terminal_escapes() {
        assert_eq!(parse(b"STATUS=a\r\x1b[31mb\xff"), [Message::Status("a  [31mb\u{fffd}".into())]);
        let long = format!("STATUS={}", "é".repeat(2000));
        assert_eq!(parse(long.as_bytes()), [Message::Status("é".repeat(256))]);
    }

    proptest! {
        #[test]
        fn no_datagram_can_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..4096)) {
            prop_assert!(parse(&bytes).len() <= bytes.len());
        }

        #[test]
        fn no_value_can_make_it_panic(value in ".{0,64}", key in 0usize..2) {
            let key = ["STATUS", "WATCHDOG_USEC"][key];
            parse(format!("{key}={value}").as_bytes());
        }
    }
}
