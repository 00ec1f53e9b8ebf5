//! This terminal: raw while a task has it, and put back whatever happens.

use std::io::{IsTerminal, Read};

use protocol::task::Terminal;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::sync::mpsc;

/// control-P control-Q, as docker(1) has it.
const DETACH: [u8; 2] = [0x10, 0x11];

/// Whether a person types.
pub(crate) fn is_there() -> bool {
    std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}

/// Its size; the usual one where it has none.
pub(crate) fn size() -> Terminal {
    let size = tcgetwinsize(std::io::stdout()).ok().map(|size| Terminal { rows: size.ws_row, cols: size.ws_col });
    size.filter(|size| size.is_valid()).unwrap_or(Terminal { rows: 24, cols: 80 })
}

/// Raw until it is dropped.
pub(crate) struct Raw(Termios);

impl Raw {
    pub(crate) fn new() -> std::io::Result<Raw> {
        let before = tcgetattr(std::io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(std::io::stdin(), OptionalActions::Now, &raw)?;
        Ok(Raw(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0);
    }
}

/// Standard input as it comes; it ends at the end of the input.
pub(crate) fn typed() -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel(4);
    // A read of a terminal cannot be given up, so it has a thread that ends with the process.
    std::thread::spawn(move || {
        let mut piece = vec![0; 16 * 1024];
        loop {
            match std::io::stdin().read(&mut piece) {
                Ok(count) if count > 0 && sender.blocking_send(piece[..count].to_vec()).is_ok() => {}
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                _ => return,
            }
        }
    });
    receiver
}

/// Looks for the keys that detach.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    first: bool,
}

impl Keys {
    /// What is to be passed on of this, and whether the keys were in it; what is behind them is dropped.
    pub(crate) fn look(&mut self, bytes: &[u8]) -> (Vec<u8>, bool) {
        let mut pass = Vec::with_capacity(bytes.len() + 1);
        for &byte in bytes {
            if std::mem::take(&mut self.first) {
                if byte == DETACH[1] {
                    return (pass, true);
                }
                pass.push(DETACH[0]);
            }
            if byte == DETACH[0] {
                self.first = true;
            } else {
                pass.push(byte);
            }
        }
        (pass, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_are_found_however_they_come_and_nothing_else_is_lost() {
        let mut keys = Keys::default();
        assert_eq!(keys.look(b"ab\x10\x11c"), (b"ab".to_vec(), true));
        assert_eq!(keys.look(b"a\x10"), (b"a".to_vec(), false));
        assert_eq!(keys.look(b"\x11"), (vec![], true));
        assert_eq!(keys.look(b"\x10\x10"), (b"\x10".to_vec(), false));
        assert_eq!(keys.look(b"x\x11"), (b"\x10x\x11".to_vec(), false));
    }
}
