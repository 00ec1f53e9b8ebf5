//! This gateway's place among several that work with one store: a lease, renewed every two seconds.
//!
//! Promises: whoever could not renew for as long as a lease is valid closes its sessions before the others may count them as ended,
//! and takes another lease when it can; a session that has begun at another gateway ends here within a second, and where this gateway
//! cannot have heard of it in time (it was stopped, or the store is slow) it knows that ([`Lease::is_current`]); one of all gateways
//! leads, and where its lease ends another one does within a few seconds.
//!
//! What a leader does may be done twice at once, when one is just losing its lease: it all stands in the store first, and is done
//! over again. What cannot be done over again (a sandbox is given up, or forgotten) is written only while the one leads that began
//! it ([`Lease::term`]).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::store::{Owner, Term};

mod keeper;

pub use keeper::Keeper;

/// What a session is told that ends with the lease.
pub const LOST: &str = "the gateway has lost its lease; dial again";

/// For so long after it began to look at what others have left for it a gateway goes by what it knows.
const CURRENT: Duration = keeper::LOOK.saturating_mul(2);

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

impl Held {
    /// Whether this gateway leads.
    fn leads(&self) -> bool {
        self.leader == self.id
    }
}

/// How this gateway stands now. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Lease {
    standing: watch::Receiver<Standing>,
    /// When it began to look at what others have left for it, last.
    looked: watch::Receiver<Option<Instant>>,
    /// Where the others reach this gateway; empty where there are none.
    url: Arc<str>,
}

impl Lease {
    /// For a gateway that has its store alone.
    pub fn alone() -> Lease {
        Lease { standing: watch::channel(Standing::Alone).1, looked: watch::channel(None).1, url: "".into() }
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

    /// Whether it would know if a session that entered the registry then had been followed a second ago by one at another gateway: it
    /// has looked since it is there, within the last second. Where it would not, the store does.
    pub fn is_current(&self, entered: Instant) -> bool {
        let looked = *self.looked.borrow();
        self.is_alone() || looked.is_some_and(|looked| looked >= entered && looked.elapsed() < CURRENT)
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
            Standing::Held(held) => held.leads(),
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
        let url = held.there.get(&held.leader).filter(|_| !held.leads())?.clone();
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

    /// Comes with the next renewal, also where nothing is different.
    pub async fn changed(&mut self) {
        if self.standing.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_gateway_goes_by_what_it_knows_for_a_second_after_a_look_and_only_of_sessions_that_were_there_then() {
        let (_held, standing) =
            watch::channel(Standing::Held(Held { id: "g".into(), leader: "g".into(), there: BTreeMap::new() }));
        let (look, looked) = watch::channel(None);
        let lease = Lease { standing, looked, url: "http://g".into() };
        let entered = Instant::now();
        assert!(!lease.is_current(entered), "it has never looked");
        advance(Duration::from_millis(1)).await;
        look.send_replace(Some(Instant::now()));
        assert!(lease.is_current(entered));
        assert!(!lease.is_current(Instant::now() + Duration::from_millis(1)), "it has not looked since");
        advance(CURRENT - Duration::from_millis(1)).await;
        assert!(lease.is_current(entered));
        advance(Duration::from_millis(1)).await;
        assert!(!lease.is_current(entered));
        assert!(Lease::alone().is_current(entered), "there are no others");
    }
}
