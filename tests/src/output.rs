//! What a program wrote, as it comes.

use std::io::Read;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::wait::LONG;

/// No test keeps more; a flood ends as a failed test, not as a full machine.
const MOST: usize = 256 * 1024 * 1024;

#[derive(Default)]
struct State {
    bytes: Vec<u8>,
    closed: bool,
    held: bool,
}

/// One stream, read by a thread of its own.
#[derive(Clone, Default)]
pub struct Output {
    shared: Arc<(Mutex<State>, Condvar)>,
}

impl Output {
    /// Read `from`; nothing is read while it is held.
    pub fn read(mut from: impl Read + Send + 'static, held: bool) -> Output {
        let output = Output::default();
        output.change(|state| state.held = held);
        let reader = output.clone();
        std::thread::spawn(move || {
            let mut chunk = vec![0u8; 64 * 1024];
            loop {
                reader.wait_while(|state| state.held);
                let count = from.read(&mut chunk).unwrap_or(0);
                reader.change(|state| {
                    state.bytes.extend_from_slice(&chunk[..count]);
                    state.closed = count == 0 || state.bytes.len() > MOST;
                });
                if reader.closed() {
                    return;
                }
            }
        });
        output
    }

    /// Read on.
    pub fn release(&self) {
        self.change(|state| state.held = false);
    }

    /// Everything so far.
    pub fn bytes(&self) -> Vec<u8> {
        self.lock().bytes.clone()
    }

    /// Everything so far, as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.lock().bytes).into_owned()
    }

    /// Whether the other side has closed.
    pub fn closed(&self) -> bool {
        self.lock().closed
    }

    /// Wait until the text answers; panics with everything that was read.
    #[track_caller]
    pub fn wait_for<T>(&self, what: &str, mut find: impl FnMut(&str) -> Option<T>) -> T {
        let deadline = Instant::now() + LONG;
        let mut state = self.lock();
        loop {
            if let Some(found) = find(&String::from_utf8_lossy(&state.bytes)) {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if state.closed || left.is_zero() {
                let text = String::from_utf8_lossy(&state.bytes).into_owned();
                drop(state);
                panic!("{what} never came; this did:\n{text}");
            }
            let waited = self.shared.1.wait_timeout(state, left.min(Duration::from_millis(200)));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Wait until the text contains this.
    #[track_caller]
    pub fn wait_text(&self, needle: &str) {
        self.wait_for(needle, |text| text.contains(needle).then_some(()));
    }

    /// Wait until the other side closes, then everything.
    #[track_caller]
    pub fn to_end(&self) -> Vec<u8> {
        crate::wait::wait_until("the end of a stream", || self.closed());
        self.bytes()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.shared.1.notify_all();
    }

    fn wait_while(&self, mut condition: impl FnMut(&State) -> bool) {
        let mut state = self.lock();
        while condition(&state) {
            state = self.shared.1.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Bytes of every value that no program would write by chance, the same each time (xorshift).
pub fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut out = Vec::with_capacity(bytes + 8);
    while out.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(bytes);
    out
}
