//! The line that is just being written, in pieces where it is too long.

use serde_json::{Value, json};

/// A longer line goes in pieces.
pub const LONGEST: usize = 16 * 1024;

/// Whose it is.
pub(crate) struct Source {
    /// `None` for the agent.
    pub(crate) task: Option<String>,
    /// Standard output or error.
    pub(crate) stream: &'static str,
}

impl Source {
    /// The body of a record that has this of a line; `more` of it follows.
    pub(crate) fn body(&self, text: &[u8], more: bool) -> Value {
        let mut body = json!({
            "source": if self.task.is_some() { "task" } else { "agent" },
            "stream": self.stream,
            "text": String::from_utf8_lossy(text.strip_suffix(b"\r").unwrap_or(text)),
        });
        for (name, holds) in [("cut", more), ("lossy", std::str::from_utf8(text).is_err())] {
            if holds {
                body[name] = true.into();
            }
        }
        if let Some(task) = &self.task {
            body["task_id"] = task.as_str().into();
        }
        body
    }
}

/// What was written of it.
#[derive(Default)]
pub(crate) struct Line(Vec<u8>);

impl Line {
    /// These bytes follow, of which only the last may end it. `whole` gets each piece, and whether more of the line follows.
    pub(crate) fn write(&mut self, bytes: &[u8], mut whole: impl FnMut(&[u8], bool)) {
        self.0.extend_from_slice(bytes.strip_suffix(b"\n").unwrap_or(bytes));
        while self.0.len() > LONGEST {
            let rest = self.0.split_off(boundary(&self.0));
            let piece = std::mem::replace(&mut self.0, rest);
            whole(&piece, true);
        }
        if bytes.last() == Some(&b'\n') {
            let piece = std::mem::take(&mut self.0);
            whole(&piece, false);
        }
    }

    /// Bytes of it that no piece has.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

/// Where a line that is too long is cut: not inside a character.
fn boundary(line: &[u8]) -> usize {
    let continues = |byte: u8| byte & 0xC0 == 0x80;
    (LONGEST - 3..=LONGEST).rev().find(|at| !continues(line[*at])).unwrap_or(LONGEST)
}
