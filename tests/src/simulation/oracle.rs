//! What must hold when a run is over.

use std::collections::{BTreeMap, HashMap};

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
            are_as_produced(&events, &sandbox.ledger()).map_err(told)?;
            have_numbers(&produced.last, &sandbox.last_numbers().unwrap_or_default()).map_err(told)?;
            if sandbox.is_in_doubt() {
                return Err(told("its disk is well, and its buffer says that it refuses records".into()));
            }
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

/// Each record that was told has a number, be it in a gap, and nothing else has: of the last life, since the ones before were killed.
fn have_numbers(last: &BTreeMap<Class, i64>, due: &BTreeMap<Class, i64>) -> Result<(), String> {
    match last == due {
        true => Ok(()),
        false => Err(format!("the last numbers are {last:?}, and by what was told they would be {due:?}")),
    }
}

/// What was delivered is what was told, once and in that order; nothing is missing that had to arrive.
fn are_as_produced(events: &[Event], ledger: &Ledger) -> Result<(), String> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulation::sandbox;

    /// It told two lifecycle records, which must arrive.
    fn ledger() -> Ledger {
        let mut records = ["first", "second"].map(|text| sandbox::Produced::new(Class::Lifecycle, text.into()));
        records.iter_mut().for_each(|record| record.safe = true);
        Ledger { records: records.into(), ..Ledger::default() }
    }

    fn event(seq: i64, gap: bool, body: String) -> Event {
        let (class, epoch) = (Class::Lifecycle.name().into(), "e".into());
        Event { position: seq, class, epoch, seq, last: seq, gap, body, stored_ms: 0 }
    }

    fn record(seq: i64, body: &str) -> Event {
        event(seq, false, body.into())
    }

    fn gap(seq: i64, reason: &str) -> Event {
        let gap = Gap { class: Class::Lifecycle, from: seq, to: seq, bytes: 0, reason: reason.into() };
        event(seq, true, serde_json::to_string(&gap).expect("plain data"))
    }

    #[track_caller]
    fn says(checked: Result<(), String>, what: &str) {
        let said = checked.expect_err(what);
        assert!(said.contains(what), "{said}");
    }

    #[test]
    fn a_record_that_had_to_arrive_and_did_not_is_missed() {
        are_as_produced(&[record(1, "first"), record(2, "second")], &ledger()).expect("both are there");
        says(are_as_produced(&[record(1, "first")], &ledger()), "durable and not delivered");
        says(are_as_produced(&[record(1, "first"), gap(2, "crash")], &ledger()), "durable and not delivered");
        let mut others = ledger();
        others.records[1].safe = false;
        are_as_produced(&[record(1, "first"), gap(2, "crash")], &others).expect("the second one may be lost");
    }

    #[test]
    fn on_a_disk_that_was_full_a_record_may_only_go_where_a_gap_says_so() {
        let mut full = ledger();
        full.records[0].evictable = true;
        are_as_produced(&[gap(1, "evicted"), record(2, "second")], &full).expect("it went for the second one");
        says(are_as_produced(&[gap(1, "disk"), record(2, "second")], &full), "durable and not delivered");
        says(are_as_produced(&[record(1, "second"), gap(2, "evicted")], &full), "durable and not delivered");
        says(are_as_produced(&[gap(1, "evicted"), record(2, "second")], &ledger()), "durable and not delivered");
    }

    #[test]
    fn a_record_that_came_twice_altered_or_out_of_order_is_noticed() {
        let with = |third| are_as_produced(&[record(1, "first"), record(2, "second"), third], &ledger());
        says(with(record(3, "second")), "came before an older one");
        says(with(record(3, "first")), "came before an older one");
        says(with(record(3, "Second")), "was never told");
    }

    #[test]
    fn a_number_that_is_doubled_missing_or_nobodys_is_noticed() {
        let check = |events: &[Event]| {
            let last = [(Class::Lifecycle, 2)].into();
            count(events, &Produced { epoch: "e".into(), last }).map(drop)
        };
        check(&[record(1, "first"), gap(2, "crash")]).expect("each is there");
        says(check(&[record(1, "first"), record(1, "first")]), "1 came where 2 was expected");
        says(check(&[record(1, "first")]), "lost: 1");
        says(check(&[record(1, "first"), gap(2, "crash"), record(3, "third")]), "invented: 1");
        let numbers = |last| BTreeMap::from([(Class::Logs, last)]);
        have_numbers(&numbers(2), &numbers(2)).expect("each has its number");
        says(have_numbers(&numbers(1), &numbers(2)), "the last numbers are {Logs: 1}");
        says(have_numbers(&numbers(3), &numbers(2)), "the last numbers are {Logs: 3}");
    }
}
