//! Who takes the lease and renews it, does as others have left word, and closes all sessions where it is over.

use std::sync::Arc;
use std::time::Duration;

use protocol::session::close;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout_at};

use super::{Held, LOST, Lease, Standing};
use crate::exit::reason;
use crate::registry::Order;
use crate::sessions::Sessions;
use crate::store::leases::{Renewed, VALID, word};
use crate::store::{Heard, Leases, Leave, Notice, StoreError};

/// Between two renewals.
const RENEW: Duration = Duration::from_secs(2);
/// Between two looks at what this gateway has to be told.
pub(super) const LOOK: Duration = Duration::from_millis(500);

/// Takes and renews the lease.
pub struct Keeper {
    leases: Leases,
    url: String,
    standing: watch::Sender<Standing>,
    looked: watch::Sender<Option<Instant>>,
    /// Until when the lease holds for certain: measured from before it was asked for.
    until: Instant,
}

impl Keeper {
    /// With a lease, for a gateway that the others reach at `url`.
    pub async fn start(leases: Leases, url: String, awake_ms: i64) -> Result<(Lease, Keeper), StoreError> {
        let (standing, stands) = watch::channel(Standing::Lost);
        let (looked, last) = watch::channel(None);
        let mut keeper = Keeper { leases, url, standing, looked, until: Instant::now() };
        keeper.take(awake_ms).await?;
        Ok((Lease { standing: stands, looked: last, url: keeper.url.as_str().into() }, keeper))
    }

    /// A new lease under a new name: what was left under another one has ended.
    async fn take(&mut self, awake_ms: i64) -> Result<(), StoreError> {
        let until = Instant::now() + VALID;
        let id = format!("{:016x}", peer::random::bits());
        let taking = async {
            self.leases.take(&id, &self.url).await?;
            self.leases.renew(&id, awake_ms).await
        };
        let Ok(taken) = timeout_at(until, taking).await else { return Err(StoreError::Late) };
        let Some(renewed) = taken? else { return Err(StoreError::Late) };
        self.until = until;
        let others = renewed.there.len().saturating_sub(1);
        tracing::info!(gateway = id, others, "this gateway has a lease");
        self.hold(id, &renewed);
        Ok(())
    }

    /// For as long as the gateway runs.
    pub async fn run(mut self, sessions: Arc<Sessions>) {
        loop {
            self.keep(&sessions).await;
            self.lose(&sessions);
            while let Err(error) = self.take(sessions.awake.shared()).await {
                tracing::debug!(error = reason(&error), "no lease can be had now");
                sleep(LOOK).await;
            }
        }
    }

    /// Until it is over.
    async fn keep(&mut self, sessions: &Arc<Sessions>) {
        let (mut renewals, mut looks, mut seen) = (interval(RENEW), interval(LOOK), Vec::new());
        renewals.set_missed_tick_behavior(MissedTickBehavior::Delay);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let Standing::Held(Held { id, .. }) = self.standing.borrow().clone() else { return };
        loop {
            tokio::select! {
                biased;
                () = sleep_until(self.until) => return,
                _ = renewals.tick() => match self.renew(&id, sessions).await {
                    Ok(Some(renewed)) => {
                        sessions.awake.learn(renewed.awake_ms);
                        sessions.admission.set_gateways(renewed.there.len());
                        self.hold(id.clone(), &renewed);
                        self.tidy(renewed, sessions);
                    }
                    Ok(None) => return,
                    Err(error) => {
                        sessions.metrics.lease_failures.inc();
                        tracing::warn!(error = reason(&error), "the lease cannot be renewed now");
                    }
                },
                _ = looks.tick() => {
                    // What cannot be read now is there at the next look.
                    let looked = Instant::now();
                    let until = self.until.min(looked + RENEW);
                    // Without a lease nobody leaves any, and having none says nothing.
                    if let Ok(Ok(Some(notices))) = timeout_at(until, self.leases.notices(&id)).await {
                        obey(&notices, sessions);
                        self.looked.send_replace(Some(looked));
                        // Twice: a session may have been between its begin in the store and its place here.
                        hear(&id, notices.iter().filter(|notice| seen.contains(*notice)).cloned().collect(), sessions);
                        seen = notices;
                    }
                }
            }
        }
    }

    /// One try takes no longer than the next is away.
    async fn renew(&mut self, id: &str, sessions: &Sessions) -> Result<Option<Renewed>, StoreError> {
        let asked = Instant::now();
        let renewing = self.leases.renew(id, sessions.awake.shared());
        let Ok(renewed) = timeout_at(self.until.min(asked + RENEW), renewing).await else {
            return Err(StoreError::Silent);
        };
        let renewed = renewed?;
        if renewed.is_some() {
            self.until = asked + VALID;
        }
        Ok(renewed)
    }

    fn hold(&self, id: String, renewed: &Renewed) {
        let held = Held { id, leader: renewed.leader.clone(), there: renewed.there.clone() };
        let led = matches!(&*self.standing.borrow(), Standing::Held(before) if before.leads());
        if !led && held.leads() {
            tracing::info!(gateway = held.id, "this gateway leads");
        }
        // Also where nothing has changed: somebody may count.
        self.standing.send_replace(Standing::Held(held));
    }

    /// A leader removes those whose lease is over.
    fn tidy(&self, renewed: Renewed, sessions: &Arc<Sessions>) {
        let Standing::Held(held) = self.standing.borrow().clone() else { return };
        if !held.leads() {
            return;
        }
        for (gateway, ended_ms) in renewed.over {
            let sessions = sessions.clone();
            // Not here: it waits for the disk, and the lease does not.
            tokio::spawn(async move {
                let awake_ms = sessions.awake.shared();
                let leave = Leave { gateway: gateway.clone(), ended_ms, awake_ms, by_itself: false };
                match sessions.store.write(leave).await {
                    // It has just renewed, or others were faster.
                    Ok(None) => {}
                    Ok(Some(ended)) => tracing::warn!(gateway, sessions = ended, "another gateway's lease is over"),
                    Err(error) => {
                        tracing::warn!(gateway, error = reason(&error), "a gateway that is gone is still there")
                    }
                }
            });
        }
    }

    /// The others may count its sessions as ended from now on, so they have.
    fn lose(&self, sessions: &Sessions) {
        self.standing.send_replace(Standing::Lost);
        sessions.metrics.leases_lost.inc();
        let all = sessions.registry.all();
        tracing::error!(sessions = all.len(), "this gateway's lease is over; its sessions are closed");
        for live in all {
            live.order(Order::Close(close::STORE, LOST));
        }
    }
}

/// What others have left for this gateway.
fn obey(notices: &[Notice], sessions: &Sessions) {
    for Notice { sandbox, word, n } in notices {
        let Some(live) = sessions.registry.get(sandbox) else { continue };
        match word.as_str() {
            word::COMMANDS => live.tell_of_commands(),
            _ if live.fence >= *n => {}
            word::DELETED => sessions.registry.deleted(sandbox),
            _ => live.give_way(),
        }
    }
}

/// They have been obeyed.
fn hear(id: &str, notices: Vec<Notice>, sessions: &Arc<Sessions>) {
    if notices.is_empty() {
        return;
    }
    let (heard, sessions) = (Heard { gateway: id.into(), notices }, sessions.clone());
    tokio::spawn(async move {
        if let Err(error) = sessions.store.write(heard).await {
            tracing::debug!(error = reason(&error), "what was heard comes again");
        }
    });
}
