//! Who waits for new records of a sandbox: woken when some have been committed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

type Waiting = HashMap<String, watch::Sender<()>>;

/// Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Followers(Arc<Mutex<Waiting>>);

/// One who follows; gone when dropped.
#[derive(Debug)]
pub struct Following {
    sandbox: String,
    news: watch::Receiver<()>,
    followers: Followers,
}

impl Followers {
    /// Follow this sandbox from now on.
    pub fn follow(&self, sandbox: &str) -> Following {
        let mut waiting = self.lock();
        let sender = waiting.entry(sandbox.to_string()).or_insert_with(|| watch::channel(()).0);
        Following { sandbox: sandbox.to_string(), news: sender.subscribe(), followers: self.clone() }
    }

    /// Records of this sandbox have been committed.
    pub fn wake(&self, sandbox: &str) {
        if let Some(sender) = self.lock().get(sandbox) {
            sender.send_replace(());
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Following {
    /// Comes when there has been news since the last time.
    pub async fn news(&mut self) {
        // The sender stays as long as somebody follows.
        let _ = self.news.changed().await;
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let mut waiting = self.followers.lock();
        if waiting.get(&self.sandbox).is_some_and(|sender| sender.receiver_count() <= 1) {
            waiting.remove(&self.sandbox);
        }
    }
}
