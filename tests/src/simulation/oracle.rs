//! What must hold when a run is over.

use std::collections::HashMap;

use gateway::store::Event;
use protocol::session::{Class, Gap};
use serde_json::json;

use super::sandbox::{Ledger, Sandbox};
use super::{Done, World};
use crate::tally::{Produced, Tally};

impl World {
    /// Of all sandboxes. `meddled`: how often a box on the way did with the messages of each.
    pub(super) async fn judge(mut self, meddled: &[u64]) -> Result<Done, String> {
        let Some(gateway) = self.gateway.take() else { return Err("no gateway".into()) };
        let mut done = Done::default();
        for ((sandbox, given), meddled) in self.sandboxes.iter().zip(&self.given).zip(meddled) {
            let told = |what: String| format!("{}: {what}", sandbox.id);
            let events = gateway.events(&sandbox.id).await;
            let produced = sandbox.produced().await.ok_or_else(|| told("it is not at rest".into()))?;
            let tally = count(&events, &produced).map_err(told)?;
            (done.delivered, done.gaps) = (done.delivered + tally.delivered, done.gaps + tally.gaps);
            are_as_produced(&events, sandbox).map_err(told)?;
            done.commands += were_applied_once(&sandbox.ledger(), *given).map_err(told)?;
            let missed = sandbox.missed();
            if missed > *meddled {
                return Err(told(format!(
                    "{missed} sessions were left for messages of which {meddled} were meddled with"
                )));
            }
            done.missed += missed;
            has_one_session(&gateway, sandbox).await.map_err(told)?;
            for event in &events {
                self.trace.note(format_args!("{} {} {} {}", sandbox.id, event.class, event.seq, event.last));
            }
        }
        (done.trace, done.notes) = self.trace.finish();
        Ok(done)
    }
}

/// Each number of the last log once, and of each log before it, as far as it got.
fn count(events: &[Event], produced: &Produced) -> Result<Tally, String> {
    let mut epochs: Vec<&str> = events.iter().map(|event| event.epoch.as_str()).collect();
    epochs.push(&produced.epoch);
    epochs.sort_unstable();
    epochs.dedup();
    let mut all = Tally::default();
    for epoch in epochs {
        let of_epoch: Vec<&Event> = events.iter().filter(|event| event.epoch == epoch).collect();
        in_order(&of_epoch)?;
        let newest = |class: Class| of_epoch.iter().filter(|e| e.class == class.name()).map(|e| e.last).max();
        let known = || Class::ALL.into_iter().filter_map(|class| Some((class, newest(class)?))).collect();
        let last = if epoch == produced.epoch { produced.last.clone() } else { known() };
        let values: Vec<_> = of_epoch.iter().map(|event| as_told(event)).collect();
        let mut tally = Tally::default();
        tally.count(&values, &Produced { epoch: epoch.into(), last });
        if tally.lost + tally.twice + tally.invented > 0 {
            return Err(format!("of log {epoch}: {tally:?}"));
        }
        (all.delivered, all.gaps) = (all.delivered + tally.delivered, all.gaps + tally.gaps);
    }
    Ok(all)
}

fn in_order(events: &[&Event]) -> Result<(), String> {
    for class in Class::ALL {
        let mut next = 1;
        for event in events.iter().filter(|event| event.class == class.name()) {
            if event.seq != next {
                return Err(format!("{} {} came where {next} was expected", class.name(), event.seq));
            }
            next = event.last + 1;
        }
    }
    Ok(())
}

/// As the API tells it.
fn as_told(event: &Event) -> serde_json::Value {
    let mut told = json!({"class": event.class, "epoch": event.epoch});
    match event.gap {
        true => told["gap"] = json!({"from": event.seq, "to": event.last}),
        false => told["seq"] = event.seq.into(),
    }
    told
}

/// What was delivered is what was told, once and in that order; nothing is missing that had to arrive.
fn are_as_produced(events: &[Event], sandbox: &Sandbox) -> Result<(), String> {
    let ledger = sandbox.ledger();
    let places: HashMap<(&str, &[u8]), usize> =
        ledger.records.iter().enumerate().map(|(place, r)| ((r.class.name(), r.bytes.as_slice()), place)).collect();
    let mut newest: HashMap<&str, usize> = HashMap::new();
    let mut delivered = vec![false; ledger.records.len()];
    for event in events.iter().filter(|event| !event.gap) {
        let Some(place) = places.get(&(event.class.as_str(), event.body.as_bytes())) else {
            return Err(format!("{} {} was never told: {}", event.class, event.seq, event.body));
        };
        if newest.insert(&event.class, *place).is_some_and(|before| before >= *place) {
            return Err(format!("{} {} came before an older one: {}", event.class, event.seq, event.body));
        }
        delivered[*place] = true;
    }
    let missing = ledger.records.iter().enumerate().zip(&delivered);
    let missing = missing.filter(|((_, record), delivered)| record.safe && !**delivered);
    let mut evictions = evictions(events, |event| places.get(&(event.class.as_str(), event.body.as_bytes())).copied());
    let mut may_go = |place: usize| {
        let here = |gap: &&mut Eviction| {
            gap.numbers > 0 && gap.behind.is_none_or(|at| at < place) && gap.before.is_none_or(|at| place < at)
        };
        evictions.iter_mut().find(here).map(|gap| gap.numbers -= 1).is_some()
    };
    let missing = missing.map(|(record, _)| record).find(|(place, record)| !(record.evictable && may_go(*place)));
    match missing {
        Some((_, record)) => {
            let class = record.class.name();
            let gaps = events.iter().filter(|event| event.gap && event.class == class).map(|event| &event.body);
            let gaps: Vec<_> = gaps.collect();
            let record = String::from_utf8_lossy(&record.bytes);
            Err(format!("durable and not delivered: {class} {record}, gaps: {gaps:?}"))
        }
        None => Ok(()),
    }
}

/// Lifecycle that went for newer lifecycle, between two records that arrived.
#[derive(Clone, Copy, Default)]
struct Eviction {
    behind: Option<usize>,
    before: Option<usize>,
    numbers: i64,
}

/// All of them; `place` is where a record was told.
fn evictions(events: &[Event], place: impl Fn(&Event) -> Option<usize>) -> Vec<Eviction> {
    let (mut all, mut now) = (Vec::new(), Eviction::default());
    for event in events.iter().filter(|event| event.class == Class::Lifecycle.name()) {
        if !event.gap {
            let here = place(event);
            all.push(Eviction { before: here, ..now });
            now = Eviction { behind: here, ..Eviction::default() };
        } else if serde_json::from_str::<Gap>(&event.body).is_ok_and(|gap| gap.reason == "evicted") {
            now.numbers += event.last - event.seq + 1;
        }
    }
    all.push(now);
    all
}

/// Commands 1 to `given`.
fn were_applied_once(ledger: &Ledger, given: i64) -> Result<usize, String> {
    let number = |key: &String| key.rsplit('-').next().and_then(|n| n.parse::<i64>().ok());
    let applied: Vec<i64> = ledger.applied.iter().filter_map(number).collect();
    match applied.iter().copied().eq(1..=given) {
        true => Ok(applied.len()),
        false => Err(format!("of {given} commands these were applied, in this order: {applied:?}")),
    }
}

/// The one with the newest fence.
async fn has_one_session(gateway: &super::gateway::Gateway, sandbox: &Sandbox) -> Result<(), String> {
    let row = gateway.sessions.store.sandbox(&sandbox.id).await.map_err(|error| error.to_string())?;
    let newest = row.as_ref().map(|row| row.fence);
    if row.is_some_and(|row| row.ended_ms.is_some()) {
        return Err("the store says that its session has ended".into());
    }
    match gateway.sessions.registry.get(&sandbox.id) {
        Some(live) if Some(live.fence) == newest => Ok(()),
        Some(live) => Err(format!("the session {} is live, and the newest is {newest:?}", live.fence)),
        None => Err("it has no session".into()),
    }
}
