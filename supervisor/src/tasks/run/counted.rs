//! A task's stream whose bytes are counted as they are kept.

use std::io;
use std::sync::Arc;

use crate::metrics::{Counter, Metrics};
use crate::tasks::output::Stream;

/// Cheap to clone.
#[derive(Clone)]
pub(in crate::tasks) struct Counted {
    stream: Arc<Stream>,
    written: Counter,
    cut: Counter,
}

impl Counted {
    pub(in crate::tasks) fn new(stream: &Arc<Stream>, metrics: &Metrics) -> Counted {
        let written = metrics.tasks.output(stream.name());
        Counted { stream: stream.clone(), written, cut: metrics.tasks.cut_bytes.clone() }
    }

    /// Take what the task wrote. Blocks on the disk.
    pub(super) fn append(&self, bytes: &[u8]) -> io::Result<()> {
        let cut = self.stream.append(bytes)?;
        self.written.inc_by(bytes.len() as u64);
        self.cut.inc_by(cut);
        Ok(())
    }
}
