//! One process of agents, as the one that started it sees it.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use super::words::{Now, Order, Share, Word};
use crate::tally::Produced;
use crate::wait::LONG;

/// It ends with this value.
pub(super) struct Group {
    child: Child,
    /// It ends when this is closed.
    orders: Option<ChildStdin>,
    heard: Arc<Mutex<Heard>>,
    listening: Option<JoinHandle<()>>,
}

/// What it has said.
#[derive(Default)]
pub(super) struct Heard {
    /// The newest; `returns` are all that there were.
    pub(super) now: Now,
    /// Of each sandbox that is through.
    pub(super) produced: Vec<(String, Produced)>,
    /// Sandboxes whose records the gateway does not take.
    pub(super) waiting: Vec<String>,
}

impl Group {
    /// Start `fleet agents` for this share.
    pub(super) fn start(program: &Path, share: &Share) -> Group {
        let mut command = Command::new(program);
        command.arg("agents").arg(serde_json::to_string(share).expect("plain data"));
        // Control-C is for the one that has started it.
        command.process_group(0);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("our own program");
        let orders = child.stdin.take();
        let words = BufReader::new(child.stdout.take().expect("piped"));
        let heard = Arc::<Mutex<Heard>>::default();
        let listener = heard.clone();
        let listening = std::thread::spawn(move || {
            for line in words.lines().map_while(Result::ok) {
                let word = serde_json::from_str(&line).expect("what `say` wrote");
                listener.lock().unwrap_or_else(PoisonError::into_inner).hear(word);
            }
        });
        Group { child, orders, heard, listening: Some(listening) }
    }

    /// Tell it.
    #[track_caller]
    pub(super) fn order(&mut self, order: &Order) {
        let line = serde_json::to_string(order).expect("plain data");
        let orders = self.orders.as_mut().expect("it has not been dropped");
        writeln!(orders, "{line}").expect("a process of agents has ended");
    }

    /// What it has said so far.
    pub(super) fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until it has said everything, which it does after [`Order::Finish`]; that.
    pub(super) fn finish(mut self) -> Heard {
        if let Some(listening) = self.listening.take() {
            listening.join().expect("a line that is no word");
        }
        std::mem::take(&mut *self.heard())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        drop(self.orders.take());
        // It removes what it has written.
        let deadline = Instant::now() + LONG;
        while Instant::now() < deadline && matches!(self.child.try_wait(), Ok(None)) {
            sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Heard {
    fn hear(&mut self, word: Word) {
        match word {
            Word::Now(now) => {
                let mut returns = std::mem::take(&mut self.now.returns);
                returns.extend(&now.returns);
                self.now = Now { returns, ..now };
            }
            Word::Produced(id, produced) => self.produced.push((id, produced)),
            Word::Waits(id) => self.waiting.push(id),
        }
    }
}
