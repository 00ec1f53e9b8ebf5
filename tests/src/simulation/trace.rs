//! What happened in a run, as one number: two runs of one seed have the same one.

use std::fmt;
use std::hash::{DefaultHasher, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;

/// Cheap to clone; all notes go into one.
#[derive(Clone)]
pub(super) struct Trace(Arc<Mutex<State>>);

struct State {
    begun: Instant,
    hash: DefaultHasher,
    notes: u64,
    /// Said on standard error too.
    aloud: bool,
}

impl Trace {
    /// From now on.
    pub(super) fn new(aloud: bool) -> Trace {
        let state = State { begun: Instant::now(), hash: DefaultHasher::new(), notes: 0, aloud };
        Trace(Arc::new(Mutex::new(state)))
    }

    /// This happened now.
    pub(super) fn note(&self, what: fmt::Arguments<'_>) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let note = format!("{:9.3} {what}", state.begun.elapsed().as_secs_f64());
        state.hash.write(note.as_bytes());
        state.notes += 1;
        if state.aloud {
            eprintln!("{note}");
        }
    }

    /// All of it, and how many notes there are.
    pub(super) fn finish(&self) -> (u64, u64) {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (state.hash.finish(), state.notes)
    }
}
