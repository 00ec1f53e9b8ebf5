//! What is left of a session that is over: its end in the store, and its place for whoever comes next.

use std::time::Duration;

use super::Session;
use crate::awake::wall_ms;
use crate::exit::reason;
use crate::sessions::end::End;
use crate::store::{self, Store, StoreError};

/// Between two tries to store an end.
const LATER: Duration = Duration::from_secs(5);

impl Session<'_> {
    /// It has ended so.
    pub(super) async fn over(&self, end: &End) {
        if let Some(streams) = &self.live.streams {
            streams.end();
        }
        // It has ended with the lease, in the store too; the peer is to know before the store can be asked again.
        if self.part.lease.id() != self.owner {
            self.part.registry.leave(&self.live);
            return;
        }
        let write = store::End {
            sandbox: self.live.sandbox.clone(),
            fence: self.live.fence,
            state: self.live.state().map(|told| (told.json, told.digest)),
            gone: *end == End::Bye { last: true },
            now_ms: wall_ms(),
            awake_ms: self.part.awake.shared(),
        };
        if let Err(error) = self.part.store.write(write.clone()).await {
            tracing::warn!(sandbox = self.live.sandbox, error = reason(&error), "its end is stored later");
            tokio::spawn(store_later(self.part.store.clone(), write));
        }
        // Whoever asks from here on finds the end in the store.
        self.part.registry.leave(&self.live);
    }
}

/// Others would take it for one that goes on.
async fn store_later(store: Store, end: store::End) {
    while let Err(error) = store.write(end.clone()).await {
        if matches!(error, StoreError::Closed) {
            return;
        }
        tokio::time::sleep(LATER).await;
    }
}
