//! This gateway's place among several that work with one store: a lease, renewed every two seconds.
//!
//! Promises: whoever could not renew for as long as a lease is valid closes its sessions before the others may count them as ended,
//! and takes another lease when it can; a session that has begun at another gateway ends here within a second; one of all gateways
//! leads, and where its lease ends another one does within a few seconds.
//!
//! What a leader does may be done twice at once, when one is just losing its lease: it all stands in the store first, and is done
//! over again. What cannot be done over again (a sandbox is given up, or forgotten) is written only while the one leads that began
//! it ([`Lease::term`]).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use protocol::session::close;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout_at};

use crate::awake::wall_ms;
use crate::exit::reason;
use crate::registry::Order;
use crate::sessions::Sessions;
use crate::store::leases::{Renewed, VALID, word};
use crate::store::{Heard, Leases, Leave, Notice, Owner, StoreError, Term};

/// Between two renewals.
const RENEW: Duration = Duration::from_secs(2);
/// Between two looks at what this gateway has to be told.
const LOOK: Duration = Duration::from_millis(500);

/// How this gateway stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// There are no others.
    Alone,
    /// It has a lease.
    Held(Held),
    /// It has none now, and no session.
    Lost,
}

/// What was known when the lease was renewed last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// This gateway's name for as long as it holds this lease.
    pub id: String,
    /// The gateway that does what one has to do for all.
    pub leader: String,
    /// Those that are there, and where; this one is among them.
    pub there: BTreeMap<String, String>,
}

/// How this gateway stands now. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Lease {
    standing: watch::Receiver<Standing>,
    /// Where the others reach this gateway; empty where there are none.
    url: Arc<str>,
}

impl Lease {
    /// For a gateway that has its store alone.
    pub fn alone() -> Lease {
        Lease { standing: watch::channel(Standing::Alone).1, url: "".into() }
    }

    /// Now.
    pub fn standing(&self) -> Standing {
        self.standing.borrow().clone()
    }

    /// Whether there may be others.
    pub fn is_alone(&self) -> bool {
        *self.standing.borrow() == Standing::Alone
    }

    /// Whether no session may begin here.
    pub fn is_lost(&self) -> bool {
        *self.standing.borrow() == Standing::Lost
    }

    /// Its name among others, where it has one now.
    pub fn id(&self) -> Option<String> {
        match &*self.standing.borrow() {
            Standing::Held(held) => Some(held.id.clone()),
            _ => None,
        }
    }

    /// The gateway that has this session now, where it is another one. By its URL: the lease that this one has lost, or had in an earlier
    /// life, may still be there under its old name.
    pub fn other(&self, owner: Option<&Owner>) -> Option<Owner> {
        owner.filter(|owner| *owner.url != *self.url).cloned()
    }

    /// How many gateways there are.
    pub fn gateways(&self) -> usize {
        match &*self.standing.borrow() {
            Standing::Held(held) => held.there.len().max(1),
            _ => 1,
        }
    }

    /// Whether it does what one has to do for all.
    pub fn leads(&self) -> bool {
        match &*self.standing.borrow() {
            Standing::Alone => true,
            Standing::Held(held) => held.leader == held.id,
            Standing::Lost => false,
        }
    }

    /// In which it does so, if it does: for what it begins now.
    pub fn term(&self) -> Term {
        match &*self.standing.borrow() {
            Standing::Alone => Term::always(),
            Standing::Held(held) => Term::of(held.id.clone()),
            // Nobody leads without a name.
            Standing::Lost => Term::of(String::new()),
        }
    }

    /// The other gateway that leads, where one does.
    pub fn leader(&self) -> Option<Owner> {
        let Standing::Held(held) = self.standing() else { return None };
        let url = held.there.get(&held.leader).filter(|_| held.leader != held.id)?.clone();
        Some(Owner { id: held.leader, url })
    }

    /// Comes when it [leads](Lease::leads), or when it does not.
    pub async fn until_leads(&mut self, leads: bool) {
        while self.leads() != leads {
            self.changed().await;
        }
    }

    /// Comes when that gateway, of which the store says that it is there, is not there any more, or nobody can know.
    pub async fn until_gone(&mut self, id: &str) {
        // One that has just come may be missing in what was read before it came, and in what is being read now.
        let mut misses = 2;
        loop {
            match self.sees(id) {
                Some(true) => misses = 0,
                Some(false) if misses > 0 => misses -= 1,
                Some(false) | None => return,
            }
            self.changed().await;
        }
    }

    /// Whether that gateway was there at the last renewal; `None` where nobody can know.
    fn sees(&mut self, id: &str) -> Option<bool> {
        match &*self.standing.borrow_and_update() {
            Standing::Held(held) => Some(held.there.contains_key(id)),
            _ => None,
        }
    }

    async fn changed(&mut self) {
        if self.standing.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

/// Takes and renews the lease.
pub struct Keeper {
    leases: Leases,
    url: String,
    standing: watch::Sender<Standing>,
    /// Until when the lease holds for certain: measured from before it was asked for.
    until: Instant,
}

impl Keeper {
    /// With a lease, for a gateway that the others reach at `url`.
    pub async fn start(leases: Leases, url: String, awake_ms: i64) -> Result<(Lease, Keeper), StoreError> {
        let (standing, receiver) = watch::channel(Standing::Lost);
        let mut keeper = Keeper { leases, url, standing, until: Instant::now() };
        keeper.take(awake_ms).await?;
        Ok((Lease { standing: receiver, url: keeper.url.as_str().into() }, keeper))
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
                    let until = self.until.min(Instant::now() + RENEW);
                    if let Ok(Ok(notices)) = timeout_at(until, self.leases.notices(&id)).await {
                        obey(&notices, sessions);
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
        let before = self.standing.borrow().clone();
        let led = matches!(&before, Standing::Held(before) if before.leader == before.id);
        if !led && held.leader == held.id {
            tracing::info!(gateway = held.id, "this gateway leads");
        }
        // Also where nothing has changed: somebody may count.
        self.standing.send_replace(Standing::Held(held));
    }

    /// A leader removes those whose lease is over.
    fn tidy(&self, renewed: Renewed, sessions: &Arc<Sessions>) {
        let Standing::Held(held) = self.standing.borrow().clone() else { return };
        if held.leader != held.id {
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
            live.order(Order::Close(close::STORE, "the gateway has lost its lease; dial again"));
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
            _ => live.order(Order::Close(close::FENCED, "a newer session of this agent is at another gateway")),
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

impl Leave {
    /// Of a gateway that stops, and has no session any more.
    pub fn now(gateway: String, awake_ms: i64) -> Leave {
        Leave { gateway, ended_ms: wall_ms(), awake_ms, by_itself: true }
    }
}
