//! Who waits for new records of a sandbox: woken when some have been committed, here or by another gateway.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::Row as _;
use tokio::sync::watch;

use super::{Store, StoreError};

/// Between two looks at what other gateways have stored.
const LOOK: Duration = Duration::from_millis(500);
/// Sandboxes of one look's query.
const PAGE: usize = 64;

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

    /// Of which sandboxes somebody does.
    fn followed(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// Wake followers also of what others store, for as long as this gateway runs. One look serves all of them.
    pub async fn watch_others(self) {
        let mut known = HashMap::new();
        loop {
            tokio::time::sleep(LOOK).await;
            let followed = self.followers().followed();
            let still: HashSet<&String> = followed.iter().collect();
            known.retain(|id, _| still.contains(id));
            for ids in followed.chunks(PAGE) {
                // What cannot be read now is read at the next look.
                for (id, position) in self.positions(ids).await.unwrap_or_default() {
                    if known.insert(id.clone(), position) != Some(position) {
                        self.followers().wake(&id);
                    }
                }
            }
        }
    }

    /// Of the newest event of each.
    async fn positions(&self, ids: &[String]) -> Result<Vec<(String, i64)>, StoreError> {
        let mut sql = String::from("SELECT id, position FROM sandboxes WHERE id IN (");
        for n in 1..=ids.len() {
            // Writing to a String cannot fail.
            let _ = write!(sql, "{}${n}", if n == 1 { "" } else { ", " });
        }
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql + ")")).persistent(false);
        for id in ids {
            query = query.bind(id.clone());
        }
        let rows = self.read(async |c| query.fetch_all(c).await).await?;
        let position = |row: &sqlx::any::AnyRow| Ok((row.try_get("id")?, row.try_get("position")?));
        Ok(rows.iter().map(position).collect::<Result<_, sqlx::Error>>()?)
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
