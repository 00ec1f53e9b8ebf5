//! Waiting for a gateway that is away, and no longer than was asked for.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::ClientError;

/// Between two tries, at first and at most; half of it is chance, so that many followers do not come at once.
const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(3);
/// What is over sooner is not worth a word.
const QUIET: Duration = Duration::from_secs(1);

/// What a person is told.
#[derive(Debug)]
pub enum Turn<'a> {
    /// The gateway is away.
    Away(&'a ClientError),
    /// It is there again.
    Back,
}

/// Shared by all that wait for one gateway.
#[derive(Clone)]
pub struct Patience {
    limit: Duration,
    tell: Arc<dyn Fn(Turn<'_>) + Send + Sync>,
    outage: Arc<Mutex<Option<Outage>>>,
}

#[derive(Clone, Copy)]
struct Outage {
    since: Instant,
    tries: u32,
    told: bool,
}

impl Patience {
    /// Wait for so long; `tell` hears of an outage once, and of its end.
    pub fn new(limit: Duration, tell: impl Fn(Turn<'_>) + Send + Sync + 'static) -> Patience {
        Patience { limit, tell: Arc::new(tell), outage: Arc::default() }
    }

    /// Wait a little; the error itself where it does not pass by waiting, or was waited for long enough.
    pub async fn bear(&self, error: ClientError) -> Result<(), ClientError> {
        if !error.is_away() {
            return Err(error);
        }
        let now = Instant::now();
        let (outage, tell) = {
            let mut outage = self.outage.lock().unwrap_or_else(PoisonError::into_inner);
            let current = outage.get_or_insert(Outage { since: now, tries: 0, told: false });
            current.tries += 1;
            let tell = !current.told && now - current.since >= QUIET;
            current.told |= tell;
            (*current, tell)
        };
        if now - outage.since >= self.limit {
            return Err(error);
        }
        if tell {
            (self.tell)(Turn::Away(&error));
        }
        tokio::time::sleep(delay(outage.tries)).await;
        Ok(())
    }

    /// An answer came.
    pub fn back(&self) {
        let over = self.outage.lock().unwrap_or_else(PoisonError::into_inner).take();
        if over.is_some_and(|outage| outage.told) {
            (self.tell)(Turn::Back);
        }
    }

    /// Ask until there is an answer.
    pub async fn insist<T, F: Future<Output = Result<T, ClientError>>>(
        &self,
        mut ask: impl FnMut() -> F,
    ) -> Result<T, ClientError> {
        loop {
            match ask().await {
                Ok(answer) => {
                    self.back();
                    return Ok(answer);
                }
                Err(error) => self.bear(error).await?,
            }
        }
    }
}

fn delay(tries: u32) -> Duration {
    let whole = FIRST.saturating_mul(1 << tries.saturating_sub(1).min(8)).min(LONGEST);
    // The standard library's hash keys are random for each state.
    let chance = RandomState::new().build_hasher().finish() as f64 / u64::MAX as f64;
    whole.mul_f64(0.5 + chance / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn away() -> ClientError {
        ClientError::broken("gone")
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_is_told_once_and_borne_for_as_long_as_was_asked() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let words = told.clone();
        let patience = Patience::new(Duration::from_secs(60), move |turn| {
            words.lock().expect("no panic").push(matches!(turn, Turn::Back));
        });
        let began = Instant::now();
        while patience.bear(away()).await.is_ok() {
            assert!(began.elapsed() < Duration::from_secs(70));
        }
        assert!(began.elapsed() >= Duration::from_secs(60));
        patience.back();
        assert_eq!(*told.lock().expect("no panic"), [false, true]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_short_outage_is_borne_in_silence_and_a_refusal_not_at_all() {
        let patience = Patience::new(Duration::from_secs(60), |turn| panic!("{turn:?}"));
        patience.bear(away()).await.expect("borne");
        patience.back();
        let refused = ClientError::token(std::path::Path::new("t"), "it is empty");
        assert!(patience.bear(refused).await.is_err());
    }
}
